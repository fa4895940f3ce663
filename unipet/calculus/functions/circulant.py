"""`circulant`: the weight's update is made of circulant blocks (C3A: Chen et al. 2025).

Shapes: B width of a block (the size), O and I blocks along output and input.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from unipet.calculus.functions.base import Heads, LinearMap, Params, Slots, TensorSpec, Widths
from unipet.calculus.functions.blocks import cut, divisors, must_divide
from unipet.calculus.options import option


@dataclass(frozen=True)
class Circulant(LinearMap):
    """Block (o, i) is C with C[t, n] = kernel[o, i, (n - t) mod B] / d_in; slot `kernel` (d_out/B, d_in/B, B).

    Computed by a fast Fourier transform in the tensors' own precision; the gradient is the true one (the official code's
    gradient of the kernel is not). Starts at zero, or at N(0, 0.02) with `init: bert`; the official code starts it at random.
    """

    size: int = option(256, low=1)
    init: str = option("zeros", choices=("zeros", "bert"))

    def slots(self, widths: Widths) -> Slots:
        must_divide("size", self.size, input=widths.u, output=widths.h)
        return {"kernel": {"": TensorSpec((widths.h // self.size, widths.u // self.size, self.size), "table")}}

    def sizes(self, widths: Sequence[Widths]) -> Sequence[int]:
        return divisors(width for one in widths for width in (one.u, one.h))

    def delta(self, u: Tensor | Heads | None, params: Params, training: bool) -> Tensor:
        assert isinstance(u, Tensor)
        kernel_OIB = params["kernel"]
        u_IB = cut(u.to(kernel_OIB.dtype), -1, self.size)
        # y[t] = Σₙ k[n - t] x[n] is a correlation, so the kernel's spectrum is conjugated.
        spectrum = torch.einsum("oif,...if->...of", torch.fft.rfft(kernel_OIB).conj(), torch.fft.rfft(u_IB))
        delta: Tensor = torch.fft.irfft(spectrum, n=self.size).flatten(-2) / u.shape[-1]
        return delta

    def cheaper_as_matrix(self, tokens: int, widths: Widths, training: bool) -> bool:
        # Measured: a transform of a token takes as long as its product with a matrix about a thousand wide.
        return min(widths.u, widths.h) < min(1024, 4 * tokens)

    def matrix(self, params: Params) -> Tensor:
        kernel_OIB = params["kernel"]
        steps = torch.arange(self.size, device=kernel_OIB.device)
        turned_TN = (steps - steps.unsqueeze(1)) % self.size
        shape = (*kernel_OIB.shape[:2], self.size, self.size)
        blocks_OITN = kernel_OIB.unsqueeze(2).expand(shape).gather(3, turned_TN.expand(shape))
        return blocks_OITN.transpose(1, 2).flatten(2).flatten(0, 1) / (kernel_OIB.shape[1] * self.size)

    @property
    def starts_at_zero(self) -> bool:
        return self.init == "zeros"
