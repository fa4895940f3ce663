"""`subspace_rotation`: the weight's principal subspace is rotated and stretched (PSOFT: Wu et al. 2025).

Shapes: D out width, U in width, R size.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Generator, Tensor
from torch.nn import functional as F

from unipet.calculus.functions.base import LinearMap, Params, Slots, TensorSpec, Widths
from unipet.calculus.functions.blocks import at_most
from unipet.calculus.functions.factors import svd
from unipet.calculus.functions.orthogonal import cayley, neumann, skew
from unipet.calculus.functions.product import Delta, Product
from unipet.calculus.options import option


@dataclass(frozen=True)
class SubspaceRotation(LinearMap):
    """Δ = B (diag(β) R diag(α) - I) A with W ≈ BA its best approximation of rank `size`, frozen.

    R = (I + Q)(I - Q)⁻¹, Q from its strict upper triangle: slot `upper` (r(r-1)/2,). Slots `gain_in` (α) and `gain_out` (β),
    (r,) each, start at one. `split: orthogonal` has A = Vᵀ, B = US, so that R turns without shearing (Wu et al. 2025);
    `even` has A = √S Vᵀ, B = U√S. `cayley` and `terms` as for `rotation`.
    """

    size: int = option(32, low=2)
    cayley: str = option("exact", choices=("neumann", "exact"))
    terms: int = option(5, low=3, high=1000)
    split: str = option("orthogonal", choices=("orthogonal", "even"))

    def slots(self, widths: Widths) -> Slots:
        at_most("size", self.size, input=widths.u, output=widths.h)
        return {
            "upper": {"": TensorSpec((self.size * (self.size - 1) // 2,), "table", "zeros")},
            "gain_in": {"": TensorSpec((self.size,), "table", "ones")},
            "gain_out": {"": TensorSpec((self.size,), "table", "ones")},
        }

    def sizes(self, widths: Sequence[Widths]) -> Sequence[int]:
        return range(2, min(min(one.u, one.h) for one in widths) + 1)

    def frozen(self, widths: Widths, generator: Generator) -> Mapping[str, Tensor]:
        return {"down": torch.zeros(self.size, widths.u), "up": torch.zeros(widths.h, self.size)}  # see `start`

    @property
    def starts_from_weight(self) -> bool:
        return True

    def start(self, params: Params, weight_DU: Tensor | None) -> None:
        assert weight_DU is not None
        U_DR, s_R, V_RU = svd(weight_DU, self.size)
        inner = s_R.sqrt() if self.split == "even" else torch.ones_like(s_R)
        params["down"].copy_(inner.unsqueeze(1) * V_RU)
        params["up"].copy_(U_DR * (s_R / inner))

    def _middle(self, params: Params) -> Tensor:
        """diag(β) R diag(α) - I, exactly zero at the start."""
        Q_RR = skew(params["upper"], self.size)
        turn_RR = cayley(-Q_RR) if self.cayley == "exact" else neumann(Q_RR, self.terms)
        stretch_RR = params["gain_out"].unsqueeze(1) * params["gain_in"]
        return stretch_RR * turn_RR + torch.diag(params["gain_out"] * params["gain_in"] - 1)

    def generate(self, params: Params, shared: Params, widths: Widths) -> Params:
        return {**params, "middle": self._middle(params)}

    def product(self, u: Tensor, params: Params, training: bool) -> Delta:
        return Product(F.linear(F.linear(u, params["down"]), params["middle"]), params["up"])

    def matrix(self, params: Params) -> Tensor:
        return params["up"] @ params["middle"] @ params["down"]

    @property
    def starts_at_zero(self) -> bool:
        return True
