"""What a saved adapter weighs: its own parameters and little else, in deep models, too."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from transformers import BertConfig, BertForSequenceClassification

import unipet
from tests.support.saved_method import change_method
from tests.support.tiny import SIZES
from unipet.adaptation.packing import FEW, pack, pattern, unpack
from unipet.calculus.method_files import method_names

ALLOWED = 8 * 1024


def deep(seed: int = 0) -> Any:
    """As many layers as BERT-large; how wide they are does not matter here."""
    torch.manual_seed(seed)
    return BertForSequenceClassification(BertConfig(**{**SIZES, "num_hidden_layers": 24})).eval()


@pytest.mark.parametrize("method", method_names())
def test_an_adapter_is_its_parameters_and_at_most_eight_kib(method: str, tmp_path: Path) -> None:
    model = deep()
    unipet.adapt(model, method)
    out = unipet.save(model, tmp_path / "adapter")
    own = sum(p.numel() * p.element_size() for p in unipet.parameters(model, head=True).values())
    size = sum(file.stat().st_size for file in out.iterdir())
    assert size <= own + ALLOWED, f"{size - own} bytes besides the parameters"


@pytest.mark.parametrize("function", ["random_low_rank", "random_bases", "hashed_low_rank", "singular_core"])
def test_what_is_frozen_is_not_stored_but_checked(function: str, tmp_path: Path) -> None:
    spec = {"name": "x", "insertions": {"a": {"function": {"name": function, "size": 8}, "position": "attn.q"}}}
    model = deep()
    unipet.adapt(model, spec)
    out = unipet.save(model, tmp_path / "adapter")
    stored = load_file(out / "adapter.safetensors")
    own = unipet.parameters(model, head=True)
    assert sum(t.numel() for t in stored.values()) == sum(p.numel() for p in own.values())
    description = (out / "adapter.json").read_text()
    changed = description.replace('"seed":0', '"seed":1')
    if changed != description:
        (out / "adapter.json").write_text(changed)
        with pytest.raises(unipet.UnipetError, match="frozen tensors of a came out differently"):
            unipet.load(deep(), out)


def test_factors_of_the_weight_are_made_again_or_refused(tmp_path: Path) -> None:
    """In half precision close singular values change places: another start, so another model."""
    spec = {
        "name": "x",
        "insertions": {
            "a": {"function": {"name": "low_rank", "init": "svd", "from_start": True}, "position": "attn.q"}
        },
    }
    model = deep()
    unipet.adapt(model, spec)
    unipet.save(model, tmp_path / "adapter")
    unipet.load(deep(), tmp_path / "adapter")
    with pytest.raises(unipet.UnipetError, match="the base model in the precision that it had"):
        unipet.load(deep().to(torch.bfloat16), tmp_path / "adapter", cast=True)


def test_stacks_come_apart_again() -> None:
    tensors = {f"a/layer.{i}.q/down.{e}": torch.randn(2, 3) for i in range(FEW) for e in (0, 1)}
    tensors |= {"a/shared/bank": torch.randn(4), "head/dense/weight": torch.randn(2, 2)}
    packed = pack(tensors)
    assert set(packed) == {"a/layer.*.q/down.*", "a/shared/bank", "head/dense/weight"}
    again = unpack(packed, tensors)
    assert again.keys() == tensors.keys() and all(torch.equal(again[name], tensors[name]) for name in tensors)
    few = dict(list(tensors.items())[:FEW])
    assert pack(few).keys() == few.keys()
    uneven = {**tensors, "a/layer.0.q/down.0": torch.randn(5, 3)}
    assert pack(uneven).keys() == uneven.keys()
    assert pattern("a/encoder.layer.11.mlp/down.3.weight") == "a/encoder.layer.*.mlp/down.*.weight"


def test_another_number_of_layers_is_named(tmp_path: Path) -> None:
    model = deep()
    unipet.adapt(model, "lora")
    out = unipet.save(model, tmp_path / "adapter")
    change_method(out, r"layers: all\b", "layers: 0-22")
    with pytest.raises(unipet.UnipetError, match=r"extra .*query/(down|up) \(23\)"):
        unipet.load(deep(), out)
