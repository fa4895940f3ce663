"""How many numbers a method would hold, before any is made: more than memory has, or than a file could fill, is an error."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial

import torch

from unipet.calculus.functions.base import Slots, Widths
from unipet.calculus.method import InsertionSpec
from unipet.calculus.mixture.expert_functions import ExpertFunctions
from unipet.errors import UnipetError
from unipet.output.machine_memory import available_gib

UNTHINKABLE = 10**18  # numbers: more than any memory has, and still a number that a float can be
ALWAYS_GIB = 1.0  # nobody asks how much memory is free for less
SLACK = 2**22  # numbers: what is a little more than the file has is compared by name, which says more


class Room:
    """Counts what the insertions of one method hold, one after the other. `most` is how many numbers a saved adapter brings."""

    def __init__(self, dtype: torch.dtype, device: torch.device, most: int | None) -> None:
        self._dtype, self._device, self._most = dtype, device, most
        self._gib = 0.0

    def take(self, spec: InsertionSpec, widths: list[Widths]) -> None:
        """Raise UnipetError for an insertion with more numbers than this machine's memory can hold beside those before it, or
        than the saved adapter brings."""
        key = f"method.insertions.{spec.name}"
        trained, frozen = _trained(spec, widths), spec.function.frozen_count(widths) if widths else 0
        if self._most is not None and trained > self._most + SLACK:
            raise UnipetError(
                f"{key} needs {trained:,} numbers, and the file holds {self._most:,}. They do not belong together."
            )
        count = frozen if self._device.type == "meta" else trained + frozen  # what is frozen is made there as well
        gib = min(count, UNTHINKABLE) * self._dtype.itemsize / 2**30
        self._gib += gib
        if self._gib > ALWAYS_GIB and self._gib > (free := _free_gib(self._device)):
            before = self._gib - gib
            beside = f" beside the {before:,.1f} GiB of the insertions before it" if before > ALWAYS_GIB / 10 else ""
            raise UnipetError(
                f"{key} would take {gib:,.1f} GiB ({count:,} numbers at {len(widths)} sites){beside}, and "
                f"{free:,.1f} GiB are free. Make its size smaller, or choose fewer sites."
            )


def _trained(spec: InsertionSpec, widths: list[Widths]) -> int:
    """Numbers in the slots of all sites, of every expert, and in what the sites share."""
    mixture = spec.mixture
    own = isinstance(spec.function, ExpertFunctions)  # whose slots are those of all experts
    per_site: dict[Widths, int] = {}
    count = 0
    for width in (replace(width, number=0) for width in widths):
        if width not in per_site:
            copies = 1 if mixture is None or own else mixture.experts
            shared = [] if mixture is None else mixture.share
            slots = _counts(partial(spec.function.slots, width))
            per_site[width] = sum(numbers * (1 if slot in shared else copies) for slot, numbers in slots.items())
        count += per_site[width]
    return count + (sum(_counts(partial(spec.function.shared, widths)).values()) if widths else 0)


def _counts(slots: Callable[[], Slots]) -> dict[str, int]:
    """Slot -> numbers; nothing for a size that does not fit here: building says so, and where."""
    try:
        return {slot: sum(tensor.count for tensor in tensors.values()) for slot, tensors in slots().items()}
    except UnipetError:
        return {}


def _free_gib(device: torch.device) -> float:
    return torch.cuda.mem_get_info(device)[0] / 2**30 if device.type == "cuda" else available_gib()
