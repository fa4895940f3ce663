"""`projection`: a subspace of the weight's output is removed and filled anew (DEFT: Kumar et al. 2025; PaRa: Chen et al. 2024).

Shapes: D out width, U in width, R size.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from unipet.calculus.functions.base import BASE, LinearMap, Params, Slots, TensorSpec, Widths
from unipet.calculus.functions.blocks import at_most
from unipet.calculus.functions.product import Delta, Product
from unipet.calculus.options import option


@dataclass(frozen=True)
class Projection(LinearMap):
    """W' = (I - P) W + Q fill, with P = Q Nᵀ made of slot `basis` (d_out, r); slot `fill` (r, d_in).

    `decomposition: qr` orthonormalises the basis, Q = N = qr(basis), so that P is a projection; `relu` has Q = basis and N =
    relu(basis). `fill` starts at Nᵀ W, so Δ = Q (fill - Nᵀ W) starts at zero. With `inject: false` nothing is put in its
    place: Δ = -P W (PaRa), which is not zero at the start.
    """

    size: int = option(8, low=1)
    decomposition: str = option("relu", choices=("relu", "qr"))
    inject: bool = option(True)

    @property
    def needs_weight(self) -> bool:
        return True

    def slots(self, widths: Widths) -> Slots:
        at_most("size", self.size, output=widths.h)
        basis: Slots = {"basis": {"": TensorSpec((widths.h, self.size), "out", "normal_002")}}
        return {**basis, "fill": {"": TensorSpec((self.size, widths.u), "in", "zeros")}} if self.inject else basis

    def sizes(self, widths: Sequence[Widths]) -> Sequence[int]:
        return range(1, min(one.h for one in widths) + 1)

    def start(self, params: Params, weight_DU: Tensor | None) -> None:
        if self.inject:
            assert weight_DU is not None
            params["fill"].copy_(self._sides(params)[1].T @ weight_DU)

    def _sides(self, params: Params) -> tuple[Tensor, Tensor]:
        """Q and N, each (D, R)."""
        basis_DR = params["basis"]
        if self.decomposition == "relu":
            return basis_DR, F.relu(basis_DR)
        Q_DR: Tensor = torch.linalg.qr(basis_DR)[0]
        return Q_DR, Q_DR

    def _factors(self, params: Params) -> tuple[Tensor, Tensor]:
        Q_DR, N_DR = self._sides(params)
        removed_RU = N_DR.T @ params[BASE]
        return Q_DR, (params["fill"] - removed_RU if self.inject else -removed_RU)

    def product(self, u: Tensor, params: Params, training: bool) -> Delta:
        Q_DR, inner_RU = self._factors(params)
        return Product(F.linear(u, inner_RU), Q_DR)

    def matrix(self, params: Params) -> Tensor:
        Q_DR, inner_RU = self._factors(params)
        return Q_DR @ inner_RU

    @property
    def starts_at_zero(self) -> bool:
        return self.inject
