"""The user's configuration files: each is read once while one command composes, so what was checked is what runs."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path
from typing import Any

from unipet.errors import UnipetError

#: What was read, by what read it and where; None while no command composes: then every call reads.
_read: ContextVar[dict[tuple[str, Path], Any] | None] = ContextVar("_read", default=None)


@contextmanager
def read_once() -> Iterator[None]:
    """Inside, each file is read when it is first asked for and not again."""
    token = _read.set({})
    try:
        yield
    finally:
        _read.reset(token)


def config_text(path: Path) -> str:
    """A file of a configuration directory as text. Raises `UnipetError`, naming the file, where it is none."""
    text: str = _kept("text", path, _text)
    return text


def method_file(path: Path) -> dict[str, Any]:
    """A method file by its path, as `compose_file` composes it; the caller may change what it gets."""
    from unipet.calculus.library import compose_file  # loads torch, which listing a directory does not need

    method: dict[str, Any] = copy.deepcopy(_kept("method", path, compose_file))
    return method


def _kept(kind: str, path: Path, read: Callable[[Path], Any]) -> Any:
    known = _read.get()
    if known is None:
        return read(path)
    key = (kind, path.absolute())
    if key not in known:
        known[key] = read(path)
    return known[key]


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8").removeprefix("\ufeff")
    except UnicodeDecodeError as error:
        raise UnipetError(
            f"{path}: not UTF-8 (byte {error.start + 1}: {error.reason}). Save the file as UTF-8."
        ) from None
    except OSError as error:
        raise UnipetError(
            f"{path}: cannot be read ({error.strerror or error}). Mend it, or move it elsewhere."
        ) from None
