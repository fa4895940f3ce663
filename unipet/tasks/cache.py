"""Tokenised splits on disk: one safetensors file per content, tokenizer and settings. Safe for concurrent jobs.

`unipet/output/cache_place.py` chooses the directory. Files are written atomically and never changed.
"""

from __future__ import annotations

import contextlib
import json
from pathlib import Path

from unipet.output.files import remove_leftovers, write_bytes_atomic
from unipet.tasks.encoded import EncodedRows


def read_cached(directory: Path | None, key: str) -> EncodedRows | None:
    """The rows that `write_cached` stored under `key`; None if there are none, or if the file cannot be read."""
    if directory is None:
        return None
    path = _path(directory, key)
    if not path.is_file():
        return None
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="numpy") as file:
            facts = json.loads(file.metadata()["facts"])
            return EncodedRows.restored({name: file.get_tensor(name) for name in file.keys()}, facts)  # noqa: SIM118
    except (SafetensorError, OSError, KeyError, TypeError, ValueError):
        return None  # a damaged file is replaced


def write_cached(directory: Path | None, key: str, rows: EncodedRows) -> None:
    """Store `rows` under `key`, atomically. If the directory cannot be written to, nothing is stored."""
    if directory is None:
        return
    from safetensors.numpy import save

    path = _path(directory, key)
    tensors, facts = rows.stored()
    with contextlib.suppress(OSError):
        path.parent.mkdir(parents=True, exist_ok=True)
        remove_leftovers(path.parent)
        write_bytes_atomic(path, save(tensors, metadata={"facts": json.dumps(facts)}))


def _path(directory: Path, key: str) -> Path:
    return directory / "tokenised" / f"{key[:32]}.safetensors"
