"""Loss scaling (Micikevicius et al. 2018, §3.2): float16 has no numbers below 6e-8, and gradients that are smaller would be 0.

The loss is multiplied by a power of two before the backward pass, and the gradients of the float32 parameters are divided by it.
Where a gradient overflows, the same step is computed again at half the scale, with the same random draws. So no step is
left out, and the schedule, the order of the data and the number of steps are those of every other precision. (torch's GradScaler
leaves such steps out instead.)
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from unipet.training.resume_point import State

FIRST, LARGEST = 2.0**16, 2.0**24  # float16 ends at 65504; a larger scale finds nothing more
PATIENCE = 200  # steps without overflow after which the scale is doubled


class Overflow(ArithmeticError):
    """Gradients are not finite even without scaling."""


class LossScale:
    """The scale, and how many steps have gone well with it."""

    def __init__(self) -> None:
        self.scale, self._good = FIRST, 0

    def step(
        self, gradients: Callable[[], Tensor], tensors: Sequence[Tensor], again: Callable[[], None] = lambda: None
    ) -> Tensor:
        """`gradients` adds the gradients of a step to `tensors`, whose losses it multiplies by `scale`. Afterwards they have
        the true gradients, all finite. Returns what `gradients` returns.

        `again` is called before a step is computed once more. Raises `Overflow` if no scale from 1 on will do.
        """
        while True:
            result = gradients()
            found = [tensor.grad for tensor in tensors if tensor.grad is not None]
            if _all_finite(found):
                break
            self.scale, self._good = self.scale / 2, 0
            if self.scale < 1:
                raise Overflow
            for tensor in tensors:
                tensor.grad = None
            again()
        for gradient in found:
            gradient /= self.scale  # a power of two: exact
        self._good += 1
        if self._good == PATIENCE:
            self.scale, self._good = min(self.scale * 2, LARGEST), 0
        return result

    def state(self) -> State:
        """The scale, and the steps since it last changed."""
        return State({"scale": self.scale, "good": self._good})

    def resume(self, state: State) -> None:
        """Go on with that scale."""
        self.scale, self._good = state.values["scale"], state.values["good"]


def _all_finite(gradients: Sequence[Tensor]) -> bool:
    """One synchronisation with the device, whatever the number of gradients."""
    if not gradients:
        return True
    return bool(torch.stack([gradient.isfinite().all() for gradient in gradients]).all())
