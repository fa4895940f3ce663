"""What is made of an insertion's tensors alone, kept while a KV cache is filled token by token.

A KV cache holds what earlier passes computed with these tensors, so the passes that go on with it compute with the same
ones. What a prefix, a rotation or a reparametrisation makes of them need not be made again for every token.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import torch
from torch import Tensor

T = TypeVar("T")


class Kept:
    """Results by name, of one insertion and one KV cache.

    `numbers` bounds how many numbers are kept under one name; what has the storage of `tensors` does not count.
    """

    def __init__(self, numbers: int) -> None:
        self.numbers = numbers
        self._made: dict[str, Any] = {}
        self._of: list[tuple[Tensor, int, int]] = []  # the tensors, where they lie, and their versions

    def get(self, name: str, cached: int | None, tensors: Sequence[Tensor], make: Callable[[], T]) -> T:
        """What `make` makes of `tensors`: kept if this pass goes on with a KV cache, and they are as they were.

        `cached` is how many tokens the cache of this pass holds; None: there is none, or it does not say. A pass that records
        gradients forgets all: fused optimisers change tensors without counting a version. Nothing is kept of tensors made in
        inference mode, which have none.
        """
        if torch.compiler.is_compiling():
            return make()
        if torch.is_grad_enabled() or cached is None:
            self.forget()
            return make()
        if not (cached and self._unchanged(tensors)):
            self.forget()
            if any(tensor.is_inference() for tensor in tensors):
                return make()
            self._of = [(tensor, tensor.data_ptr(), tensor._version) for tensor in tensors]
        if name in self._made:
            kept: T = self._made[name]
            return kept
        made = make()
        if self._new_numbers(made) < self.numbers:
            self._made[name] = made
        return made

    def __getstate__(self) -> dict[str, Any]:
        return {"numbers": self.numbers, "_made": {}, "_of": []}  # a copy keeps nothing yet

    def forget(self) -> None:
        """Keep nothing."""
        if self._made or self._of:
            self._made, self._of = {}, []

    def _unchanged(self, tensors: Sequence[Tensor]) -> bool:
        if len(tensors) != len(self._of):
            return False
        for now, (before, place, version) in zip(tensors, self._of, strict=True):
            if now is not before or now.data_ptr() != place or now._version != version:
                return False
        return True

    def _new_numbers(self, made: Any) -> int:
        known = {tensor.untyped_storage().data_ptr() for tensor, _, _ in self._of}
        values = made.values() if isinstance(made, dict) else made
        return sum(one.numel() for one in values if one.untyped_storage().data_ptr() not in known)
