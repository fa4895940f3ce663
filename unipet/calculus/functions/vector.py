"""`vector`: f = v, the same learned vector for every token ((IA)³: Liu et al. 2022, eq. of §3.3, with l = 1 + v)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from unipet.calculus.functions.base import BASE, BASE_BIAS, Affine, Function, Heads, Params, Slots, TensorSpec, Widths
from unipet.calculus.options import option


@dataclass(frozen=True)
class Vector(Function):
    """One vector as wide as h; slot `value` (d,). With `through`, what the base model's linear map makes of it.

    Composition decides what it does: `add` shifts (a bias), `multiply` rescales by 1 + v ((IA)³'s l starts at one, so
    v starts at zero). `through: weight` is W v with v as wide as x (a shift of the input), `through: bias` is b ⊙ v;
    with `add` these are the vectors C and D of GLoRA (Chavan et al. 2023).
    """

    reads: ClassVar[str] = "nothing"

    init: str = option("zeros", choices=("zeros", "ones", "bert"))

    through: str = option("nothing", choices=("nothing", "weight", "bias"))

    @property
    def needs_weight(self) -> bool:
        return self.through == "weight"

    @property
    def needs_bias(self) -> bool:
        return self.through == "bias"

    def slots(self, widths: Widths) -> Slots:
        return {"value": {"": TensorSpec((widths.u if self.needs_weight else widths.h,), "table")}}

    def delta(self, u: Tensor | Heads | None, params: Params, training: bool) -> Tensor:
        if self.through == "nothing":
            return params["value"]
        return params[BASE] @ params["value"] if self.needs_weight else params[BASE_BIAS] * params["value"]

    def affine(self, params: Params) -> Affine:
        return Affine(c_D=self.delta(None, params, False))

    @property
    def starts_at_zero(self) -> bool:
        return self.init == "zeros"
