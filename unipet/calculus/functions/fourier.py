"""`fourier`: the weight's update is the inverse Fourier transform of a few trained coefficients (FourierFT: Gao et al. 2024)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from unipet.calculus.functions.base import Params, Widths
from unipet.calculus.functions.sparse import Scattered
from unipet.calculus.options import option


@dataclass(frozen=True)
class Fourier(Scattered):
    """Δ = Re(ifft2(F)), F a spectrum with `size` trained real coefficients at places drawn from `seed`, zero elsewhere.

    ifft2 divides by d_out·d_in, so the scaling is large (Gao et al. 2024 use 150 and more). Their coefficients
    start at N(0, 1), `init: torch`; from zeros the model starts as the base model. A weight with fewer entries than
    `size` trains all.
    """

    size: int = option(1000, low=1)

    def sizes(self, widths: Sequence[Widths]) -> Sequence[int]:
        return range(1, max(one.u * one.h for one in widths) + 1)

    def count(self, widths: Widths) -> int:
        return self.size

    def matrix(self, params: Params) -> Tensor:
        values_K, (rows, columns) = params["values"], params["shape"].shape
        # Complex numbers from the start: the transform would copy a grid of real ones, with all its zeros, to make it so.
        pairs = values_K.new_zeros(rows * columns, 2).scatter_(0, params["places"][:, None], values_K[:, None])
        matrix_DU: Tensor = torch.fft.ifft2(torch.view_as_complex(pairs).view(rows, columns)).real
        return matrix_DU
