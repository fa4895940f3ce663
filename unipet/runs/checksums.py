"""Checksums of files by content, computed once for each state of a file."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from pathlib import Path

from unipet.output.files import write_bytes_atomic

_SMALL = 2**24  # bytes; below this, reading the file is as fast as looking its checksum up

_KNOWN: dict[Path, tuple[list[int], str]] = {}


def checksum(path: Path, kept: Path | None = None) -> str:
    """The sha256 of a file, 64 hexadecimal digits. Raises OSError where it cannot be read.

    A large file is read again only after its size, its times or its place on the disk have changed; `kept` is a directory
    in which that is remembered for other processes.
    """
    path = path.resolve()
    state = file_state(path)
    if state[0] < _SMALL:
        return _read(path)
    if _KNOWN.get(path, ([], ""))[0] != state:
        entry = None if kept is None else kept / f"{hashlib.sha256(str(path).encode()).hexdigest()[:32]}.json"
        found = _remembered(entry, state) or _read(path)
        _KNOWN[path] = (state, found)
        if entry is not None:
            _remember(entry, state, found)
    return _KNOWN[path][1]


def file_state(path: Path | str) -> list[int]:
    """What changes whenever the content does: even a copy that keeps the time of the last change has another ctime.

    Raises OSError where there is no such file."""
    found = os.stat(path)
    return [found.st_size, found.st_mtime_ns, found.st_ctime_ns, found.st_ino, found.st_dev]


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
    with contextlib.suppress(OSError):  # a directory that cannot be written to costs time, not the run
        entry.parent.mkdir(parents=True, exist_ok=True)
        write_bytes_atomic(entry, json.dumps({"state": state, "sha256": sha256}).encode())
