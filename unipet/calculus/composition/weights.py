"""What a composition may read of a linear site: x, the base weight and bias, f's matrix, and s.

Shapes: D width of h, I width of the linear map's input.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from unipet.calculus.functions.product import column


@dataclass(frozen=True)
class Weights:
    """At a linear site, what a composition may need of it: x, the base weight and bias, f's matrix, and s."""

    x: Tensor | None
    weight_DI: Tensor
    bias_D: Tensor | None
    matrix_DI: Tensor | None
    factor: Tensor | float

    @property
    def scaled_DI(self) -> Tensor:
        """s times f's matrix."""
        assert self.matrix_DI is not None
        return column(self.factor) * self.matrix_DI

    def double(self) -> Weights:
        """The same in float64, for folding."""
        tensors = (self.x, self.weight_DI, self.bias_D, self.matrix_DI, self.factor)
        return Weights(*(one.double() if isinstance(one, Tensor) else one for one in tensors))  # type: ignore[arg-type]
