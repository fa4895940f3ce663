"""`wavelet`: the weight's update is the inverse wavelet transform of a few trained coefficients (WaveFT: Bilican et al. 2025)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from unipet.calculus.functions.base import Params, Widths
from unipet.calculus.functions.sparse import Scattered
from unipet.calculus.options import option


@dataclass(frozen=True)
class Wavelet(Scattered):
    """Δ = inverse Haar transform, one level, of a grid with `size` trained coefficients at places drawn from `seed`.

    The grid is padded to even sides. Its quarters are the coefficients of the averages (top left) and of the differences
    along rows' order (top right: between rows; bottom left: between columns; bottom right: both), as in peft. A weight
    with fewer entries than `size` trains all.
    """

    size: int = option(2592, low=1)

    def sizes(self, widths: Sequence[Widths]) -> Sequence[int]:
        return range(1, max(one.u * one.h for one in widths) + 1)

    def count(self, widths: Widths) -> int:
        return self.size

    def matrix(self, params: Params) -> Tensor:
        grid = self.grid(params)
        rows, columns = grid.shape
        padded = F.pad(grid, (0, columns % 2, 0, rows % 2))
        left, right = padded.chunk(2, 1)
        top, bottom = torch.stack([left + right, left - right], dim=1).chunk(2, 0)  # each (rows/2, 2, columns/2)
        quad = torch.stack([top + bottom, top - bottom], dim=-1)  # (rows/2, 2, columns/2, 2)
        return quad.flatten(2).flatten(0, 1)[:rows, :columns] / 2
