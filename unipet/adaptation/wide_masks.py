"""Attention masks with columns in front that all queries see, each made once for all layers of a pass.

transformers makes one mask for all layers, or none where it means "causal".
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from weakref import ref

import torch
from torch import Tensor
from torch.nn import functional as F


class WideMasks:
    """Those of the masks that are alive, and of the last one that was not given but meant."""

    def __init__(self) -> None:
        self._wide: dict[tuple[Any, ...], tuple[ref[Tensor], int, Tensor]] = {}  # of which mask, its version
        self._meant: tuple[tuple[Any, ...], Tensor] | None = None

    def of(self, mask: Tensor, length: int) -> Tensor:
        """`mask` with `length` columns in front."""
        if torch.compiler.is_compiling() or mask.is_inference():  # which does not tell whether somebody changed it
            return _widened(mask, length)
        key = (id(mask), length, torch.is_inference_mode_enabled())
        known = self._wide.get(key)
        if known is not None and known[0]() is mask and known[1] == mask._version:
            return known[2]
        wide = _widened(mask, length)
        self._wide[key] = ref(mask, lambda gone: self._wide.pop(key, None)), mask._version, wide
        return wide

    def meant(self, make: Callable[[], Tensor], length: int, *asked: Any) -> Tensor:
        """The mask that is meant where none is given, with `length` columns in front; `asked` says which one `make` makes."""
        if torch.compiler.is_compiling():
            return _widened(make(), length)
        key, known = (*asked, length, torch.is_inference_mode_enabled()), self._meant
        if known is None or known[0] != key:
            known = self._meant = key, _widened(make(), length)
        return known[1]

    def __getstate__(self) -> dict[str, Any]:
        return {"_wide": {}, "_meant": None}  # a copy has seen no mask


def _widened(mask: Tensor, length: int) -> Tensor:
    return F.pad(mask, (length, 0), value=True if mask.dtype == torch.bool else 1 if mask.dim() == 2 else 0)
