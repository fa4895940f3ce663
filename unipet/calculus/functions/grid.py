"""`grid`: the weight is cut into K × K blocks, each with a low-rank update of its own (GraLoRA: Jung et al. 2025).

Shapes: K blocks along each side, R size, S = R/K rank of a block.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from unipet.calculus.functions.base import UNBOUNDED, Heads, LinearMap, Params, Slots, TensorSpec, Widths
from unipet.calculus.functions.blocks import cut, must_divide
from unipet.calculus.options import option


@dataclass(frozen=True)
class Grid(LinearMap):
    """K × K low-rank maps of rank r/K; slots `down` (K·r, d_in/K) and `up` (d_out, r), as many numbers as rank r takes.

    `size` is r, `blocks` K. Block (i, j) maps input part j to output part i: its down-map is rows (i·K + j)·S to
    (i·K + j + 1)·S of `down`, its up-map row part i and column part j of `up`. `dropout` acts on the input.
    """

    size: int = option(32, low=1)
    blocks: int = option(2, low=1)
    dropout: float = option(0.0, low=0.0, high=0.999)

    def slots(self, widths: Widths) -> Slots:
        must_divide("blocks", self.blocks, input=widths.u, output=widths.h)
        must_divide("blocks", self.blocks, size=self.size)
        return {
            "down": {"": TensorSpec((self.blocks * self.size, widths.u // self.blocks), "in", "kaiming")},
            "up": {"": TensorSpec((widths.h, self.size), "out", "zeros")},
        }

    def sizes(self, widths: Sequence[Widths]) -> Sequence[int]:
        return range(self.blocks, UNBOUNDED, self.blocks)

    def _blocks(self, params: Params) -> tuple[Tensor, Tensor]:
        """down as (K, K, S, d_in/K) and up as (K, d_out/K, K, S): output part first."""
        K = self.blocks
        return params["down"].view(K, K, self.size // K, -1), params["up"].view(K, -1, K, self.size // K)

    def delta(self, u: Tensor | Heads | None, params: Params, training: bool) -> Tensor:
        assert isinstance(u, Tensor)
        down_KKSU, up_KDKS = self._blocks(params)
        u_KU = cut(F.dropout(u, self.dropout, training), self.blocks, -1)
        # Autocast is off in the backward pass, and a compiled graph decides what it keeps.
        plain = torch.is_autocast_enabled(u.device.type) or torch.compiler.is_compiling()
        z_KKS = _of_parts(u_KU, down_KKSU) if plain else _OfParts.apply(u_KU, down_KKSU)  # type: ignore[no-untyped-call]
        return torch.einsum("...ijs,idjs->...id", z_KKS, up_KDKS).flatten(-2)

    def matrix(self, params: Params) -> Tensor:
        down_KKSU, up_KDKS = self._blocks(params)
        return torch.einsum("idjs,ijsu->idju", up_KDKS, down_KKSU).flatten(2).flatten(0, 1)

    @property
    def starts_at_zero(self) -> bool:
        return True


def _of_parts(u_KU: Tensor, down_KKSU: Tensor) -> Tensor:
    """Every block's down-map of its input part, (..., K, K, S)."""
    return torch.einsum("...ju,ijsu->...ijs", u_KU, down_KKSU)


class _OfParts(torch.autograd.Function):
    """`_of_parts`. Its batched product needs another layout of `down`, which the backward pass makes again: it is not kept."""

    @staticmethod
    def forward(ctx: Any, u_KU: Tensor, down_KKSU: Tensor) -> Tensor:
        ctx.save_for_backward(u_KU, down_KKSU)
        return _of_parts(u_KU, down_KKSU)

    @staticmethod
    def backward(ctx: Any, grad_KKS: Tensor) -> tuple[Tensor | None, Tensor | None]:
        u_KU, down_KKSU = ctx.saved_tensors
        of_u, of_down = ctx.needs_input_grad
        grad_u = torch.einsum("...ijs,ijsu->...ju", grad_KKS, down_KKSU) if of_u else None
        grad_down = torch.einsum("...ijs,...ju->ijsu", grad_KKS, u_KU) if of_down else None
        return grad_u, grad_down
