"""The draft that the error for an unknown architecture holds: it parses, it fits, and its guesses are right."""

from __future__ import annotations

import functools
import re
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
import yaml
from torch import Tensor, nn
from transformers import BertConfig, BertForSequenceClassification, LlamaConfig, LlamaForCausalLM

import unipet
from tests.support.architectures import ARCHS, HIDDEN, VOCABULARY
from unipet.calculus.sites import ARCHITECTURES, architecture_of, base_of, check_table, parse_table
from unipet.calculus.sites.draft import draft
from unipet.calculus.sites.resolve import has_module

SIZES: dict[str, Any] = {
    "vocab_size": VOCABULARY,
    "hidden_size": HIDDEN,
    "num_attention_heads": 4,
    "num_hidden_layers": 2,
}
SPECIAL = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}
#: Architectures of transformers without a table here: configuration, and the roles that a draft must find.
SEPARATE = ("attn.q", "attn.k", "attn.v", "attn.o", "attn", "ffn.up", "ffn.mid", "ffn.down", "ffn", "layer", "norm")
FUSED = ("attn.qkv", *SEPARATE[3:])
UNKNOWN: dict[str, tuple[str, dict[str, Any], tuple[str, ...]]] = {
    "phi": ("Phi", {**SIZES, **SPECIAL, "intermediate_size": 48}, (*SEPARATE, "attn.heads")),
    "stablelm": (
        "StableLm",
        {**SIZES, **SPECIAL, "intermediate_size": 48, "num_key_value_heads": 2},
        (*SEPARATE, "attn.heads", "ffn.gate"),
    ),
    "gptj": ("GPTJ", {**SPECIAL, "vocab_size": 64, "n_embd": 32, "n_head": 4, "n_layer": 2, "rotary_dim": 4}, SEPARATE),
    "albert": (
        "Albert",
        {**SIZES, **SPECIAL, "embedding_size": 16, "intermediate_size": 48},
        (*SEPARATE, "attn.heads"),
    ),
    "falcon": ("Falcon", {**SIZES, **SPECIAL}, FUSED),
    "bloom": ("Bloom", {**SPECIAL, "vocab_size": 64, "hidden_size": 32, "n_head": 4, "n_layer": 2}, FUSED),
}


class RenamedBertConfig(BertConfig):
    model_type = "renamed_bert"


class RenamedLlamaConfig(LlamaConfig):
    model_type = "renamed_llama"


RENAMED = {
    "bert": (BertConfig, RenamedBertConfig, BertForSequenceClassification, {**SIZES, "intermediate_size": 48}),
    "llama": (
        LlamaConfig,
        RenamedLlamaConfig,
        LlamaForCausalLM,
        {**SIZES, **SPECIAL, "intermediate_size": 48, "num_key_value_heads": 2},
    ),
}


@functools.cache
def unknown(name: str) -> nn.Module:
    prefix, options, _ = UNKNOWN[name]
    config = getattr(transformers, f"{prefix}Config")(**options)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model: nn.Module = getattr(transformers, f"{prefix}ForSequenceClassification")(config)
    return model.eval()


def offered(model: nn.Module) -> str:
    """The YAML in the error for a model without a table."""
    with pytest.raises(unipet.UnipetError) as caught:
        unipet.adapt(model, "lora")
    first, second, text = str(caught.value).split("\n\n", 2)
    assert "No site table for the architecture" in first and "model.sites=FILE" in first and "sites=FILE" in first
    assert f"model.sites={model.config.model_type}.yaml" in second  # type: ignore[union-attr]
    return text


def low_rank(position: Any) -> dict[str, Any]:
    return {
        "name": "probe",
        "insertions": {"probe": {"function": {"name": "low_rank", "size": 2}, "position": position}},
    }


def logits(model: nn.Module) -> Tensor:
    batch = {"input_ids": torch.arange(3, 15).view(2, 6), "attention_mask": torch.ones(2, 6, dtype=torch.long)}
    with torch.no_grad():
        found: Tensor = model(**batch).logits
    return found


def train_a_little(model: nn.Module) -> None:
    generator = torch.Generator().manual_seed(1)
    for parameter in unipet.parameters(model).values():
        parameter.data.add_(torch.randn(parameter.shape, generator=generator), alpha=0.3)


