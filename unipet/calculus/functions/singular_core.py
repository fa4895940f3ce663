"""`singular_core`: a few trained numbers between the frozen singular factors of the base weight (TinyLoRA: Morris et al. 2026).

Shapes: K trained numbers, R size, U in width, D out width.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Generator, Tensor
from torch.nn import functional as F

from unipet.calculus.functions.base import LinearMap, Params, Slots, TensorSpec, Widths
from unipet.calculus.functions.factors import svd
from unipet.calculus.functions.product import Delta, Product
from unipet.calculus.options import option
from unipet.errors import UnipetError


@dataclass(frozen=True)
class SingularCore(LinearMap):
    """U_r S_r (Σₖ coreₖ Pₖ) V_rᵀ, with U S Vᵀ the base weight and Pₖ (r, r) frozen random projections.

    All sites of the insertion share the one trained slot `core` (count,), which starts at zero. `size` is the rank r of
    the factors. The projections have entries N(0, 1/r) made from `seed`, different for each site.
    """

    knob: ClassVar[str] = "count"

    size: int = option(2, low=1)
    count: int = option(16, low=1)
    dropout: float = option(0.0, low=0.0, high=0.999)
    seed: int = option(0, low=0)

    def sizes(self, widths: Sequence[Widths]) -> Sequence[int]:
        return range(1, len(widths) * self.size**2 + 1)  # then every site can have any core of its own

    def slots(self, widths: Widths) -> Slots:
        return {}

    def shared(self, widths: Sequence[Widths]) -> Slots:
        return {"core": {"": TensorSpec((self.count,), "table", "zeros")}}

    def frozen_count(self, widths: Sequence[Widths]) -> int:
        return sum(self.count * self.size**2 + self.size * (one.u + one.h) for one in widths)

    def frozen(self, widths: Widths, generator: Generator) -> Mapping[str, Tensor]:
        projections_KRR = torch.randn(self.count, self.size, self.size, generator=generator) / math.sqrt(self.size)
        return {
            "projections": projections_KRR,
            "down": torch.zeros(self.size, widths.u),
            "up": torch.zeros(widths.h, self.size),
        }

    @property
    def starts_from_weight(self) -> bool:
        return True

    def start(self, params: Params, weight_DU: Tensor | None) -> None:
        assert weight_DU is not None
        if weight_DU.shape[1] != params["down"].shape[1]:
            raise UnipetError("function: it reads the base weight's input. Use form: parallel at a linear site.")
        u_DR, s_R, v_RU = svd(weight_DU, self.size)
        params["up"].copy_(u_DR * s_R)
        params["down"].copy_(v_RU)

    def generate(self, params: Params, shared: Params, widths: Widths) -> Params:
        return {**params, "core": torch.einsum("k,krs->rs", shared["core"], params["projections"])}

    def product(self, u: Tensor, params: Params, training: bool) -> Delta:
        z_BTR = F.linear(F.dropout(u, self.dropout, training), params["down"])
        return Product(F.linear(z_BTR, params["core"]), params["up"])

    def matrix(self, params: Params) -> Tensor:
        return params["up"] @ params["core"] @ params["down"]

    @property
    def starts_at_zero(self) -> bool:
        return True
