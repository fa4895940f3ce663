"""A file appears whole or not at all, and under a name that is a name: never a way to another directory. Text is UTF-8."""

from __future__ import annotations

import os
import re
import unicodedata
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from unipet.errors import UnipetError


def write_bytes_atomic(path: Path, content: bytes) -> None:
    """Write all of `content` or leave `path` as it was; no temporary file survives a failure. Raises OSError."""
    with replacing(path) as file:
        file.write(content)


@contextmanager
def replacing(path: Path) -> Iterator[IO[bytes]]:
    """The same for content that comes in pieces: what is written inside takes the place of `path` once it is whole."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with open(temporary, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def utf8(text: str) -> bytes:
    r"""UTF-8, whatever the locale; a lone surrogate, which a file's name may hold where it is no UTF-8, as \udcXX."""
    return text.encode("utf-8", "backslashreplace")


def write_asked(path: Path, content: str | bytes) -> None:
    """A file that a user named, and its directories; text as UTF-8. Raises `UnipetError` when it cannot be written."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_bytes_atomic(path, utf8(content) if isinstance(content, str) else content)
    except OSError as error:
        raise UnipetError(f"{path}: cannot be written ({error.strerror or error}). Choose another place.") from None


LONGEST = 200  # bytes of a name; file systems take 255, of which endings and temporary files need some
_NOT_IN_NAMES = '<>:"/\\|?*'  # what some file system reads as something else: separators, drives, patterns
_DEVICES = re.compile(r"(con|prn|aux|nul|com[0-9¹²³]|lpt[0-9¹²³])(\..*)?", re.IGNORECASE)


def file_name(name: object, key: str) -> str:
    """`name`, if it can be the name of a file on every system, ending aside.

    Raises `UnipetError`, naming `key`, for what leads to another directory (separators, drives, `.` and `..`), control
    and invisible characters, names that a system keeps for devices, an empty name and one that is too long.
    """
    why = _why_no_file_name(name)
    if why is not None:
        shown = repr(name) if len(repr(name)) <= 80 else repr(name)[:77] + "..."
        raise UnipetError(
            f"{key}: {shown} cannot be a file's name: {why}. Allowed: letters, digits, spaces, dots, - and _, for "
            "example 'results-1'."
        )
    return str(name)


def as_file_name(text: str) -> str:
    """`text` as a name that `file_name` takes: anything but ASCII letters, digits, dots, - and _ becomes _, and the
    middle of a long one is left out."""
    name = re.sub(r"[^A-Za-z0-9_.-]", "_", text)
    if len(name) > LONGEST:
        name = f"{name[: LONGEST // 2 - 1]}__{name[-(LONGEST // 2 - 1) :]}"
    return name if _why_no_file_name(name) is None else f"_{name.rstrip('.')}_"


def _why_no_file_name(name: object) -> str | None:
    """What keeps `name` from being a file's name; None where nothing does."""
    if not isinstance(name, str):
        return f"it is no text but {type(name).__name__}"
    if not name.strip():
        return "it is empty"
    found = sorted(set(name) & set(_NOT_IN_NAMES))
    if found:
        return f"it holds {' '.join(found)}"
    if name.startswith("."):
        return "it begins with a dot"
    if name != name.strip() or name.endswith("."):
        return "it begins or ends with a space, or ends with a dot"
    if any(unicodedata.category(letter) in ("Cc", "Cf", "Cs", "Zl", "Zp") for letter in name):
        return "it holds a control character or an invisible one"
    if _DEVICES.fullmatch(name):
        return "some systems keep that name for a device"
    if len(name.encode()) > LONGEST:
        return f"it is longer than {LONGEST} bytes"
    return None
