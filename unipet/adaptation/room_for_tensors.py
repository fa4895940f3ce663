"""How many numbers an insertion would hold, before any is made: more than memory has, or than a file could fill, is an error."""

from __future__ import annotations

from dataclasses import replace

import torch

from unipet.calculus.functions.base import Widths
from unipet.calculus.method import InsertionSpec
from unipet.errors import UnipetError
from unipet.output.machine_memory import available_gib

SLACK = 2**22  # numbers: what is a little more than the file has is compared by name, which says more


def check_room(
    spec: InsertionSpec, widths: list[Widths], dtype: torch.dtype, device: torch.device, most: int | None
) -> None:
    """Raise UnipetError for an insertion with more numbers than this machine's memory can hold, and with more than `most`, which
    is how many a saved adapter brings."""
    per_site: dict[Widths, int] = {}
    count = 0
    for width in (replace(width, number=0) for width in widths):
        if width not in per_site:
            per_site[width] = _numbers(spec, width)
        count += per_site[width]
    key = f"method.insertions.{spec.name}"
    if most is not None and count > most + SLACK:
        raise UnipetError(f"{key} needs {count:,} numbers, and the file holds {most:,}. They do not belong together.")
    gib = count * dtype.itemsize / 2**30
    if device.type != "meta" and gib > 1 and gib > (free := _free_gib(device)):
        raise UnipetError(
            f"{key} would take {gib:,.1f} GiB ({count:,} numbers at {len(widths)} sites), and {free:,.1f} GiB are free. Make its "
            "size smaller, or choose fewer sites."
        )


def _numbers(spec: InsertionSpec, width: Widths) -> int:
    mixture, count = spec.mixture, 0
    try:
        slots = spec.function.slots(width)
    except UnipetError:
        return 0  # a size that does not fit here: building says so, and where
    for slot, tensors in slots.items():
        copies = mixture.experts if mixture is not None and slot not in mixture.share else 1
        count += copies * sum(tensor.count for tensor in tensors.values())
    return count


def _free_gib(device: torch.device) -> float:
    return torch.cuda.mem_get_info(device)[0] / 2**30 if device.type == "cuda" else available_gib()
