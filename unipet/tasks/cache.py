"""Tokenised splits on disk: one safetensors file per content, tokenizer and settings; safe under concurrent jobs.

The directory is that of unipet/output/cache_place.py. Files are written whole or not at all and never change.
"""

from __future__ import annotations

import contextlib
import json
from pathlib import Path

from unipet.output.files import write_bytes_atomic
from unipet.tasks.encoded import EncodedRows


def read_cached(directory: Path | None, key: str) -> EncodedRows | None:
    """What `write_cached` left under `key`; None when there is nothing readable."""
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
        return None  # a damaged file is made again


def write_cached(directory: Path | None, key: str, rows: EncodedRows) -> None:
    """Keep `rows` under `key`, atomically; a directory that cannot be written to costs the cache, not the run."""
    if directory is None:
        return
    from safetensors.numpy import save

    path = _path(directory, key)
    tensors, facts = rows.stored()
    with contextlib.suppress(OSError):
        path.parent.mkdir(parents=True, exist_ok=True)
        write_bytes_atomic(path, save(tensors, metadata={"facts": json.dumps(facts)}))


def _path(directory: Path, key: str) -> Path:
    return directory / "tokenised" / f"{key[:32]}.safetensors"
