"""A file appears whole or not at all; text is UTF-8."""

from __future__ import annotations

import os
from pathlib import Path

from unipet.errors import UnipetError


def write_bytes_atomic(path: Path, content: bytes) -> None:
    """Write all of `content` or leave `path` as it was; no temporary file survives a failure. Raises OSError."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with open(temporary, "wb") as file:
            file.write(content)
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
