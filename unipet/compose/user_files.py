"""Reading the user's configuration files. While a command composes, each file is read once: what was checked is what runs."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path
from typing import Any

from unipet.calculus.method_files import compose_file
from unipet.errors import UnipetError

#: (kind of content, path) -> content; None while no command composes, so that every call reads the file.
_read: ContextVar[dict[tuple[str, Path], Any] | None] = ContextVar("_read", default=None)


@contextmanager
def read_once() -> Iterator[None]:
    """Inside, each file is read on first use and not again."""
    token = _read.set({})
    try:
        yield
    finally:
        _read.reset(token)


def config_text(path: Path) -> str:
    """A file of a configuration directory as text. Raises `UnipetError`, naming the file, if it cannot be read."""
    text: str = _kept("text", path, _text)
    return text


def method_file(path: Path) -> dict[str, Any]:
    """A method file by its path, composed by `compose_file`. The caller may change the returned copy."""
    method: dict[str, Any] = copy.deepcopy(_kept("method", path, compose_file))
    return method


def space_file(path: Path) -> str:
    """A design space by its path, as text. Raises `UnipetError` where it cannot be read."""
    if not path.is_file():
        raise UnipetError(
            f"search.space: no file {path}. Give the path of a YAML file, or a name (`unipet list spaces`)."
        )
    return config_text(path)


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
            f"{path}: cannot be read ({error.strerror or error}). Correct its permissions, or move it elsewhere."
        ) from None
