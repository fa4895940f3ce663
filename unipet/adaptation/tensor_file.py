"""A safetensors file from anybody: its header is checked, and says what there is, before a tensor is made."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from unipet.errors import UnipetError
from unipet.output.json_reader import MIB, own_file, parse_json

HEADER = 16 * MIB  # bytes at most
DIMENSIONS = 8  # of one tensor
SIZES = {"F64": 8, "F32": 4, "F16": 2, "BF16": 2}  # bytes of one number, of the formats that are read
WHOLE = {"I64": 8, "I32": 4, "I16": 2, "U8": 1}  # and of whole numbers, where places may be stored
#: As safetensors calls torch's number formats.
NAMES = {torch.float64: "F64", torch.float32: "F32", torch.float16: "F16", torch.bfloat16: "BF16"}


@dataclass(frozen=True)
class Stored:
    """One tensor as a header has it."""

    dtype: str
    shape: tuple[int, ...]

    @property
    def values(self) -> int:
        """How many numbers it holds."""
        return math.prod(self.shape)


def header_of(path: Path, sizes: Mapping[str, int] = SIZES) -> dict[str, Stored]:
    """The tensors of a file by name, from its header alone. Raises UnipetError unless it describes exactly this file, with
    numbers of these formats only."""
    own_file(path)
    try:
        size = path.stat().st_size
        with open(path, "rb") as file:
            length = int.from_bytes(file.read(8), "little")
            if not 2 <= length <= min(HEADER, size - 8):
                raise UnipetError(
                    f"{path} is corrupted: its header would have {length:,} bytes, the file has {size:,}."
                )
            raw = file.read(length)
    except OSError as error:
        raise UnipetError(f"{path}: cannot be read ({error.strerror or error}).") from None
    header = parse_json(raw, str(path))
    if not isinstance(header, dict):
        raise UnipetError(f"{path} is corrupted: its header is no mapping.")
    found: dict[str, Stored] = {}
    spans = []
    for name, entry in header.items():
        if name != "__metadata__":
            found[name], span = _entry(path, name, entry, sizes)
            spans.append(span)
    end = 0
    for first, last in sorted(spans):
        if first != end:
            raise UnipetError(f"{path} is corrupted: its tensors overlap, or leave gaps.")
        end = last
    if end != size - 8 - length:
        raise UnipetError(
            f"{path} is corrupted: its header describes {end:,} bytes of numbers, it has {size - 8 - length:,}."
        )
    return found


def _entry(path: Path, name: str, entry: Any, sizes: Mapping[str, int]) -> tuple[Stored, tuple[int, int]]:
    """One tensor and the bytes it takes."""
    shown = name if len(name) <= 120 else f"{name[:117]}..."
    if not isinstance(entry, dict) or entry.keys() != {"dtype", "shape", "data_offsets"}:
        raise UnipetError(f"{path} is corrupted: {shown} needs dtype, shape and data_offsets in its header.")
    dtype, shape, offsets = entry["dtype"], entry["shape"], entry["data_offsets"]
    if dtype not in sizes:
        raise UnipetError(
            f"{path}: {shown} holds numbers of type {str(dtype)[:20]!r}. Types that are read: {', '.join(sizes)}."
        )
    if not _whole(shape) or len(shape) > DIMENSIONS or not _whole(offsets) or len(offsets) != 2:
        raise UnipetError(f"{path} is corrupted: the shape or the place of {shown} is none.")
    stored = Stored(dtype, tuple(shape))
    if offsets[1] - offsets[0] != stored.values * sizes[dtype]:
        raise UnipetError(
            f"{path} is corrupted: {shown} of shape {shape} does not fill its {offsets[1] - offsets[0]:,} bytes."
        )
    return stored, (offsets[0], offsets[1])


def _whole(numbers: Any) -> bool:
    return isinstance(numbers, list) and all(type(number) is int and 0 <= number < 2**62 for number in numbers)


def finite_tensors(data: bytes, source: Path) -> dict[str, Tensor]:
    """The tensors of a file whose header was checked. Raises UnipetError for one that is damaged, and for values that are not
    finite."""
    import safetensors
    import safetensors.torch

    try:
        tensors = safetensors.torch.load(data)
    except safetensors.SafetensorError as error:
        raise UnipetError(f"{source} is corrupted: {error}.") from error
    for name, tensor in tensors.items():
        if not bool(tensor.isfinite().all()):
            raise UnipetError(f"{source}: {name} holds values that are not finite numbers, so it is of no use.")
    return tensors
