"""The installed peft beside ours: the same base model, the same random parameters, outputs, gradients, merged weights, in
float64: float32 would only show that neither is far off.

One row for each of peft's types that acts at linear layers and that a shipped method expresses.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import peft
import pytest
import torch
import yaml
from torch import Tensor, nn

import unipet
from tests.support.architectures import ARCHS
from unipet.adaptation.adapted import adaptation
from unipet.calculus.insertion import Insertion
from unipet.config import conf_dir

# peft 0.21 asks transformers by a name that 5.23 deprecates, builds sparse tensors unchecked, and
# would like a CUDA extension.
pytestmark = [
    pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing:FutureWarning"),
    pytest.mark.filterwarnings("ignore:Failed to load the CUDA extension:UserWarning"),
    pytest.mark.filterwarnings("ignore:Setting boft_n_butterfly_factor:UserWarning"),
    pytest.mark.filterwarnings("ignore:Sparse invariant checks:UserWarning"),
]

QV = ["query", "value"]
FFN = r".*(self\.(query|value)|intermediate\.dense|layer\.\d+\.output\.dense)"
ALL = r".*(self\.(query|key|value)|intermediate\.dense|layer\.\d+\.output\.dense)"


@dataclass(frozen=True)
class There:
    """Where one slot of ours is in peft's layer: the parameter, what makes ours into theirs, and what they add to it."""

    name: str
    form: Callable[[Tensor], Tensor] = lambda tensor: tensor
    shift: float = 0.0


def at(name: str, form: Callable[[Tensor], Tensor] = lambda tensor: tensor, shift: float = 0.0) -> There:
    return There(f"{name}.default" if ".default" not in name else name, form, shift)


def no_frozen(layer: Any, item: Insertion) -> None:
    """Nothing frozen to carry over."""


@dataclass(frozen=True)
class Row:
    """A shipped method with options set, peft's configuration, the slots, and how frozen tensors get there."""

    method: str
    options: Mapping[str, Any]
    config: Callable[[], Any]
    slots: Mapping[str, There]
    frozen: Callable[[Any, Insertion], None] = no_frozen
    gradients: bool = True
    merges: bool = True
    tolerance: float = 1e-10


#: For what peft computes in float32 whatever it is given.
IN_FLOAT32 = 1e-6


def transposed(tensor: Tensor) -> Tensor:
    return tensor.T


def column(tensor: Tensor) -> Tensor:
    return tensor.reshape(-1, 1)


def row(tensor: Tensor) -> Tensor:
    return tensor.reshape(1, -1)


def grid_down(tensor: Tensor) -> Tensor:
    """Ours: (output part, input part, S, in/K); theirs: (input part, in/K, output part · S)."""
    return tensor.view(2, 2, 4, -1).permute(1, 3, 0, 2).flatten(2)


def grid_up(tensor: Tensor) -> Tensor:
    """Ours: rows by output part; theirs: (output part, r, out/K)."""
    return tensor.view(2, -1, 8).transpose(1, 2)


