"""What is made of an insertion's tensors alone, kept while a KV cache is filled token by token.

A KV cache holds what earlier passes computed with these tensors, so the passes that go on with it compute with the same
ones. What a prefix, a rotation or a reparametrisation makes of them need not be made again for every token.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, TypeVar
from weakref import ref

import torch
from torch import Tensor

from unipet.calculus.weights import quantised

if TYPE_CHECKING:
    from unipet.calculus.places import Place

T = TypeVar("T")


class Kept:
    """Results by name, of one insertion and one KV cache.

    `numbers` bounds how many numbers are kept under one name; what has the storage of `tensors` does not count.
    """

    def __init__(self, numbers: int) -> None:
        self.numbers = numbers
        self._made: dict[str, Any] = {}
        self._of: list[tuple[Tensor, int, int]] = []  # the tensors, where they lie, and their versions
        self._base: list[tuple[ref[Tensor], int, int]] = []  # likewise, of the base model

    def get(
        self,
        name: str,
        cached: int | None,
        tensors: Sequence[Tensor],
        make: Callable[[], T],
        base: Sequence[Tensor] = (),
    ) -> T:
        """What `make` makes of `tensors` and of those of the `base` model: kept if this pass goes on with a KV cache, and they
        are as they were.

        `cached` is how many tokens the cache of this pass holds; None: there is none, or it does not say. A pass that records
        gradients forgets all: fused optimisers change tensors without counting a version. Nothing is kept of tensors made in
        inference mode, which have none, nor of quantised ones. Tensors of the base model are not kept alive: weights that are
        loaded layer by layer go away in between.
        """
        if torch.is_grad_enabled() or cached is None:
            self.forget()
            return make()
        if cached and self._unchanged(tensors) and not ((base or self._base) and self._base_changed(base)):
            if name in self._made:
                kept: T = self._made[name]
                return kept
        else:
            self.forget()
            if any(tensor.is_inference() for tensor in (*tensors, *base)) or any(quantised(one) for one in base):
                return make()
            self._of = [(tensor, tensor.data_ptr(), tensor._version) for tensor in tensors]
            self._base = [(ref(tensor), tensor.data_ptr(), tensor._version) for tensor in base]
        made = make()
        if self._new_numbers(made) < self.numbers:
            self._made[name] = made
        return made

    def still(self, name: str, places: Sequence[Place]) -> Any:
        """What is kept under this name, if the tensors at `places`, of which it was made, are as they were; else None."""
        kept = None if self._base else self._made.get(name)
        if kept is None or len(places) != len(self._of):
            return None
        # As `_unchanged`, without the calls, which every layer of every generated token would make.
        for (_, tensors, own), (before, place, version) in zip(places, self._of, strict=True):
            now = tensors[own]
            if now is not before or now.data_ptr() != place or now._version != version:
                return None
        return kept

    def __getstate__(self) -> dict[str, Any]:
        return {"numbers": self.numbers, "_made": {}, "_of": [], "_base": []}  # a copy keeps nothing yet

    def forget(self) -> None:
        """Keep nothing."""
        if self._made or self._of:
            self._made, self._of, self._base = {}, [], []

    def _unchanged(self, tensors: Sequence[Tensor]) -> bool:
        if len(tensors) != len(self._of):
            return False
        for now, (before, place, version) in zip(tensors, self._of, strict=True):
            if now is not before or now.data_ptr() != place or now._version != version:
                return False
        return True

    def _base_changed(self, base: Sequence[Tensor]) -> bool:
        if len(base) != len(self._base):
            return True
        for now, (known, place, version) in zip(base, self._base, strict=True):
            if now is not known() or now.data_ptr() != place or now._version != version:
                return True
        return False

    def _new_numbers(self, made: Any) -> int:
        known = {tensor.untyped_storage().data_ptr() for tensor, _, _ in self._of}
        values = made.values() if isinstance(made, dict) else made
        return sum(one.numel() for one in values if one.untyped_storage().data_ptr() not in known)
