"""`reflection`: a product of Householder reflections turns the input (HRA: Yuan et al. 2024).

Shapes: R number of reflections (the size), D width.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from unipet.calculus.functions.base import Params, Slots, TensorSpec, Widths
from unipet.calculus.functions.blocks import at_most
from unipet.calculus.functions.orthogonal import Turn
from unipet.calculus.options import option


@dataclass(frozen=True)
class Reflection(Turn):
    """f(x) = H₁ ⋯ H_R x with H_i = I - 2 v_i v_iᵀ/‖v_i‖²; slot `vectors` (R, D), a row for each v_i.

    `size` is the number R of reflections. They start in pairs of equal vectors, which cancel (of an odd number one is
    left over). With `gram_schmidt` the vectors are made orthonormal first: f(x)
    = x - 2 V Vᵀ x, which reflects a subspace and is never the identity (Yuan et al. 2024).
    """

    size: int = option(8, low=1)
    gram_schmidt: bool = option(False)

    def slots(self, widths: Widths) -> Slots:
        at_most("size", self.size, input=widths.h)
        return {"vectors": {"": TensorSpec((self.size, widths.h), "in", "kaiming")}}

    def sizes(self, widths: Sequence[Widths]) -> Sequence[int]:
        return range(1, min(one.h for one in widths) + 1)

    def start(self, params: Params, weight_DU: Tensor | None) -> None:
        if not self.gram_schmidt:
            paired = self.size // 2 * 2
            params["vectors"][1:paired:2] = params["vectors"][0:paired:2]

    def width(self, params: Params) -> int:
        return int(params["vectors"].shape[1])

    def turned(self, u: Tensor, params: Params) -> Tensor:
        v_RD = params["vectors"]
        if self.gram_schmidt:
            # Gram-Schmidt is the Q of a QR decomposition up to signs, which V Vᵀ does not see.
            basis_DR: Tensor = torch.linalg.qr(v_RD.T)[0]
            return u - 2 * (u @ basis_DR) @ basis_DR.T
        v_RD = F.normalize(v_RD, dim=1)
        if self.size % 2:
            u = u - 2 * (u @ v_RD[-1]).unsqueeze(-1) * v_RD[-1]
        for first in reversed(range(0, self.size - 1, 2)):
            u = u + _pair(u, v_RD[first], v_RD[first + 1])
        return u

    @property
    def starts_at_identity(self) -> bool:
        return not self.gram_schmidt and self.size % 2 == 0


def _pair(u: Tensor, a_D: Tensor, b_D: Tensor) -> Tensor:
    """H_a H_b u - u for unit vectors, written so that it is exactly zero where a = b."""
    on_a, on_b = (u @ a_D).unsqueeze(-1), (u @ b_D).unsqueeze(-1)
    cosine = 1 - (a_D - b_D).square().sum() / 2  # a·b, and exactly 1 where a = b
    return (4 * cosine * on_b - 2 * on_a) * a_D - 2 * on_b * b_D
