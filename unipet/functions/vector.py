"""`vector`: f = v, the same learned vector for every token ((IA)³: Liu et al. 2022, eq. of §3.3, with l = 1 + v)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from unipet.functions.base import Affine, Function, Heads, Params, Slots, TensorSpec, Widths
from unipet.options import option


@dataclass(frozen=True)
class Vector(Function):
    """One vector as wide as h; slot `value` (d,).

    Composition decides what it does: `add` shifts (a bias), `multiply` rescales by 1 + v ((IA)³'s l starts at one, so
    v starts at zero).
    """

    reads: ClassVar[str] = "nothing"

    init: str = option("zeros", choices=("zeros", "ones", "bert"))

    def slots(self, widths: Widths) -> Slots:
        return {"value": {"": TensorSpec((widths.h,), "table")}}

    def delta(self, u: Tensor | Heads | None, params: Params, training: bool) -> Tensor:
        return params["value"]

    def affine(self, params: Params) -> Affine:
        return Affine(c_D=params["value"])

    @property
    def starts_at_zero(self) -> bool:
        return self.init == "zeros"
