"""Which tensors training has changed: a hash of each tensor before training, compared with one after."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from unipet.errors import UnipetError
from unipet.training.resume_point import State

_PIECE = 2**18  # numbers that are hashed at a time: two megabytes, whatever the tensor's size
_BITS = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}  # bytes of a number -> an integer of its bits
_FACTOR = -7046029254386353131  # odd, its bits without a pattern (2⁶⁴ over the golden ratio, as a signed number)


class Movement:
    """Stores a hash of eight bytes for each tensor, to find out later whether its values have changed."""

    def __init__(self, tensors: Mapping[str, Tensor]) -> None:
        self._tensors = dict(tensors)
        self._before = marks(self._tensors)

    def state(self) -> State:
        """The marks of before training."""
        return State({"before": self._before})

    def resume(self, state: State) -> None:
        """Compare with those."""
        self._before = state.values["before"]

    def changed(self) -> list[str]:
        """The names of the tensors that are no longer what they were."""
        return [name for name, mark in marks(self._tensors).items() if mark != self._before[name]]

    def check(self, owned: list[str], lr: float, steps: int) -> list[str]:
        """The names of the tensors that have not changed at all.

        Raises `UnipetError` if none of the method's tensors, `owned`, has changed. A method without tensors is fine.
        """
        changed = set(self.changed())
        still = sorted(self._tensors.keys() - changed)
        first = [name for name in owned or self._tensors if name in still]
        if len(first) < len(owned or self._tensors):
            return still
        raise UnipetError(
            f"training: {steps} steps changed none of {len(first)} trainable tensors ({', '.join(first[:3])}"
            f"{', ...' if len(first) > 3 else ''}), so the method learned nothing. The learning rate is too small for "
            f"the precision of these tensors: raise optim.lr (it is {lr:g})."
        )


def marks(tensors: Mapping[str, Tensor]) -> dict[str, int]:
    """A number of 64 bits for each tensor, which depends on every bit of it."""
    marks = [_mark(tensor.detach()).cpu() for tensor in tensors.values()]
    return dict(zip(tensors, [int(mark) for mark in marks], strict=True))


def _mark(tensor: Tensor) -> Tensor:
    """A 64-bit hash that depends on every bit and its position; 0.0 and -0.0 are equal."""
    total = torch.zeros((), dtype=torch.int64, device=tensor.device)
    factors = (torch.arange(1, min(_PIECE, tensor.numel()) + 1, device=tensor.device) * _FACTOR) | 1
    for piece in tensor.flatten().split(_PIECE):
        bits = (piece + 0).view(_BITS[piece.element_size()]).long()
        total = total * _FACTOR + (bits * factors[: len(bits)]).sum()
    return total
