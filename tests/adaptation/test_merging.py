"""What is reported as folded computes the same merged, with every tensor moved; what has an offset needs a bias for it."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import peft
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import unipet
from tests.support.architectures import ARCHS
from tests.support.functions import built
from unipet.adaptation.adapted import adaptation
from unipet.calculus.functions import FUNCTIONS
from unipet.calculus.functions.base import Affine, Function, Heads, LinearMap, Params, Slots, TensorSpec, Widths

#: Options under which a function has an offset, or none where it could.
VARIANTS: dict[str, list[dict[str, Any]]] = {
    "low_rank": [{}, {"bias": True}, {"bias": True, "diagonal": True}],
    "subspace": [{}, {"subtract": False}, {"orthonormal": False}],
    "vector": [{}, {"through": "weight"}, {"through": "bias"}],
    "circulant": [{"size": 8}],
}
SITES = (["attn.q", "attn.v"], ["attn.o"], ["ffn.down"], ["norm"])
WAYS = [
    {"form": form, "side": side, "composition": joined}
    for form in ("parallel", "sequential")
    for side in ("output", "input")
    for joined in ("add", "replace", "multiply", "normalise", "hadamard")
]


def randomise(model: nn.Module) -> None:
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in unipet.parameters(model).values():
            parameter.add_(torch.randn(parameter.shape, generator=generator, dtype=torch.float64) * 0.2)


def output(model: nn.Module, arch: str) -> Tensor:
    with torch.no_grad():
        found: Tensor = ARCHS[arch].real(ARCHS[arch].batch(), model(**ARCHS[arch].batch()).logits)
    return found


def insertion(function: dict[str, Any], site: list[str], way: dict[str, Any]) -> dict[str, Any]:
    return {
        "function": function,
        "position": {"site": site, "form": way["form"], "side": way["side"]},
        "composition": way["composition"],
        "scaling": 0.7,
    }


def accepted(base: nn.Module, spec: dict[str, Any]) -> unipet.AdaptReport | None:
    try:
        return unipet.describe(spec, base)
    except unipet.UnipetError:
        return None


@pytest.mark.parametrize("arch", ["bert", "llama"])
@pytest.mark.parametrize(
    "function", [name for name, cls in FUNCTIONS.items() if cls.nonlinear is None and cls.reads in ("u", "nothing")]
)
def test_what_is_said_to_fold_computes_the_same_merged(function: str, arch: str) -> None:
    """Every linear function at linear layers and norms, with biases (BERT) and without (Llama), joined in every way."""
    base = built(ARCHS[arch]).double()
    folded = refused = 0
    for options in VARIANTS.get(function, [{}]):
        for site in SITES:
            for way in WAYS:
                spec = {
                    "name": "x",
                    "insertions": {"one": insertion({"name": function, **options}, site, way)},
                    "unfreeze": [],
                }
                report = accepted(base, spec)
                if report is None:
                    continue
                model = copy.deepcopy(base)
                try:
                    unipet.adapt(model, spec)
                    randomise(model)
                    before = output(model, arch)
                except (RuntimeError, unipet.UnipetError):
                    continue  # a pair that does not run has no output to compare
                row = report.insertions[0]
                if not row.foldable:
                    refused += 1
                    with pytest.raises(unipet.UnipetError, match="cannot be merged") as caught:
                        unipet.merge(model)
                    assert str(row.why_not) in str(caught.value)
                    assert torch.equal(output(model, arch), before)
                    continue
                folded += 1
                assert unipet.merge(model) == {"one": "folded"}
                scale = max(1.0, float(before.abs().max()))
                assert float((output(model, arch) - before).abs().max()) < 1e-8 * scale, (options, site, way)
    assert folded + refused > 0


OFFSETS = {
    "bias": {"name": "low_rank", "size": 2, "bias": True},
    "subspace": {"name": "subspace", "size": 2},
    "vector": {"name": "vector"},
}


@pytest.mark.parametrize("site", [["attn.q"], ["attn.o"], ["ffn.down"]])
@pytest.mark.parametrize("function", OFFSETS)
def test_an_offset_folds_into_a_bias_alone(function: str, site: list[str]) -> None:
    form = "sequential" if function == "subspace" else "parallel"
    spec = {
        "name": "x",
        "insertions": {"one": {"function": OFFSETS[function], "position": {"site": site, "form": form}}},
    }
    with_bias = unipet.describe(spec, ARCHS["bert"].build()).insertions[0]
    without = unipet.describe(spec, ARCHS["llama"].build()).insertions[0]
    assert with_bias.foldable and with_bias.why_not is None
    assert not without.foldable and without.why_not == "Linear has no bias to fold into"
    model = built(ARCHS["llama"])
    unipet.adapt(model, spec)
    randomise(model)
    before = output(model, "llama")
    assert unipet.merge(model, partial=True) == {"one": "Linear has no bias to fold into"}
    assert torch.allclose(output(model, "llama"), before, atol=1e-6)


@pytest.mark.filterwarnings("ignore:.*lora_bias=True:UserWarning", "ignore:.*invalid shape:UserWarning")
@pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing:FutureWarning")
@pytest.mark.parametrize("arch", ["bert", "llama"])
def test_an_imported_bias_folds_where_there_is_one(arch: str, tmp_path: Path) -> None:
    targets = {"bert": ["query", "output.dense"], "llama": ["q_proj", "down_proj"]}[arch]
    theirs: Any = peft.get_peft_model(
        built(ARCHS[arch]), peft.LoraConfig(r=2, target_modules=targets, lora_bias=True)
    ).eval()
    with torch.no_grad():
        for parameter in theirs.parameters():
            if parameter.requires_grad:
                parameter.add_(torch.randn(parameter.shape, generator=torch.Generator().manual_seed(3)) * 0.3)
    expected = output(theirs, arch)
    theirs.save_pretrained(tmp_path)
    model = built(ARCHS[arch])
    report = unipet.import_peft(model, tmp_path)
    assert torch.allclose(output(model, arch), expected, atol=1e-4)
    assert report.insertions[0].foldable == (arch == "bert")
    if arch == "llama":
        with pytest.raises(unipet.UnipetError, match="has no bias to fold into"):
            unipet.merge(model)
    else:
        unipet.merge(model)
    assert torch.allclose(output(model, arch), expected, atol=1e-4)


@dataclass(frozen=True)
class Shifted(LinearMap):
    """A stranger's function: a matrix and an offset that only its affine map tells of."""

    def slots(self, widths: Widths) -> Slots:
        return {"own": {"": TensorSpec((widths.h, widths.u), "out"), "offset": TensorSpec((widths.h,), "table")}}

    def matrix(self, params: Params) -> Tensor:
        return params["own"]

    def delta(self, u: Tensor | Heads | None, params: Params, training: bool) -> Tensor:
        assert isinstance(u, Tensor)
        return F.linear(u, params["own"], params["own.offset"])

    def affine(self, params: Params) -> Affine:
        return Affine(params["own"], params["own.offset"])

    @property
    def starts_at_zero(self) -> bool:
        return False


@dataclass(frozen=True)
class Denied(Shifted):
    """One that says it has no offset."""

    has_offset = False  # type: ignore[assignment]


@pytest.mark.parametrize("cls", [Shifted, Denied])
@pytest.mark.parametrize("composition", ["add", "replace", "normalise"])
def test_a_strangers_offset_is_never_dropped(
    cls: type[Function], composition: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(FUNCTIONS, "shifted", cls)
    spec = {
        "name": "x",
        "insertions": {"one": {"function": "shifted", "position": "ffn.down", "composition": composition}},
    }
    for arch in ("bert", "llama"):
        model = built(ARCHS[arch]).double()
        unipet.adapt(model, spec)
        randomise(model)
        before = output(model, arch)
        if arch == "bert":
            unipet.merge(model)
        else:
            with pytest.raises(unipet.UnipetError, match="has no bias"):
                unipet.merge(model)
            assert adaptation(model).items
        assert torch.allclose(output(model, arch), before, atol=1e-8)
