"""Rotations from skew-symmetric matrices: what several functions that turn their input share.

Each map here is the deviation R - I from the identity: it is exactly zero where the skew-symmetric Q is, so that a
function can start as the identity bit for bit.

Shapes: N blocks, B width of a block.
"""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass

import torch
from torch import Tensor

from unipet.calculus.functions.base import Heads, LinearMap, Params, Slots, Widths
from unipet.errors import UnipetError


def skew(upper_NK: Tensor, width: int) -> Tensor:
    """Q_NBB = U - Uᵀ, with U's strict upper triangle read row by row from K = B(B-1)/2 numbers."""
    rows, columns = torch.triu_indices(width, width, offset=1, device=upper_NK.device)
    U_NBB = upper_NK.new_zeros(*upper_NK.shape[:-1], width, width)
    U_NBB[..., rows, columns] = upper_NK
    return U_NBB - U_NBB.transpose(-1, -2)


def cayley(Q_NBB: Tensor) -> Tensor:
    """(I - Q)(I + Q)⁻¹ - I = -2 (I + Q)⁻¹ Q."""
    eye_BB = torch.eye(Q_NBB.shape[-1], dtype=Q_NBB.dtype, device=Q_NBB.device)
    deviation_NBB: Tensor = torch.linalg.solve(eye_BB + Q_NBB, -2 * Q_NBB)
    return deviation_NBB


def neumann(Q_NBB: Tensor, terms: int) -> Tensor:
    """(I + Q)(I + Q + ... + Qⁿ⁻²) - I = 2Q + 2Q² + ... + 2Qⁿ⁻² + Qⁿ⁻¹ with n terms.

    Close to a rotation for small Q only. It turns the other way than `cayley`: by (I + Q)(I - Q)⁻¹.
    """
    plus = torch.baddbmm if Q_NBB.dim() == 3 else torch.addmm  # a sum and a product in one operator
    powers_NBB = Q_NBB  # Q + ... + Qⁿ⁻², by Horner's rule
    for _ in range(terms - 3):
        powers_NBB = plus(Q_NBB, Q_NBB, powers_NBB)
    return plus(Q_NBB + powers_NBB, Q_NBB, powers_NBB)


@dataclass(frozen=True)
class Turn(LinearMap):
    """A square map that is given by what it does to its input, and starts as the identity or near it.

    Its use is `composition: replace` in sequential form: f(h) in the place of h, on the output side of a linear map
    or, with `side: input`, on the input side.
    """

    def slots(self, widths: Widths) -> Slots:
        if widths.u != widths.h:
            raise UnipetError(
                f"function: it turns what it reads, and x is {widths.u} wide, h {widths.h}. Use form: sequential."
            )
        return self.turn_slots(widths)

    @abstractmethod
    def turn_slots(self, widths: Widths) -> Slots:
        """Its slots at a site where x is as wide as h."""

    @abstractmethod
    def turned(self, u: Tensor, params: Params) -> Tensor:
        """A u for every row of u, (..., D)."""

    @abstractmethod
    def width(self, params: Params) -> int:
        """D, read from the tensors."""

    def delta(self, u: Tensor | Heads | None, params: Params, training: bool) -> Tensor:
        return self.turned(u, params)  # type: ignore[arg-type]

    def matrix(self, params: Params) -> Tensor:
        first = next(iter(params.values()))
        return self.turned(torch.eye(self.width(params), dtype=first.dtype, device=first.device), params).T

    @property
    def starts_at_zero(self) -> bool:
        return False
