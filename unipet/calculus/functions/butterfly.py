"""`butterfly`: several sparse rotations in a row, interleaved as in a fast Fourier transform (BOFT: Liu et al. 2024).

Shapes: M factors, N blocks, B width of a block (the size), D = N·B.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from unipet.calculus.functions.base import Params, Slots, TensorSpec, Widths
from unipet.calculus.functions.blocks import cut, divisors, must_divide
from unipet.calculus.functions.orthogonal import Turn, cayley
from unipet.calculus.options import option
from unipet.errors import UnipetError, not_allowed


@dataclass(frozen=True)
class Butterfly(Turn):
    """f(x) = Mᵀ x with M = M_m ⋯ M₁ and M_i = P_i blockdiag(R_i1, ..., R_iN) P_iᵀ; slot `blocks` (M, N, B, B).

    `size` is the width B of a block, `factors` the number m of factors. R = (I - S)(I + S)⁻¹ with S = (X - Xᵀ)/2 the
    skew-symmetric part of a block X (Liu et al. 2024; the blocks are full matrices as in the official code, so only
    half of their numbers count). P_i sorts each run of 2ⁱ·B channels so that a block joins half-blocks from its two halves;
    P₀ is the identity, so one factor is a block-diagonal rotation.
    """

    size: int = option(4, low=2)
    factors: int = option(1, low=1)

    def turn_slots(self, widths: Widths) -> Slots:
        if self.factors > 1 and self.size % 2:
            raise not_allowed("function.size", self.size, "an even number", "Several factors exchange half-blocks.")
        must_divide("size", self.size, input=widths.h)
        run = self.size * 2 ** (self.factors - 1)
        if widths.h % run:
            allowed = 1
            while widths.h % (self.size * 2**allowed) == 0:
                allowed += 1
            raise UnipetError(
                f"function.factors: {self.factors} factors of size {self.size} need runs of {run} channels, which do not "
                f"divide the input width {widths.h} of this site. At most {allowed} factors fit."
            )
        return {
            "blocks": {"": TensorSpec((self.factors, widths.h // self.size, self.size, self.size), "table", "zeros")}
        }

    def sizes(self, widths: Sequence[Widths]) -> Sequence[int]:
        run = 2 ** (self.factors - 1)
        allowed = [size for size in divisors((one.h for one in widths), least=2) if size % 2 == 0 or self.factors == 1]
        return [size for size in allowed if all(one.h % (size * run) == 0 for one in widths)]

    def width(self, params: Params) -> int:
        return int(params["blocks"].shape[1]) * self.size

    def generate(self, params: Params, shared: Params, widths: Widths) -> Params:
        X = params["blocks"]
        return {**params, "turns": cayley((X - X.transpose(-1, -2)) / 2)}

    def turned(self, u: Tensor, params: Params) -> Tensor:
        turns_MNBB = params["turns"]
        for factor in reversed(range(self.factors)):
            # x' = M₁ᵀ ⋯ M_mᵀ x, so the last factor comes first; a row times R is Rᵀ times the column.
            sorted_D = self._gathered(u, factor) if factor else u
            turned_D = torch.einsum("...nb,nbc->...nc", cut(sorted_D, -1, self.size), turns_MNBB[factor])
            turned = turned_D.flatten(-2)
            u = u + (self._scattered(turned, factor) if factor else turned)
        return u

    def _gathered(self, u: Tensor, factor: int) -> Tensor:
        """P_iᵀ u for i > 0: block p holds the half-blocks p of the two halves of its run."""
        return cut(u, -1, 2, 2**factor, self.size // 2).transpose(-3, -2).flatten(-4)

    def _scattered(self, u: Tensor, factor: int) -> Tensor:
        """P_i u for i > 0, the inverse of `_gathered`."""
        return cut(u, -1, 2**factor, 2, self.size // 2).transpose(-3, -2).flatten(-4)

    @property
    def starts_at_identity(self) -> bool:
        return True
