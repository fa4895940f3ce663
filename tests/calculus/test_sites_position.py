"""Where an insertion acts: the activations of every role, and the selectors of layers, stacks and tokens."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

import unipet
from tests.support.insertions import adapted, method, output
from tests.support.tiny import TINY, tiny_batch, tiny_bert
from unipet.adaptation.adapted import adaptation
from unipet.calculus.insertion_parts import InsertionParts
from unipet.calculus.sites.bert import BERT


@pytest.mark.parametrize("role", sorted(set(BERT.roles()) - {"head.tokens"}))  # no output layer here
@pytest.mark.parametrize("arch", TINY)
def test_every_role_changes_the_output(role: str, arch: str) -> None:
    for form in ("parallel", "sequential"):
        if form == "parallel" and role in ("embed", "embed.tokens", "ffn.mid"):
            continue
        spec = method(position={"site": role, "form": form}, function={"name": "low_rank", "size": 2})
        assert not torch.allclose(output(adapted(spec, arch)), output(TINY[arch](head=False)), atol=1e-6)


def test_h_and_x_of_each_role_are_the_documented_activations(monkeypatch: pytest.MonkeyPatch) -> None:
    """Record what an insertion is handed at each role and compare with the layer recomputed by hand."""
    seen: dict[str, tuple[Tensor, Tensor | None]] = {}
    roles = [
        "attn.q",
        "attn.heads",
        "attn.o",
        "attn",
        "attn.post",
        "ffn.up",
        "ffn.mid",
        "ffn.down",
        "ffn",
        "ffn.post",
        "layer",
    ]
    spec = {
        "name": "probe",
        "insertions": {
            role.replace(".", "_"): {"function": "vector", "position": {"site": role, "layers": [0]}} for role in roles
        },
    }
    model = TINY["bert"](head=False)
    monkeypatch.setattr(InsertionParts, "reads_x", True)  # a vector does not, and heads are handed what is read
    unipet.adapt(model, spec)  # zero vectors: every insertion is the identity
    for insertion in adaptation(model).items:
        insertion.register_forward_pre_hook(
            lambda m, args: seen.update({m.site.role: (args[0].clone(), None if args[1] is None else args[1].clone())})
        )
    with torch.no_grad():
        batch = tiny_batch()
        model(**batch)
        plain = TINY["bert"](head=False)
        layer, s = plain.encoder.layer[0], plain.embeddings(batch["input_ids"])
        mask = torch.zeros_like(batch["attention_mask"], dtype=torch.float)
        mask = mask.masked_fill(batch["attention_mask"] == 0, -1e9)[:, None, None]
        q, k, v = (
            m(s).view(4, 9, 4, 8).transpose(1, 2)
            for m in (layer.attention.self.query, layer.attention.self.key, layer.attention.self.value)
        )
        heads = ((q @ k.transpose(-1, -2) * 8**-0.5 + mask).softmax(-1) @ v).transpose(1, 2).flatten(2)
        o = layer.attention.output.dense(heads)
        a = layer.attention.output.LayerNorm(o + s)
        up = layer.intermediate.dense(a)
        mid = nn.functional.gelu(up)
        down = layer.output.dense(mid)
        out = layer.output.LayerNorm(down + a)
    expected = {
        "attn.q": (layer.attention.self.query(s), s),
        "attn.heads": (heads, s),
        "attn.o": (o, heads),
        "attn": (o, s),
        "attn.post": (a, s),
        "ffn.up": (up, a),
        "ffn.mid": (mid, mid),
        "ffn.down": (down, mid),
        "ffn": (down, a),
        "ffn.post": (out, a),
        "layer": (out, s),
    }
    for role in roles:
        h, x = seen[role]
        assert torch.allclose(h, expected[role][0], atol=1e-5), f"h of {role}"
        assert x is not None and torch.allclose(x, expected[role][1], atol=1e-5), f"x of {role}"


@pytest.mark.parametrize(
    ("layers", "chosen"),
    [
        ("all", {0, 1, 2, 3}),
        ([0, 2], {0, 2}),
        ("1-2", {1, 2}),
        ("first:3", {0, 1, 2}),
        ("last:1", {3}),
        (2, {2}),
        ("spindle:1/2", {0, 1}),
    ],
)
def test_layer_selectors(layers: Any, chosen: set[int]) -> None:
    from transformers import BertConfig, BertModel

    model = BertModel(
        BertConfig(vocab_size=8, hidden_size=8, num_attention_heads=2, num_hidden_layers=4, intermediate_size=8)
    )
    unipet.adapt(model, method(position={"site": "attn.q", "layers": layers}))
    assert {i.site.layer for i in adaptation(model).items} == chosen


@pytest.mark.parametrize(
    ("tokens", "touched"), [("first:2", [[0, 1]] * 4), ("last:2", [[7, 8], [6, 7], [5, 6], [4, 5]])]
)
@pytest.mark.parametrize("site", ["layer", "attn.heads"])
def test_tokens_count_real_tokens_only(tokens: str, touched: list[list[int]], site: str) -> None:
    position = {"site": site, "tokens": tokens, "layers": [0]}
    function: Any = "vector" if site == "layer" else {"name": "prefix", "size": 3}
    spec = method(function=function, position=position, composition="add" if site == "layer" else "gated")
    model, batch, seen = adapted(spec), tiny_batch(), {}
    where = model.encoder.layer[0] if site == "layer" else model.encoder.layer[0].attention.self
    where.register_forward_hook(lambda m, a, out: seen.update(new=out if site == "layer" else out[0]))
    output(model, batch)
    plain = TINY["bert"](head=False)
    where = plain.encoder.layer[0] if site == "layer" else plain.encoder.layer[0].attention.self
    where.register_forward_hook(lambda m, a, out: seen.update(old=out if site == "layer" else out[0]))
    output(plain, batch)
    changed = (seen["new"] - seen["old"]).abs().amax(-1) > 1e-6
    for row, expected in enumerate(touched):
        real = batch["attention_mask"][row].bool()
        assert torch.nonzero(changed[row] & real).flatten().tolist() == expected


def test_stack_encoder_is_the_whole_of_an_encoder() -> None:
    model = TINY["bert"](head=False)
    unipet.adapt(model, method(position={"site": "attn.q", "stack": "encoder"}))
    assert len(adaptation(model).items) == 2


def test_an_optional_site_may_be_absent() -> None:
    spec = {
        "name": "test",
        "insertions": {
            "gate": {"function": "low_rank", "position": {"site": "ffn.gate", "optional": True}},
            "up": {"function": "low_rank", "position": {"site": "ffn.up"}},
        },
    }
    report = unipet.adapt(tiny_bert(), spec)
    assert [len(row.modules) for row in report.insertions] == [0, 2]
