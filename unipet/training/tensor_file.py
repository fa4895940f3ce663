"""A safetensors file written tensor by tensor: the library's own writer first makes a copy of all of them in memory."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import IO

import torch
from torch import Tensor

_TYPES = {
    torch.float64: "F64",
    torch.float32: "F32",
    torch.float16: "F16",
    torch.bfloat16: "BF16",
    torch.int64: "I64",
    torch.int32: "I32",
    torch.int16: "I16",
    torch.int8: "I8",
    torch.uint8: "U8",
    torch.bool: "BOOL",
}


def write_tensors(file: IO[bytes], tensors: Mapping[str, Tensor]) -> str:
    """Write `tensors` as safetensors; the sha256 of what was written."""
    ordered = sorted(
        tensors.items(), key=lambda named: -named[1].element_size()
    )  # so that each begins at a multiple of it
    entries, at = {}, 0
    for name, tensor in ordered:
        end = at + tensor.numel() * tensor.element_size()
        entries[name] = {"dtype": _TYPES[tensor.dtype], "shape": list(tensor.shape), "data_offsets": [at, end]}
        at = end
    header = json.dumps(entries, separators=(",", ":")).encode()
    header += b" " * (-len(header) % 8)
    digest = hashlib.sha256()

    def put(piece: bytes | memoryview) -> None:
        digest.update(piece)
        file.write(piece)

    put(len(header).to_bytes(8, "little") + header)
    for _, tensor in ordered:
        if tensor.numel():
            put(tensor.detach().to("cpu").contiguous().flatten().view(torch.uint8).numpy().data)
    return digest.hexdigest()


def read_tensors(path: Path, checksum: str) -> dict[str, Tensor]:
    """The tensors of a file whose sha256 is `checksum`. Raises OSError, or ValueError where it is another."""
    import safetensors.torch

    content = path.read_bytes()
    if hashlib.sha256(content).hexdigest() != checksum:
        raise ValueError(f"the checksum of {path.name} is another")
    read: dict[str, Tensor] = safetensors.torch.load(content)
    return read
