"""Writing files atomically, as UTF-8, and under names that are valid on every system and lead to no other directory."""

from __future__ import annotations

import functools
import hashlib
import os
import re
import shutil
import time
import unicodedata
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

from unipet.errors import UnipetError
from unipet.output.processes import is_alive, visible_processes


def write_bytes_atomic(path: Path, content: bytes) -> None:
    """Write all of `content`, or leave `path` as it was. A failure leaves no temporary file. Raises OSError."""
    with replacing(path) as file:
        file.write(content)


@contextmanager
def replacing(path: Path) -> Iterator[IO[bytes]]:
    """The same for content that comes in pieces: the file written inside the block replaces `path` when the block ends.
    If an error ends the block, `path` stays as it was."""
    temporary = temporary_name(path)
    try:
        with open(temporary, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def write_folder_atomic(folder: Path, files: Mapping[str, bytes]) -> None:
    """Write several files that belong together. A folder that is not there appears with all of them or not at all; in one
    that is there, each file is replaced whole, the last one last. Raises OSError."""
    if folder.exists():
        for name, content in files.items():
            write_bytes_atomic(folder / name, content)
        return
    folder.parent.mkdir(parents=True, exist_ok=True)
    temporary = temporary_name(folder)
    temporary.mkdir()
    try:
        for name, content in files.items():
            write_bytes_atomic(temporary / name, content)
        os.replace(temporary, folder)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def temporary_name(path: Path) -> Path:
    """Where this process prepares what shall be at `path`: beside it, under a name that tells whose it is."""
    return path.with_name(f".{path.name}.{_space()}-{os.getpid()}.tmp")


def remove_leftovers(directory: Path) -> None:
    """Remove what processes that were killed while they wrote left in `directory`: temporary files and folders whose
    process has ended, or whose process this machine cannot see and which nothing changed for an hour."""
    try:
        found = [entry for entry in os.scandir(directory) if _TEMPORARY.fullmatch(entry.name)]
    except OSError:
        return
    for entry in found:
        space, pid = _TEMPORARY.fullmatch(entry.name).groups()  # type: ignore[union-attr]
        with suppress(OSError):
            if is_alive(int(pid)) if space == _space() else time.time() - entry.stat().st_mtime < ABANDONED_S:
                continue
            if entry.is_dir(follow_symlinks=False):
                shutil.rmtree(entry.path, ignore_errors=True)
            else:
                os.unlink(entry.path)


ABANDONED_S = 3600.0
_TEMPORARY = re.compile(r"\..+\.([0-9a-f]{8})-([0-9]+)\.tmp", re.DOTALL)


@functools.cache
def _space() -> str:
    """A short name for the space in which the number of this process counts."""
    return hashlib.sha256(visible_processes().encode()).hexdigest()[:8]


def utf8(text: str) -> bytes:
    r"""The text as UTF-8, whatever the locale. A lone surrogate (from a file name that is not UTF-8) becomes \udcXX."""
    return text.encode("utf-8", "backslashreplace")


def write_asked(path: Path, content: str | bytes) -> None:
    """Write a file that the user named, and create its directories. Raises `UnipetError` if it cannot be written."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_bytes_atomic(path, utf8(content) if isinstance(content, str) else content)
    except OSError as error:
        raise UnipetError(f"{path}: cannot be written ({error.strerror or error}). Choose another place.") from None


LONGEST = 200  # bytes of a name; file systems allow 255, of which extensions and temporary files need some
_NOT_IN_NAMES = '<>:"/\\|?*'  # characters with a special meaning on some systems: separators, drives, patterns
_DEVICES = re.compile(r"(con|prn|aux|nul|com[0-9¹²³]|lpt[0-9¹²³])(\..*)?", re.IGNORECASE)


def file_name(name: object, key: str) -> str:
    """`name`, if it is valid as a file name (without extension) on every system.

    Raises `UnipetError`, naming `key`, for a name that leads to another directory (separators, drives, `.` and `..`),
    control and invisible characters, names that some system reserves for devices, an empty name and one that is too long.
    """
    why = _why_no_file_name(name)
    if why is not None:
        shown = repr(name) if len(repr(name)) <= 80 else repr(name)[:77] + "..."
        raise UnipetError(
            f"{key}: {shown} cannot be a file name: {why}. Allowed: letters, digits, spaces, dots, - and _, for "
            "example 'results-1'."
        )
    return str(name)


def as_file_name(text: str) -> str:
    """`text` turned into a name that `file_name` accepts. Characters other than ASCII letters, digits, dots, - and _ become
    _, and the middle of a long text is left out."""
    name = re.sub(r"[^A-Za-z0-9_.-]", "_", text)
    if len(name) > LONGEST:
        name = f"{name[: LONGEST // 2 - 1]}__{name[-(LONGEST // 2 - 1) :]}"
    return name if _why_no_file_name(name) is None else f"_{name.rstrip('.')}_"


def _why_no_file_name(name: object) -> str | None:
    """The reason why `name` is not a valid file name; None if it is valid."""
    if not isinstance(name, str):
        return f"it is not a text but {type(name).__name__}"
    if not name.strip():
        return "it is empty"
    found = sorted(set(name) & set(_NOT_IN_NAMES))
    if found:
        return f"it contains {' '.join(found)}"
    if name.startswith("."):
        return "it begins with a dot"
    if name != name.strip() or name.endswith("."):
        return "it begins or ends with a space, or ends with a dot"
    if any(unicodedata.category(letter) in ("Cc", "Cf", "Cs", "Zl", "Zp") for letter in name):
        return "it contains a control character or an invisible one"
    if _DEVICES.fullmatch(name):
        return "some systems reserve this name for a device"
    if len(name.encode()) > LONGEST:
        return f"it is longer than {LONGEST} bytes"
    return None
