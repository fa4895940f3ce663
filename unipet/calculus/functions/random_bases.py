"""`random_bases`: a full-rank sum of frozen random low-rank bases with trained diagonals (RandLoRA: Albert et al. 2025).

Shapes: R size (the rank of one basis), N number of bases, K = N R, M the smaller and X the larger width of a site.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Generator, Tensor
from torch.nn import functional as F

from unipet.calculus.functions.base import LinearMap, Params, Slots, TensorSpec, Widths
from unipet.calculus.functions.factors import uniform
from unipet.calculus.functions.product import Delta, Product
from unipet.calculus.options import option


@dataclass(frozen=True)
class RandomBases(LinearMap):
    """Σₙ Bₙ diag(innerₙ) A diag(outerₙ), transposed where d_out < d_in (Albert et al. 2025, eq. 4).

    Slots `inner` (r, n) and `outer` (n, m), with m the smaller width and n = ⌈m/r⌉ bases, so that the sum has full rank.
    A (r, m) and B (x, n, r) are random with unit variance, frozen, made from `seed`, shared by all sites and sliced.
    `inner` starts at zero, `outer` at 1/max(n, m). `size` is r: the smaller, the more is trained.

    The released code flattens the bases of B with n outermost and the rows of the scaled A with r outermost, so row
    (k, j) of A meets the basis column of the same flat number, not (j, k). `released_order: true` does the same.
    """

    size: int = option(32, low=1)
    released_order: bool = option(False)
    seed: int = option(0, low=0)

    def _bases(self, widths: Widths) -> int:
        return math.ceil(min(widths.u, widths.h) / self.size)

    def slots(self, widths: Widths) -> Slots:
        bases = self._bases(widths)
        return {
            "inner": {"": TensorSpec((self.size, bases), "table", "zeros")},
            "outer": {"": TensorSpec((bases, min(widths.u, widths.h)), "table", "ones")},
        }

    def sizes(self, widths: Sequence[Widths]) -> Sequence[int]:
        return list(range(1, max(min(one.u, one.h) for one in widths) + 1))  # fewer bases, fewer numbers

    def frozen_count(self, widths: Sequence[Widths]) -> int:
        return sum(math.prod(shape) for shape in self._shared_shapes(widths).values())

    def _shared_shapes(self, widths: Sequence[Widths]) -> dict[str, tuple[int, ...]]:
        narrow = max(min(one.u, one.h) for one in widths)
        wide, bases = max(max(one.u, one.h) for one in widths), max(self._bases(one) for one in widths)
        return {"A": (self.size, narrow), "B": (wide, bases, self.size)}

    def shared_frozen(self, widths: Sequence[Widths], generator: Generator) -> Mapping[str, Tensor]:
        unit = math.sqrt(3.0)  # U(-√3, √3) has variance one
        return {name: uniform(shape, unit, generator) for name, shape in self._shared_shapes(widths).items()}

    def start(self, params: Params, weight_DU: Tensor | None) -> None:
        params["outer"].fill_(1 / max(params["outer"].shape))

    def generate(self, params: Params, shared: Params, widths: Widths) -> Params:
        narrow, wide = sorted((widths.u, widths.h))
        A_RM, outer_NM = shared["A"][:, :narrow], params["outer"]
        # In the order of the rows: (R, N, M), or (N, R, M).
        inner, A, outer = (
            (params["inner"], A_RM.unsqueeze(1), outer_NM.unsqueeze(0))
            if self.released_order
            else (params["inner"].T, A_RM.unsqueeze(0), outer_NM.unsqueeze(1))
        )
        scaled = _scaled(inner.unsqueeze(-1), A, outer, 0 if self.released_order else 1)
        rows_KM = scaled.flatten(0, 1)
        columns_XK = shared["B"][:wide, : self._bases(widths)].flatten(1)
        left, right = (columns_XK, rows_KM) if widths.h >= widths.u else (rows_KM.T, columns_XK.T)
        return {**params, "left": left, "right": right}

    def product(self, u: Tensor, params: Params, training: bool) -> Delta:
        return Product(F.linear(u, params["right"]), params["left"])

    def cheaper_as_matrix(self, tokens: int, widths: Widths, training: bool) -> bool:
        narrow, wide = sorted((widths.u, widths.h))
        rank = self.size * self._bases(widths)
        if not training:
            return rank * narrow * wide < tokens * rank * (narrow + wide)
        # Multiplications: both halves forward and backward, and one's gradient; or the gradient of the weight, and the
        # matrix twice with the gradient of its half that trains. Half as much again is for the operators on each entry.
        apart = tokens * rank * (2 * (narrow + wide) + narrow)
        return 1.5 * (tokens + 3 * rank) * narrow * wide < apart

    def matrix(self, params: Params) -> Tensor:
        return params["left"] @ params["right"]

    @property
    def starts_at_zero(self) -> bool:
        return True


def _scaled(inner: Tensor, A: Tensor, outer: Tensor, across: int) -> Tensor:
    if torch.compiler.is_compiling():  # a compiled graph decides what it keeps
        return inner * A * outer
    made: Tensor = _Scaled.apply(inner, A, outer, across)  # type: ignore[no-untyped-call]
    return made


class _Scaled(torch.autograd.Function):
    """inner ⊙ A ⊙ outer, three tensors that broadcast to (·, ·, M), which are all that is kept for the backward pass.

    A gets no gradient; `across` is the dimension in which outer broadcasts.
    """

    @staticmethod
    def forward(ctx: Any, inner: Tensor, A: Tensor, outer: Tensor, across: int) -> Tensor:
        ctx.save_for_backward(inner, A, outer)
        ctx.across = across
        return inner * A * outer

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        inner, A, outer = ctx.saved_tensors
        grad = grad * A
        of_outer = (grad * inner).sum(ctx.across, keepdim=True)
        return (grad * outer).sum(-1, keepdim=True), None, of_outer, None
