"""`kronecker`: f(u) = (outer ⊗ inner) u, a Kronecker product (LoKr: Yeh et al. 2024; KronA: Edalati et al. 2022).

Shapes: d_out = o1·o2, d_in = i1·i2; outer (o1, i1), inner (o2, i2); N rows of u.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from unipet.calculus.functions.base import Heads, LinearMap, Params, Slots, TensorSpec, Widths
from unipet.calculus.functions.blocks import cut
from unipet.calculus.options import option


def halves(width: int, factor: int) -> tuple[int, int]:
    """width = m·n: m = `factor` where that divides it, else the largest divisor m <= √width (and <= factor, if given)."""
    if factor > 0 and width % factor == 0:
        return factor, width // factor
    limit = factor if factor > 0 else width
    m = max(n for n in range(1, int(width**0.5) + 1) if width % n == 0 and (n <= limit or n == 1))
    return m, width // m


@dataclass(frozen=True)
class Kronecker(LinearMap):
    """outer ⊗ inner, each whole or of rank `size`.

    `factor` splits each width in two (see `halves`; -1 as near to a square as its divisors allow). inner is of rank r (slots
    `inner_up` (o2, r), `inner_down` (r, i2)) where r < max(o2, i2)/2, else whole (slot `inner`); outer likewise with
    `decompose_both`, else whole (slot `outer`). outer starts at zero (Yeh et al. 2024; conventions as in peft).
    """

    size: int = option(8, low=1)
    factor: int = option(-1, low=-1)
    decompose_both: bool = option(False)

    def slots(self, widths: Widths) -> Slots:
        (o1, o2), (i1, i2) = halves(widths.h, self.factor), halves(widths.u, self.factor)
        return {**self._slots("outer", o1, i1, self.decompose_both), **self._slots("inner", o2, i2, True)}

    def sizes(self, widths: Sequence[Widths]) -> Sequence[int]:
        split = [halves(width, self.factor) for one in widths for width in (one.u, one.h)]
        return list(range(1, math.ceil(max(max(two) for two in split) / 2) + 1))  # from there on all is whole

    def _slots(self, name: str, out_width: int, in_width: int, decompose: bool) -> Slots:
        start = "zeros" if name == "outer" else "kaiming"
        if not decompose or self.size >= max(out_width, in_width) / 2:
            return {name: {"": TensorSpec((out_width, in_width), "out", start)}}
        return {
            f"{name}_up": {"": TensorSpec((out_width, self.size), "out", start)},
            f"{name}_down": {"": TensorSpec((self.size, in_width), "in", "kaiming")},
        }

    @staticmethod
    def _whole(name: str, params: Params) -> Tensor:
        return params[name] if name in params else params[f"{name}_up"] @ params[f"{name}_down"]

    def delta(self, u: Tensor | Heads | None, params: Params, training: bool) -> Tensor:
        assert isinstance(u, Tensor)
        outer, inner = self._whole("outer", params), self._whole("inner", params)
        u_IJ = cut(u, outer.shape[1], inner.shape[1])
        mixed = torch.is_autocast_enabled(u.device.type) or not (u.dtype == outer.dtype == inner.dtype)
        if mixed or not torch.is_grad_enabled() or torch.compiler.is_compiling():
            return (outer @ (u_IJ @ inner.T)).flatten(-2)  # a compiled graph decides what it keeps
        delta: Tensor = _Sides.apply(u_IJ, outer, inner)  # type: ignore[no-untyped-call]
        return delta.flatten(-2)

    def matrix(self, params: Params) -> Tensor:
        return torch.kron(self._whole("outer", params), self._whole("inner", params))

    @property
    def starts_at_zero(self) -> bool:
        return True


class _Sides(torch.autograd.Function):
    """outer u innerᵀ for every (i1, i2) of u. What u innerᵀ is, as wide as h, is not kept: the backward pass makes it again."""

    @staticmethod
    def forward(ctx: Any, u_NIJ: Tensor, outer: Tensor, inner: Tensor) -> Tensor:
        ctx.save_for_backward(u_NIJ, outer, inner)
        return outer @ (u_NIJ @ inner.T)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        u_NIJ, outer, inner = ctx.saved_tensors
        of_u = of_outer = of_inner = None
        if ctx.needs_input_grad[1]:
            of_outer = (grad @ (u_NIJ @ inner.T).transpose(-1, -2)).flatten(0, -3).sum(0)
        if ctx.needs_input_grad[0] or ctx.needs_input_grad[2]:
            back = outer.T @ grad
            of_u = back @ inner if ctx.needs_input_grad[0] else None
            if ctx.needs_input_grad[2]:
                of_inner = back.flatten(0, -2).T @ u_NIJ.flatten(0, -2)
        return of_u, of_outer, of_inner
