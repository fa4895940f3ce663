"""`low_rank`: f(u) = up · down · u, a linear map through `size` dimensions (LoRA: Hu et al. 2022, eq. 3).

Its options cover the relatives that keep this form: a diagonal between the two (AdaLoRA), a half that does not train
(LoRA-FA), factors of the base weight to start from (PiSSA, MiLoRA, OLoRA).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from torch import Generator, Tensor
from torch.nn import functional as F

from unipet.calculus.functions.base import UNBOUNDED, Affine, LinearMap, Params, Slots, TensorSpec, Widths
from unipet.calculus.functions.beginnings import BeginsLinearly, Linear
from unipet.calculus.functions.factors import qr, seeded_kaiming, svd
from unipet.calculus.functions.initialisers import starts_output_at_zero
from unipet.calculus.functions.product import Delta, Product, value
from unipet.calculus.options import option
from unipet.errors import UnipetError

#: Values of `init` that read the base model's weight.
_OF_WEIGHT = ("svd", "svd_minor", "qr")
_START = "start_"


@dataclass(frozen=True)
class LowRank(LinearMap, BeginsLinearly):
    """A linear map of rank `size`; slots `down` (r, d_in), `up` (d_out, r) and, if `diagonal`, `diagonal` (r,).

    `size` is the rank r of LoRA (its A is our `down`, its B our `up`). `dropout` acts on the input, as in loralib.
    The factor α/r belongs to `scaling`, not here.

    `init: svd` starts from the r largest singular triplets of the base weight, up = U√S and down = √S Vᵀ (PiSSA: Meng et
    al. 2024, eq. 2-3); `svd_minor` from the smallest (MiLoRA: Wang et al. 2024); `qr` from W = QR (OLoRA: Büyükakyüz
    2024). Their papers subtract that start from the base weight; here `from_start: true` measures the map from it, up
    down - up₀ down₀, which is the same sum and leaves the base weight alone: Δ is exactly zero at the start.
    `diagonal` starts at zero (AdaLoRA: Zhang et al. 2023, eq. 3). `freeze: [down]` keeps a half as it started: made from
    `seed`, or from the base weight. At an embedding it reads ids as one-hot vectors, as loralib does. `bias` adds
    `up.bias` (d_out,), inside the scaling (peft's lora_bias).
    """

    size: int = option(8, low=1)
    dropout: float = option(0.0, low=0.0, high=0.999)
    init: str = option("lora", choices=("lora", "bert", "houlsby", "torch", *_OF_WEIGHT))
    diagonal: bool = option(False)
    freeze: list[str] = option([], choices=("down", "up"))
    from_start: bool = option(False)
    seed: int = option(0, low=0)
    bias: bool = option(False)

    def slots(self, widths: Widths) -> Slots:
        self._check()
        first = "kaiming" if self.starts_from_weight else None  # until `start` sets them
        slots: Slots = {
            "down": {"": TensorSpec((self.size, widths.u), "in", first)},
            "up": {"": TensorSpec((widths.h, self.size), "out", first)},
        }
        if self.bias:
            slots["up"]["bias"] = TensorSpec((widths.h,), "bias", "zeros" if self.starts_from_weight else None)
        if self.diagonal:
            slots["diagonal"] = {"": TensorSpec((self.size,), "table", "zeros")}
        return {name: slot for name, slot in slots.items() if name not in self.freeze}

    def _check(self) -> None:
        of_weight = self.init in _OF_WEIGHT
        if self.from_start and (not of_weight or self.diagonal):
            raise UnipetError(
                f"function.from_start: it needs a start that the base weight gives, and no diagonal; here init is "
                f"{self.init}, diagonal {str(self.diagonal).lower()}. Use init {', '.join(_OF_WEIGHT)} and diagonal: false."
            )
        if self.bias and "up" in self.freeze:
            raise UnipetError("function.bias: it belongs to up, which is frozen. Use bias: false.")
        if set(self.freeze) == {"down", "up"} and not self.diagonal:
            raise UnipetError("function.freeze: freezing down and up leaves nothing to train. Freeze one of them.")
        if "up" in self.freeze and not of_weight:
            raise UnipetError(
                f"function.freeze: a frozen up needs a start that the base weight gives, and init is {self.init}. "
                f"Use init {', '.join(_OF_WEIGHT)}."
            )
        if "down" in self.freeze and self.init in ("bert", "houlsby"):
            raise UnipetError(
                f"function.freeze: a frozen down is made from the seed or from the base weight, and init is {self.init}. "
                f"Use init {', '.join(('lora', 'torch', *_OF_WEIGHT))}."
            )

    def sizes(self, widths: Sequence[Widths]) -> Sequence[int]:
        most = min(min(one.u, one.h) for one in widths) if self.starts_from_weight else UNBOUNDED
        return range(1, most + 1)

    def frozen_count(self, widths: Sequence[Widths]) -> int:
        slots = [*self.freeze, *(("down", "up") if self.from_start else ())]
        return sum(self.size * (one.u if slot == "down" else one.h) for one in widths for slot in slots)

    def frozen(self, widths: Widths, generator: Generator) -> Mapping[str, Tensor]:
        shapes = {"down": (self.size, widths.u), "up": (widths.h, self.size)}
        made = {slot: seeded_kaiming(shapes[slot], generator) for slot in self.freeze}
        if self.from_start:
            made |= {_START + slot: seeded_kaiming(shape, generator) for slot, shape in shapes.items()}
        return made

    @property
    def starts_from_weight(self) -> bool:
        return self.init in _OF_WEIGHT

    def start(self, params: Params, weight_DU: Tensor | None) -> None:
        if not self.starts_from_weight:
            return
        assert weight_DU is not None
        if weight_DU.shape != (params["up"].shape[0], params["down"].shape[1]):
            raise UnipetError(
                f"function.init: {self.init} starts from the base weight {tuple(weight_DU.shape)}, which is no map "
                f"from {params['down'].shape[1]} to {params['up'].shape[0]}. Use form: parallel at a linear site."
            )
        if self.init == "qr":
            up_DR, down_RU = qr(weight_DU, self.size)
        else:
            u_DR, s_R, v_RU = svd(weight_DU, self.size, minor=self.init == "svd_minor")
            up_DR, down_RU = u_DR * s_R.sqrt(), s_R.sqrt().unsqueeze(1) * v_RU
        for name, first in (("down", down_RU), ("up", up_DR)):
            params[name].copy_(first)
            if self.from_start:
                params[_START + name].copy_(first)

    def product(self, u: Tensor, params: Params, training: bool) -> Delta:
        u_BTU = F.dropout(u, self.dropout) if training and self.dropout and u.is_floating_point() else u
        if self.diagonal and u.is_floating_point():
            params = _diagonal_in_a_half(u, params)
        delta = self.rest(_read(u_BTU, params["down"]), params, training)
        if self.from_start:
            return value(delta) - F.linear(_read(u_BTU, params[_START + "down"]), params[_START + "up"])
        return delta

    def first(self, params: Params, training: bool) -> Linear | None:
        reads_alone = not self.from_start and not (training and self.dropout)
        return (params["down"], None) if reads_alone else None

    def rest(self, z: Tensor, params: Params, training: bool) -> Delta:
        z_BTR = z * params["diagonal"] if "diagonal" in params else z
        return Product(z_BTR, params["up"], b_D=params.get("up.bias"))

    def matrix(self, params: Params) -> Tensor:
        up_DR = params["up"] * params["diagonal"] if self.diagonal else params["up"]
        matrix_DU = up_DR @ params["down"]
        return matrix_DU - params[_START + "up"] @ params[_START + "down"] if self.from_start else matrix_DU

    def affine(self, params: Params) -> Affine:
        return Affine(self.matrix(params), params.get("up.bias"))

    @property
    def has_offset(self) -> bool:
        return self.bias

    @property
    def starts_at_zero(self) -> bool:
        return starts_output_at_zero(self.init) or self.diagonal or self.from_start


def _read(u_BTU: Tensor, down_RU: Tensor) -> Tensor:
    """down · u, with token ids (B, T) for one-hot vectors."""
    return F.linear(u_BTU, down_RU) if u_BTU.is_floating_point() else F.embedding(u_BTU, down_RU.T)


def _diagonal_in_a_half(u_BTU: Tensor, params: Params) -> Params:
    """The map's tensors with the diagonal multiplied into the narrower half, where z has more rows than that half is wide: it is
    as large as what autograd keeps for the diagonal."""
    down_RU, up_DR, diagonal_R = params["down"], params["up"], params["diagonal"]
    if u_BTU.shape[:-1].numel() <= min(down_RU.shape[1], len(up_DR)):
        return params
    rest = {name: tensor for name, tensor in params.items() if name != "diagonal"}
    if len(up_DR) < down_RU.shape[1]:
        return rest | {"up": up_DR * diagonal_R}
    return rest | {"down": down_RU * diagonal_R.unsqueeze(1)}
