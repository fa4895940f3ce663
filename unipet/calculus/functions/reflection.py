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
from unipet.calculus.functions.product import Product, added
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

    def turn_slots(self, widths: Widths) -> Slots:
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

    def generate(self, params: Params, shared: Params, widths: Widths) -> Params:
        v_RD = params["vectors"]
        if self.gram_schmidt:
            # Gram-Schmidt is the Q of a QR decomposition up to signs, which V Vᵀ does not see.
            return {**params, "basis": torch.linalg.qr(v_RD.T)[0]}
        Y_DR, Z_RD = _compact(F.normalize(v_RD, dim=1))
        return {**params, "Y": Y_DR, "Z": Z_RD}

    def turned(self, u: Tensor, params: Params) -> Tensor:
        if self.gram_schmidt:
            basis_DR = params["basis"]
            return added(u, Product(u @ basis_DR, basis_DR, -2.0))
        return added(u, Product(F.linear(u, params["Z"]), params["Y"]))

    @property
    def starts_at_identity(self) -> bool:
        return not self.gram_schmidt and self.size % 2 == 0


def _compact(v_RD: Tensor) -> tuple[Tensor, Tensor]:
    """Y and Z with H₁ ⋯ H_R = I + Y Z for unit vectors v_i, two products instead of R reflections (as Bischof & Van Loan 1987).

    A pair of equal vectors cancels exactly: with d = b - a, H_a H_b - I = a (2d - 2‖d‖² b)ᵀ - 2 d bᵀ, which d = 0 makes zero.
    """
    paired = len(v_RD) // 2 * 2
    a_PD, b_PD = v_RD[0:paired:2], v_RD[1:paired:2]
    d_PD = b_PD - a_PD
    first_PD = 2 * d_PD - 2 * d_PD.square().sum(1, keepdim=True) * b_PD
    rest_RD = v_RD[paired:]  # the last of an odd number
    Y_RD = torch.cat([torch.stack([a_PD, d_PD], 1).flatten(0, 1), rest_RD])
    Z_RD = torch.cat([torch.stack([first_PD, -2 * b_PD], 1).flatten(0, 1), -2 * rest_RD])
    # (I + Y₁Z₁)(I + Y₂Z₂) = I + Y₁Z₁ + Y₂Z₂ + Y₁(Z₁Y₂)Z₂: each pair also meets what those behind it yield.
    pair_R = torch.arange(len(v_RD), device=v_RD.device) // 2
    meets_RR = torch.where(pair_R.unsqueeze(1) < pair_R, Z_RD @ Y_RD.T, 0.0)
    eye_RR = torch.eye(len(v_RD), dtype=v_RD.dtype, device=v_RD.device)
    return Y_RD.T, torch.linalg.solve_triangular(eye_RR - meets_RR, Z_RD, upper=True, unitriangular=True)