def grid_places(name: str) -> Callable[[Any, Insertion], None]:
    def put(layer: Any, item: Insertion) -> None:
        places = item.bank.frozen()["places"]
        found = getattr(layer, name)
        found["default"] = torch.stack([places // item.widths.u, places % item.widths.u]).to(found["default"].dtype)

    return put


def flat_places(layer: Any, item: Insertion) -> None:
    layer.supertuning_indices["default"].copy_(item.bank.frozen()["places"])


def shared_pair(layer: Any, item: Insertion) -> None:
    assert item.shared is not None
    pair = item.shared.frozen()
    layer.vera_A["default"].copy_(pair["down"])
    layer.vera_B["default"].copy_(pair["up"])


def shared_bases(layer: Any, item: Insertion) -> None:
    assert item.shared is not None
    pair = item.shared.frozen()
    A, B = layer.randlora_A["default"], layer.randlora_B["default"]
    A[:, 0, : pair["A"].shape[1]].copy_(pair["A"])
    B[:, : pair["B"].shape[1]].copy_(pair["B"])


def hashed(layer: Any, item: Insertion) -> None:
    assert item.shared is not None
    pair = item.shared.frozen()
    index, split = pair[f"index.{item.widths.number}"], 4 * item.widths.u
    for letter, part, shape in (("A", index[:split], (4, -1)), ("B", index[split:], (-1, 4))):
        indices, scales = (getattr(layer, f"unilora_{what}_{letter}")["default"] for what in ("indices", "scales"))
        indices.copy_(part.view(shape))
        scales.copy_(pair["factor"][part].view(shape))


def tiny_factors(layer: Any, item: Insertion) -> None:
    own = item.bank.frozen()
    layer.tinylora_A["default"].copy_(own["down"])
    layer.tinylora_B["default"].copy_(own["up"])
    layer.tinylora_P["default"].copy_(own["projections"])


def rotated_factors(layer: Any, item: Insertion) -> None:
    own = item.bank.frozen()
    layer._psoft_A_cache["default"].copy_(own["down"])
    layer._psoft_B_cache["default"].copy_(own["up"])


PAIR = {"down": at("lora_A.default.weight"), "up": at("lora_B.default.weight")}
ROWS: dict[str, Row] = {
    "LORA": Row(
        "lora", {"attention.function.size": 4}, lambda: peft.LoraConfig(r=4, lora_alpha=32, target_modules=QV), PAIR
    ),
    "LORA-root": Row(
        "rslora",
        {"attention.function.size": 4, "attention.scaling.alpha": 12},
        lambda: peft.LoraConfig(r=4, lora_alpha=12, use_rslora=True, target_modules=QV),
        PAIR,
    ),
    "LORA-normalised": Row(
        "dora",
        {"attention.function.size": 4},
        lambda: peft.LoraConfig(r=4, lora_alpha=32, use_dora=True, target_modules=QV),
        {**PAIR, "magnitude": at("lora_magnitude_vector.default.weight")},
    ),
    "ADALORA": Row(
        "adalora_fixed",
        {"weights.function.size": 4},
        lambda: peft.AdaLoraConfig(target_r=4, init_r=4, total_step=10, lora_alpha=32, target_modules=ALL),
        {"down": at("lora_A"), "up": at("lora_B"), "diagonal": at("lora_E", column)},
    ),
    "IA3": Row(
        "ia3",
        {},
        lambda: peft.IA3Config(
            target_modules=r".*(self\.(key|value)|layer\.\d+\.output\.dense)",
            feedforward_modules=r".*layer\.\d+\.output\.dense",
        ),
        {"attention:value": at("ia3_l", column, 1.0), "ffn:value": at("ia3_l", row, 1.0)},
    ),
    "VERA": Row(
        "vera",
        {"attention.function.size": 5},
        lambda: peft.VeraConfig(r=5, target_modules=QV),
        {"inner": at("vera_lambda_d"), "outer": at("vera_lambda_b")},
        shared_pair,
    ),
    "RANDLORA": Row(
        "randlora",
        {"weights.function.size": 8, "weights.function.released_order": True},
        lambda: peft.RandLoraConfig(r=8, randlora_alpha=32, target_modules=ALL),
        {"inner": at("randlora_lambda"), "outer": at("randlora_gamma")},
        shared_bases,
    ),
    "VBLORA": Row(
        "vblora",
        {"attention.function.vectors": 7, "attention.function.vector": 8},
        lambda: peft.VBLoRAConfig(r=4, num_vectors=7, vector_length=8, topk=2, target_modules=QV),
        {
            "down.logits": at("vblora_logits_A"),
            "up.logits": at("vblora_logits_B"),
            "bank": at("vblora_vector_bank"),
        },
    ),
    "UNILORA": Row(
        "unilora",
        {"attention.function.length": 50},
        lambda: peft.UniLoraConfig(r=4, theta_d_length=50, target_modules=QV),
        {"theta": at("unilora_theta_d")},
        hashed,
    ),
    "TINYLORA": Row(
        "tinylora",
        {"weights.function.count": 5},
        lambda: peft.TinyLoraConfig(r=2, u=5, weight_tying=1.0, target_modules=ALL),
        {"core": at("tinylora_v.default.0")},
        tiny_factors,
    ),
    "LOHA": Row(
        "loha",
        {"attention.function.size": 4},
        lambda: peft.LoHaConfig(r=4, alpha=8, target_modules=QV),
        {"up1": at("hada_w1_a"), "down1": at("hada_w1_b"), "up2": at("hada_w2_a"), "down2": at("hada_w2_b")},
    ),
    "LOKR": Row(
        "lokr",
        {"attention.function.size": 2},
        lambda: peft.LoKrConfig(r=2, alpha=8, target_modules=QV),
        {"outer": at("lokr_w1"), "inner_up": at("lokr_w2_a"), "inner_down": at("lokr_w2_b")},
    ),
    "HIRA": Row(
        "hira",
        {"weights.function.size": 4},
        lambda: peft.HiraConfig(r=4, target_modules=FFN),
        {"down": at("hira_A"), "up": at("hira_B")},
    ),
    "FOURIERFT": Row(
        "fourierft",
        {"attention.function.size": 40},
        lambda: peft.FourierFTConfig(n_frequency=40, scaling=150.0, target_modules=QV),
        {"values": at("fourierft_spectrum")},
        grid_places("indices"),
        tolerance=IN_FLOAT32,
    ),
    "WAVEFT": Row(
        "waveft",
        {"attention.function.size": 40},
        lambda: peft.WaveFTConfig(n_frequency=40, scaling=25.0, target_modules=QV),
        {"values": at("waveft_spectrum")},
        grid_places("waveft_indices"),
    ),
    # peft's gradient of the kernel is another one's (its backward returns it reversed); ours is the true one.
    "C3A": Row(
        "c3a",
        {"attention.function.size": 8},
        lambda: peft.C3AConfig(block_size=8, target_modules=QV),
        {"kernel": at("c3a_kernel")},
        gradients=False,
        tolerance=IN_FLOAT32,
    ),
    "MISS": Row(
        "miss",
        {"attention.function.size": 4},
        lambda: peft.MissConfig(r=4, target_modules=QV),
        {"up": at("miss_block", transposed)},
    ),
    "OFT": Row(
        "oft",
        {"rotation.function.size": 8},
        lambda: peft.OFTConfig(r=0, oft_block_size=8, target_modules=QV),
        {"upper": at("oft_R.default.weight")},
    ),
    "BOFT": Row(
        "boft",
        {"rotation.function.size": 8, "rotation.function.factors": 1},
        lambda: peft.BOFTConfig(boft_block_size=8, target_modules=QV),
        {"blocks": at("boft_R"), "value": at("boft_s", column, 1.0)},
    ),
    "HRA": Row(
        "hra",
        {"reflection.function.size": 4},
        lambda: peft.HRAConfig(r=4, target_modules=QV),
        {"vectors": at("hra_u", transposed)},
    ),
    "ROAD": Row(
        "road",
        {"rotation.function.group_size": 8},
        lambda: peft.RoadConfig(variant="road_1", group_size=8, target_modules=QV),
        {"angles": at("road_theta"), "gains": at("road_alpha")},
    ),
    "ROAD-pairs": Row(
        "road",
        {"rotation.function.group_size": 8, "rotation.function.per_pair": 2},
        lambda: peft.RoadConfig(variant="road_2", group_size=8, target_modules=QV),
        {"angles": at("road_theta"), "gains": at("road_alpha")},
    ),
    "GRALORA": Row(
        "gralora",
        {"attention.function.size": 8},
        lambda: peft.GraloraConfig(r=8, alpha=64, gralora_k=2, hybrid_r=0, target_modules=QV),
        {"down": at("gralora_A", grid_down), "up": at("gralora_B", grid_up)},
    ),
    "SHIRA": Row(
        "shira",
        {"attention.function.size": 2},
        lambda: peft.ShiraConfig(r=2, target_modules=QV),
        {"values": at("shira_weight")},
        grid_places("shira_indices"),
    ),
    "SUPERTUNING": Row(
        "supertuning",
        {},
        lambda: peft.SupertuningConfig(target_modules=QV),
        {"values": at("supertuning_values")},
        flat_places,
    ),
    "GLORA": Row(
        "glora",
        {"A.function.size": 4, "B.function.size": 4},
        lambda: peft.GloraConfig(r=4, config_A_B="lora", config_C="vector", config_D_E="vector", target_modules=QV),
        {
            **{
                f"{one}:{slot}": at(f"glora_{one}.default.{x}")
                for one in "AB"
                for slot, x in (("up", "Xd"), ("down", "Xu"))
            },
            "C:value": at("glora_C.default.X", column),
            "D:value": at("glora_D.default.X"),
            "E:value": at("glora_E.default.X"),
        },
    ),
    "DELORA": Row(
        "delora",
        {"attention.function.size": 4},
        lambda: peft.DeloraConfig(r=4, target_modules=QV),
        {"down": at("delora_A"), "up": at("delora_B"), "strength": at("delora_lambda")},
        tolerance=IN_FLOAT32,
    ),
    "PSOFT": Row(
        "psoft",
        {"subspace.function.size": 4},
        lambda: peft.PsoftConfig(r=4, psoft_alpha=4, target_modules=QV),
        {
            "upper": at("psoft_R.default.weight"),
            "gain_in": at("psoft_R.default.vector_a"),
            "gain_out": at("psoft_R.default.vector_b"),
        },
        rotated_factors,
    ),
    "PEANUT": Row(
        "peanut",
        {"attention.function.size": 4},
        lambda: peft.PeanutConfig(r=4, target_modules=QV),
        {"down": at("peanut_A.default.weight"), "up": at("peanut_B.default.weight")},
    ),
    "DEFT": Row(
        "deft",
        {"projection.function.size": 4},
        lambda: peft.DeftConfig(r=4, decomposition_method="relu", target_modules=QV),
        {"basis": at("deft_P"), "fill": at("deft_R")},
        tolerance=IN_FLOAT32,
    ),
    "BEFT": Row("beft", {}, lambda: peft.BeftConfig(target_modules=["value"]), {"value": at("beft_bias", row)}),
}


def base_model() -> nn.Module:
    """With weights ten times as large as a fresh model's, or what changes a weight in proportion would hardly show."""
    model: nn.Module = ARCHS["bert"].build()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.ndim == 2 and "embeddings" not in name:
                parameter.mul_(10)
    return model


def ours(row_: Row) -> nn.Module:
    """The shipped method with small sizes, its parameters random."""
    spec = yaml.safe_load((conf_dir() / "method" / f"{row_.method}.yaml").read_text(encoding="utf-8"))
    spec["unfreeze"] = []
    for key, value in row_.options.items():
        target = spec["insertions"]
        *parents, last = key.split(".")
        for parent in parents:
            target = target[parent]
        target[last] = value
    for insertion in spec["insertions"].values():
        insertion["function"].pop("dropout", None)
    model = base_model()
    unipet.adapt(model, spec)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in unipet.parameters(model).values():
            parameter.add_(torch.randn(parameter.shape, generator=generator) * 0.3)
    return model


def pairs(row_: Row, model: nn.Module, theirs: Any) -> list[tuple[str, nn.Parameter, There, nn.Parameter]]:
    """Our parameters beside peft's."""
    places = {f"{item.name}/{item.site.name}": item for item in adaptation(model).items}
    found = []
    for name, parameter in unipet.parameters(model).items():
        insertion, path, slot = name.split("/")
        there = row_.slots.get(f"{insertion}:{slot}") or row_.slots[slot]
        if path == "shared":
            path = next(item.site.path for item in places.values() if item.name == insertion)
        layer = theirs.base_model.model.get_submodule(path)
        found.append((name, parameter, there, dict(layer.named_parameters())[there.name]))
    return found


@pytest.mark.parametrize("name", ROWS)
def test_peft_and_ours_agree(name: str) -> None:
    row_ = ROWS[name]
    torch.manual_seed(0)
    model, theirs = ours(row_).double(), peft.get_peft_model(base_model(), row_.config()).eval().double()
    both = pairs(row_, model, theirs)
    trained = {id(p) for p in theirs.parameters() if p.requires_grad}
    assert trained <= {id(p) for *_, p in both}, "peft trains something that ours has not"
    with torch.no_grad():
        for item in adaptation(model).items:
            row_.frozen(theirs.base_model.model.get_submodule(item.site.path), item)
        for _, parameter, there, other in both:
            other.copy_(there.form(parameter) + there.shift)
    batch = ARCHS["bert"].batch()
    out, expected = model(**batch).logits, theirs(**batch).logits
    base = base_model().double()(**batch).logits
    scale = max(1.0, float(expected.detach().abs().max()))
    assert (out - base).abs().max() > 1e-3, "it does nothing"
    assert torch.allclose(out, expected, rtol=0.0, atol=row_.tolerance * scale)
    if row_.gradients:
        probe = torch.randn(out.shape, generator=torch.Generator().manual_seed(2), dtype=out.dtype)
        (out * probe).sum().backward()
        (expected * probe).sum().backward()
        for slot, parameter, there, other in both:
            assert parameter.grad is not None and other.grad is not None, slot
            size = max(1.0, float(other.grad.abs().max()))
            assert torch.allclose(there.form(parameter.grad), other.grad, rtol=0.0, atol=row_.tolerance * size), slot
    if row_.merges:
        merged = copy.deepcopy(theirs).merge_and_unload()
        unipet.merge(model)
        own = dict(model.named_parameters())
        for path, weight in merged.named_parameters():
            size = max(1.0, float(weight.detach().abs().max()))
            assert torch.allclose(own[path], weight, rtol=0.0, atol=row_.tolerance * size), path
