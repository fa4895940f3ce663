"""`normalised_low_rank`: a low-rank update whose strength is apart from its direction (DeLoRA: Bini et al. 2025).

Shapes: D out width, U in width, R size.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Generator, Tensor
from torch.nn import functional as F

from unipet.calculus.functions.base import LinearMap, Params, Slots, TensorSpec, Widths
from unipet.calculus.functions.product import Delta, Product
from unipet.calculus.options import option

#: Norms below this count as this, so that a start at zero divides by something.
_SMALLEST = 1e-4


@dataclass(frozen=True)
class NormalisedLowRank(LinearMap):
    """Δ = λ/r · up diag(1/(‖down_i‖ ‖up_i‖)) down diag(‖W_:j‖); slots `down` (r, d_in), `up` (d_out, r), `strength` (1,).

    λ is learned and starts at `strength`; the norms of the base weight's columns are frozen (Bini et al. 2025).
    `up` starts at zero, so Δ does (the official code starts it at random and subtracts that start).
    """

    size: int = option(8, low=1)
    strength: float = option(15.0, low=-1e6, high=1e6)

    def slots(self, widths: Widths) -> Slots:
        return {
            "down": {"": TensorSpec((self.size, widths.u), "in", "kaiming")},
            "up": {"": TensorSpec((widths.h, self.size), "out", "zeros")},
            "strength": {"": TensorSpec((1,), "table", "ones")},
        }

    def frozen(self, widths: Widths, generator: Generator) -> Mapping[str, Tensor]:
        return {"norms": torch.ones(widths.u)}  # `start` reads them from the weight

    @property
    def starts_from_weight(self) -> bool:
        return True

    def start(self, params: Params, weight_DU: Tensor | None) -> None:
        assert weight_DU is not None
        params["strength"].fill_(self.strength)
        params["norms"].copy_(weight_DU.double().norm(dim=0))

    def generate(self, params: Params, shared: Params, widths: Widths) -> Params:
        down_R = params["down"].norm(dim=1).clamp(min=_SMALLEST)
        up_R = params["up"].norm(dim=0).clamp(min=_SMALLEST)
        return {**params, "scaled_up": params["up"] * (params["strength"] / self.size / (down_R * up_R))}

    def product(self, u: Tensor, params: Params, training: bool) -> Delta:
        return Product(F.linear(u * params["norms"], params["down"]), params["scaled_up"])

    def matrix(self, params: Params) -> Tensor:
        return params["scaled_up"] @ params["down"] * params["norms"]

    @property
    def starts_at_zero(self) -> bool:
        return True