@pytest.mark.parametrize("name", list(UNKNOWN))
def test_an_unknown_architecture_adapts_with_its_draft(name: str, tmp_path: Path) -> None:
    model = unknown(name)
    text = offered(model)
    assert len(text.splitlines()) <= 40 and max(map(len, text.splitlines())) <= 120
    file = tmp_path / f"{name}.yaml"
    file.write_text(text)
    (stack,) = parse_table(yaml.safe_load(text)).stacks.values()
    assert set(stack.roles) == set(UNKNOWN[name][2])
    before = logits(model)
    for role in [role for role in stack.roles if role != "attn.k"]:
        unipet.adapt(model, low_rank({"site": role, "form": "sequential"}), sites=file)
        train_a_little(model)
        assert not torch.equal(logits(model), before), role
        unipet.eject(model)
    assert torch.equal(logits(model), before)


@pytest.mark.parametrize("name", list(UNKNOWN))
def test_what_is_not_there_says_why(name: str) -> None:
    table = parse_table(yaml.safe_load(offered(unknown(name))))
    if "attn.heads" not in UNKNOWN[name][2]:
        with pytest.raises(unipet.UnipetError, match=r"attn\.heads.*AttentionInterface"):
            unipet.adapt(unknown(name), "prefix", sites=table)


def test_parts_of_a_fused_projection_are_the_users_to_uncomment(tmp_path: Path) -> None:
    """Bloom keeps each head's query, key and value together, which no shape shows."""
    text = offered(unknown("bloom"))
    assert "# attn.q: {h: self_attention.query_key_value, part: [0, 3]}" in text
    uncommented = re.sub(r"# (attn\.[qkv]: .*)}", r"\1, per_head: true}", text)
    table = parse_table(yaml.safe_load(uncommented))
    report = unipet.describe(low_rank(["attn.q", "attn.v"]), unknown("bloom"), sites=table)
    assert report.insertions[0].shapes == {"down": [2, HIDDEN], "up": [HIDDEN, 2]} and report.insertions[0].foldable


@pytest.mark.parametrize("name", list(RENAMED))
def test_a_renamed_architecture_behaves_as_the_known_one(name: str, tmp_path: Path) -> None:
    known, renamed, cls, options = RENAMED[name]
    models = []
    for config in (known, renamed):
        torch.manual_seed(0)
        models.append(cls(config(**options)).eval())
    file = tmp_path / "renamed.yaml"
    file.write_text(offered(models[1]))
    method = low_rank(["attn.q", "attn.v"])
    reports = []
    for model, sites in zip(models, (None, str(file)), strict=True):
        torch.manual_seed(1)
        reports.append(unipet.adapt(model, method, sites=sites).to_dict())
        train_a_little(model)
    assert reports[0] == reports[1]
    assert torch.equal(logits(models[0]), logits(models[1]))


@pytest.mark.parametrize("arch", list(ARCHS))
def test_guesses_agree_with_the_shipped_tables(arch: str) -> None:
    """Where a draft of a known architecture names a role, it names the module that the table does."""
    model = ARCHS[arch].build()
    text = draft(model)
    assert text is not None
    guessed, table = parse_table(yaml.safe_load(text)), architecture_of(model, ARCHITECTURES)
    check_table(guessed, model)
    assert guessed.stacks.keys() == table.stacks.keys()
    for stack_name, stack in table.stacks.items():
        own = guessed.stacks[stack_name]
        assert (own.layers, own.causal) == (stack.layers, stack.causal)
        assert own.geometry(model.config) == stack.geometry(model.config)
        assert own.roles.keys() <= stack.roles.keys() and len(own.roles) >= 6
        layer = list(base_of(model).get_submodule(stack.layers).children())[-1]
        for role, points in own.roles.items():
            known = [point for point in stack.roles[role] if has_module(layer, point.h)]
            assert sorted((point.h, point.at) for point in points) == sorted((point.h, point.at) for point in known), (
                role
            )


def test_a_model_without_layers_lists_its_modules() -> None:
    model = nn.Sequential(nn.Linear(2, 2))
    with pytest.raises(unipet.UnipetError, match=r"'Sequential'.*no list of equal layers.*modules are: \*\."):
        architecture_of(model, ARCHITECTURES)
