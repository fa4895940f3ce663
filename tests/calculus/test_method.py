"""Every mistake in a method is one clear error, made before anything is touched."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import unipet
from tests.support.tiny import tiny_bert

GOOD: dict[str, Any] = {
    "name": "good",
    "insertions": {
        "one": {
            "function": {"name": "bottleneck", "size": 4, "activation": "relu"},
            "position": {"site": "ffn", "form": "sequential", "layers": "all"},
            "composition": "add",
            "scaling": {"name": "constant", "value": 1.0},
            "mixture": {"experts": 2, "share": ["up"]},
        }
    },
    "unfreeze": ["head"],
    "objective": {"consistency": {"weight": 1.0}},
}
INSERTION = "insertions.one"
PREFIX = {"function": "prefix", "position": "attn.heads", "composition": "gated"}

#: (path of the key to set, value, pieces that the message must hold)
MISTAKES: list[tuple[str, Any, list[str]]] = [
    (
        "insertion",
        {},
        ["method.insertion: a method has no option 'insertion'", "insertions", "Did you mean 'insertions'"],
    ),
    ("name", 3, ["method.name", "3"]),
    ("name", None, ["method.name"]),
    ("insertions", ["one"], ["method.insertions", "mapping"]),
    (f"{INSERTION}.functon", {}, ["method.insertions.one.functon", "Did you mean 'function'"]),
    (f"{INSERTION}.function", None, ["method.insertions.one.function", "low_rank"]),
    (f"{INSERTION}.function", 3, ["method.insertions.one.function", "3"]),
    (f"{INSERTION}.function.name", "botleneck", ["function.name", "'botleneck'", "Did you mean 'bottleneck'"]),
    (f"{INSERTION}.function.name", 7, ["function.name", "7 given; allowed: the name"]),
    (
        f"{INSERTION}.function.name",
        "low_rank",
        ["function.activation", "'low_rank' has no option 'activation'", "~method.insertions.one.function.activation"],
    ),
    (f"{INSERTION}.function.sise", 4, ["function.sise", "Did you mean 'size'"]),
    (f"{INSERTION}.function.size", -4, ["function.size: -4 given; allowed: a whole number from 1"]),
    (f"{INSERTION}.function.size", 0, ["method.insertions: each of them is absent", "Give one of them a size"]),
    (f"{INSERTION}.function.size", "big", ["function.size", "whole number", "'big'"]),
    (f"{INSERTION}.function.size", 2.5, ["function.size", "whole number", "2.5"]),
    (f"{INSERTION}.function.size", True, ["function.size", "whole number"]),
    (
        f"{INSERTION}.function.dropout",
        1.5,
        ["function.dropout: 1.5 given; allowed: a finite number at least 0 and at most 0.999"],
    ),
    (f"{INSERTION}.function.activation", "rulu", ["function.activation", "Did you mean 'relu'"]),
    (f"{INSERTION}.function.activation", 1, ["function.activation: unknown 1", "Allowed: ", "relu"]),
    (f"{INSERTION}.function.bias", "yes", ["function.bias", "true or false"]),
    (f"{INSERTION}.position.site", "fnn", ["position.site", "unknown role 'fnn'", "Did you mean 'ffn'"]),
    (f"{INSERTION}.position.site", "ffn.gate", ["position.site", "matches nothing", "ffn.up", "optional"]),
    (f"{INSERTION}.position.site", "cross.q", ["position.site", "cross.q"]),
    (f"{INSERTION}.position.site", [], ["position.site", "missing"]),
    (f"{INSERTION}.position.site", ["ffn", "ffn"], ["position.site", "twice"]),
    (f"{INSERTION}.position.site", 5, ["position.site[0]: 5 given; allowed: a text"]),
    (f"{INSERTION}.position.form", "paralel", ["position.form", "Did you mean 'parallel'"]),
    (f"{INSERTION}.position.layers", "0-9", ["position.layers", "layer 9 does not exist", "0-1"]),
    (f"{INSERTION}.position.layers", [0, 5], ["position.layers", "layer 5"]),
    (f"{INSERTION}.position.layers", "3-1", ["position.layers", "backwards"]),
    (f"{INSERTION}.position.layers", "first:9", ["position.layers", "first:9", "2"]),
    (f"{INSERTION}.position.layers", "some", ["position.layers", "'some'", "first:k"]),
    (f"{INSERTION}.position.layers", [], ["position.layers"]),
    (f"{INSERTION}.position.tokens", "first:0", ["position.tokens", "first:0"]),
    (f"{INSERTION}.position.stack", "decoder", ["position.stack", "no decoder stack", "encoder"]),
    (f"{INSERTION}.position.input", "pre_norm", ["position.input", "pre_norm", "post_norm"]),
    (f"{INSERTION}.position.wher", 1, ["position.wher"]),
    (f"{INSERTION}.composition", "ad", ["composition", "Did you mean 'add'"]),
    (f"{INSERTION}.composition", 4, ["composition", "4 given; allowed: a composition"]),
    (f"{INSERTION}.composition", "gated", ["composition", "'gated'", "prefix"]),
    (f"{INSERTION}.scaling", "constnt", ["scaling", "Did you mean 'constant'"]),
    (f"{INSERTION}.scaling", float("nan"), ["scaling", "finite number"]),
    (f"{INSERTION}.scaling.value", "four", ["scaling.value", "finite number", "'four'"]),
    (f"{INSERTION}.scaling.alpha", 4, ["scaling.alpha", "no option 'alpha'"]),
    (f"{INSERTION}.mixture.experts", 1, ["mixture.experts: 1 given; allowed: a whole number from 2"]),
    (f"{INSERTION}.mixture.share", ["upp"], ["mixture.share", "'upp'", "Did you mean 'up'"]),
    (f"{INSERTION}.mixture.share", ["up", "down"], ["mixture.share", "nothing to mix"]),
    (f"{INSERTION}.mixture.router", "unifrm", ["mixture.router", "Did you mean 'uniform'"]),
    (
        f"{INSERTION}.mixture.router",
        {"name": "learned", "top_k": 2},
        ["a name stands alone", f"{INSERTION}.mixture.router=learned", f"{INSERTION}.mixture.top_k=2"],
    ),
    ("unfreeze", ["heed"], ["unfreeze", "'heed'", "Did you mean 'head'"]),
    ("objective.consistancy", {}, ["objective.consistancy", "Did you mean 'consistency'"]),
    ("objective.consistency.weight", -1, ["consistency.weight: -1 given; allowed: a finite number at least 0"]),
    ("objective.consistency.divergence", "kl", ["consistency.divergence", "symmetric_kl"]),
    (INSERTION, {**PREFIX, "position": "ffn"}, ["position.site", "attn.heads"]),
    (INSERTION, {**PREFIX, "position": {"site": "attn.heads", "form": "sequential"}}, ["position.form", "parallel"]),
    (INSERTION, {**PREFIX, "function": {"name": "prefix", "activation": "relu"}}, ["gated", "softmax"]),
    (INSERTION, {"function": "low_rank", "position": "embed"}, ["embed", "sequential"]),
    (
        INSERTION,
        {"function": "vector", "position": "ffn", "scaling": "alpha_over_rank"},
        ["scaling", "size", "'vector'"],
    ),
    (INSERTION, {"function": "vector", "position": "ffn", "mixture": {"share": ["value"]}}, ["mixture.share"]),
    (INSERTION, {"function": "low_rank", "position": "ffn.mid"}, ["position.form", "sequential"]),
    (INSERTION, "low_rank", ["method.insertions.one", "mapping"]),
]


def with_mistake(path: str, value: Any) -> dict[str, Any]:
    spec = copy.deepcopy(GOOD)
    *parents, last = path.split(".")
    node = spec
    for parent in parents:
        node = node[parent]
    node[last] = value
    return spec


def state(model: nn.Module) -> tuple[Any, ...]:
    hooks = sum(len(m._forward_hooks) + len(m._forward_pre_hooks) for m in model.modules())
    flags = tuple(p.requires_grad for p in model.parameters())
    return hooks, flags, model.config._attn_implementation, tuple(name for name, _ in model.named_modules())


@pytest.mark.parametrize(("path", "value", "pieces"), MISTAKES, ids=[f"{p}={v!r}"[:60] for p, v, _ in MISTAKES])
def test_a_mistake_names_the_key_the_choices_and_changes_nothing(path: str, value: Any, pieces: list[str]) -> None:
    model = tiny_bert()
    before = state(model)
    with pytest.raises(unipet.UnipetError) as caught:
        unipet.adapt(model, with_mistake(path, value))
    message = str(caught.value)
    assert all(piece in message for piece in pieces), message
    assert "\n" not in message and len(message) < 700
    assert state(model) == before


def test_the_good_method_is_good() -> None:
    unipet.adapt(tiny_bert(), GOOD)


def test_a_late_failure_leaves_nothing_behind() -> None:
    """The second insertion fails to resolve: the first must not be there either."""
    spec = copy.deepcopy(GOOD)
    spec["insertions"]["two"] = {"function": "low_rank", "position": "ffn.gate"}
    model = tiny_bert()
    before = state(model)
    with pytest.raises(unipet.UnipetError, match=r"insertions\.two\.position\.site"):
        unipet.adapt(model, spec)
    assert state(model) == before


def test_adapting_twice_and_acting_on_a_bare_model() -> None:
    model = tiny_bert()
    for action in (unipet.eject, unipet.merge, unipet.parameters):
        with pytest.raises(unipet.UnipetError, match="carries no method"):
            action(model)
    unipet.adapt(model, "lora")
    with pytest.raises(unipet.UnipetError, match="already carries method 'lora'"):
        unipet.adapt(model, "mam")
    unipet.eject(model)
    unipet.adapt(model, "mam")


def test_unknown_method_names_and_files(tmp_path: Path) -> None:
    with pytest.raises(unipet.UnipetError, match=r"unknown 'lorra'.*Did you mean 'lora'"):
        unipet.load_method("lorra")
    with pytest.raises(unipet.UnipetError, match="no file"):
        unipet.load_method(tmp_path / "mine.yaml")
    (tmp_path / "broken.yaml").write_text("name: [")
    with pytest.raises(unipet.UnipetError, match="not a readable YAML"):
        unipet.load_method(tmp_path / "broken.yaml")
    (tmp_path / "list.yaml").write_text("- a")
    with pytest.raises(unipet.UnipetError, match="given; allowed: a mapping"):
        unipet.load_method(tmp_path / "list.yaml")


def test_an_architecture_without_a_table_says_what_it_has() -> None:
    from transformers import AlbertConfig, AlbertForSequenceClassification

    config = AlbertConfig(vocab_size=8, hidden_size=8, embedding_size=8, num_attention_heads=2, intermediate_size=16)
    model = AlbertForSequenceClassification(config)
    before = state(model)
    with pytest.raises(
        unipet.UnipetError, match=r"No site table for the architecture 'albert'.*bert.*model\.sites="
    ) as caught:
        unipet.adapt(model, "lora")
    assert "attn.q: albert_layers.0.attention.query" in str(caught.value), "test_sites_draft.py tries it out"
    assert state(model) == before


def test_a_bare_name_in_a_mapping_is_not_a_method() -> None:
    with pytest.raises(unipet.UnipetError, match=r"neither insertions nor unfreeze.*'lora' as a string"):
        unipet.load_method({"name": "lora"})


def test_nothing_to_train_is_an_error() -> None:
    with pytest.raises(unipet.UnipetError, match="nothing would train"):
        unipet.load_method({"name": "empty", "unfreeze": []})
    with pytest.raises(unipet.UnipetError, match="would train nothing"):
        unipet.adapt(tiny_bert(head=False), "head_only")


def test_changing_the_attention_implementation_afterwards_is_an_error() -> None:
    model = tiny_bert()
    unipet.adapt(model, "prefix")
    model.set_attn_implementation("eager")
    with pytest.raises(unipet.UnipetError, match="attention implementation was changed"):
        model(input_ids=torch.ones(1, 3, dtype=torch.long))


def test_gates_want_a_two_dimensional_mask() -> None:
    model = tiny_bert()
    unipet.adapt(model, "unipelt")
    with pytest.raises(unipet.UnipetError, match="2-D attention_mask"):
        model(input_ids=torch.ones(1, 3, dtype=torch.long), attention_mask=torch.ones(1, 1, 3, 3))
