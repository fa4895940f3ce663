"""Checksums of files, computed again only when a file has changed."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from pathlib import Path

from unipet.output.files import remove_leftovers, write_bytes_atomic

_SMALL = 2**24  # bytes; reading a smaller file is as fast as looking up its checksum

_KNOWN: dict[Path, tuple[list[int], str]] = {}


def checksum(path: Path, cache: Path | None = None) -> str:
    """The sha256 of a file, 64 hexadecimal digits. Raises OSError if the file cannot be read.

    A large file is read again only if its size, its times or its place on the disk have changed. `cache` is a directory
    that stores checksums for other processes.
    """
    path = path.resolve()
    state = file_state(path)
    if state[0] < _SMALL:
        return _read(path)
    if _KNOWN.get(path, ([], ""))[0] != state:
        entry = None if cache is None else cache / f"{hashlib.sha256(str(path).encode()).hexdigest()[:32]}.json"
        digest = _remembered(entry, state) or _read(path)
        _KNOWN[path] = (state, digest)
        if entry is not None:
            _remember(entry, state, digest)
    return _KNOWN[path][1]


def file_state(path: Path | str) -> list[int]:
    """Numbers of which at least one changes with the content: a copy that keeps its mtime still has another ctime.

    Raises OSError if there is no such file."""
    status = os.stat(path)
    return [status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino, status.st_dev]


def _read(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _remembered(entry: Path | None, state: list[int]) -> str | None:
    if entry is None:
        return None
    try:
        found = json.loads(entry.read_text(encoding="utf-8"))
        return str(found["sha256"]) if found["state"] == state else None
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _remember(entry: Path, state: list[int], sha256: str) -> None:
    with contextlib.suppress(OSError):  # without a writable directory the file is only read again
        entry.parent.mkdir(parents=True, exist_ok=True)
        remove_leftovers(entry.parent)
        write_bytes_atomic(entry, json.dumps({"state": state, "sha256": sha256}).encode())
