"""`random_bases`: a full-rank sum of frozen random low-rank bases with trained diagonals (RandLoRA: Albert et al. 2025).

Shapes: R size (the rank of one basis), N number of bases, K = N R, M the smaller and X the larger width of a site.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from torch import Generator, Tensor

from unipet.calculus.functions.base import LinearMap, Params, Slots, TensorSpec, Widths
from unipet.calculus.functions.factors import uniform
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

    def shared_frozen(self, widths: Sequence[Widths], generator: Generator) -> Mapping[str, Tensor]:
        unit = math.sqrt(3.0)  # U(-√3, √3) has variance one
        narrow = max(min(one.u, one.h) for one in widths)
        wide, bases = max(max(one.u, one.h) for one in widths), max(self._bases(one) for one in widths)
        return {
            "A": uniform((self.size, narrow), unit, generator),
            "B": uniform((wide, bases, self.size), unit, generator),
        }

    def start(self, params: Params, weight_DU: Tensor | None) -> None:
        params["outer"].fill_(1 / max(params["outer"].shape))

    def generate(self, params: Params, shared: Params, widths: Widths) -> Params:
        narrow, wide = sorted((widths.u, widths.h))
        scaled_RNM = params["inner"].unsqueeze(-1) * shared["A"][:, None, :narrow] * params["outer"]
        rows_KM = (scaled_RNM if self.released_order else scaled_RNM.transpose(0, 1)).flatten(0, 1)
        columns_XK = shared["B"][:wide, : self._bases(widths)].flatten(1)
        left, right = (columns_XK, rows_KM) if widths.h >= widths.u else (rows_KM.T, columns_XK.T)
        return {**params, "left": left, "right": right}

    def matrix(self, params: Params) -> Tensor:
        return params["left"] @ params["right"]

    @property
    def starts_at_zero(self) -> bool:
        return True
