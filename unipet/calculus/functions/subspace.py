"""`subspace`: an edit of h inside a small subspace, f(h) = Pᵀ(φ(S h + b) - P h) (ReFT: Wu et al. 2024, eq. 2-3).

Shapes: R size, D width of h.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from unipet.calculus.functions.activations import ACTIVATIONS
from unipet.calculus.functions.base import Affine, Function, Heads, Params, Slots, TensorSpec, Widths
from unipet.calculus.options import option
from unipet.errors import UnipetError


@dataclass(frozen=True)
class Subspace(Function):
    """Moves h, within the rows of P, to where φ(S h + b) says; slots `basis` (r, d), `source.weight` (r, d), `source.bias`.

    `size` is r. With `orthonormal` the rows of P are those of `basis` made orthonormal (LoReFT), else P is `basis`
    itself (NoReFT). `subtract: false` leaves P h out (DiReFT). It reads h: use form sequential.
    """

    size: int = option(8, low=1)
    orthonormal: bool = option(True)
    subtract: bool = option(True)
    activation: str = option("identity", choices=tuple(ACTIVATIONS))
    dropout: float = option(0.0, low=0.0, high=0.999)
    init: str = option("torch", choices=("torch", "bert"))

    def slots(self, widths: Widths) -> Slots:
        if widths.u != widths.h:
            raise UnipetError(
                f"function: it edits what it reads; x is {widths.u} wide, h {widths.h}. Use form: sequential."
            )
        if self.size > widths.h:
            raise UnipetError(f"function.size: {self.size} given; allowed: at most {widths.h}, the width of h.")
        return {
            "basis": {"": TensorSpec((self.size, widths.h), "in")},
            "source": {
                "weight": TensorSpec((self.size, widths.h), "in"),
                "bias": TensorSpec((self.size,), "bias"),
            },
        }

    def sizes(self, widths: Sequence[Widths]) -> Sequence[int]:
        return range(1, min(one.h for one in widths) + 1)

    def generate(self, params: Params, shared: Params, widths: Widths) -> Params:
        return {**params, "projection": self._orthonormal(params["basis"]) if self.orthonormal else params["basis"]}

    @staticmethod
    def _orthonormal(basis_RD: Tensor) -> Tensor:
        """Gram-Schmidt of the rows, by QR with R's diagonal positive, so that orthonormal rows stay as they are."""
        q_DR, r_RR = torch.linalg.qr(basis_RD.T)
        sign_R: Tensor = torch.where(r_RR.diagonal() < 0, -1.0, 1.0).to(q_DR)
        rows_RD: Tensor = (q_DR * sign_R).T
        return rows_RD

    def delta(self, u: Tensor | Heads | None, params: Params, training: bool) -> Tensor:
        assert isinstance(u, Tensor)
        z_BTR = ACTIVATIONS[self.activation](F.linear(u, params["source.weight"], params["source.bias"]))
        if self.subtract:
            z_BTR = z_BTR - F.linear(u, params["projection"])
        return F.dropout(F.linear(z_BTR, params["projection"].T), self.dropout, training)

    def affine(self, params: Params) -> Affine | None:
        if self.activation != "identity":
            return None
        P_RD, S_RD = params["projection"], params["source.weight"]
        return Affine(P_RD.T @ (S_RD - P_RD if self.subtract else S_RD), P_RD.T @ params["source.bias"])

    @property
    def nonlinear(self) -> str | None:  # type: ignore[override]
        return None if self.activation == "identity" else "an edit with a non-linearity is not linear"

    @property
    def starts_at_zero(self) -> bool:
        return False
