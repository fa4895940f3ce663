"""Reading JSON that may come from anybody: of a bounded size and depth, no key twice, numbers that are numbers."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path
from typing import Any, NoReturn

from unipet.errors import UnipetError

MIB = 2**20
DEPTH = 60  # objects and lists inside each other


def read_json(path: Path, most: int = 16 * MIB) -> Any:
    """The content of a file of at most `most` bytes. Raises `UnipetError`, naming the file, for anything but strict JSON."""
    return parse_json(read_bounded(path, most), str(path))


def read_bounded(path: Path, most: int) -> bytes:
    """All bytes of an ordinary file. Raises `UnipetError` for a file that is larger, is none, or cannot be read."""
    own_file(path)
    try:
        size = path.stat().st_size
        if size > most:
            raise UnipetError(f"{path}: {size:,} bytes; at most {most:,} are read. It is not what it should be.")
        with open(path, "rb") as file:
            return file.read(most + 1)[:most]
    except OSError as error:
        raise UnipetError(f"{path}: cannot be read ({error.strerror or error}).") from None


def own_file(path: Path) -> None:
    """Raise `UnipetError` unless `path` is an ordinary file in its own folder: no link that leads out of it, no pipe or device,
    which would be read for ever."""
    try:
        if not path.is_file():
            raise UnipetError(f"{path}: no such file, or none that can be read to its end.")
        if path.is_symlink() and Path(os.path.realpath(path)).parent != Path(os.path.realpath(path.parent)):
            raise UnipetError(f"{path}: a link that leads out of its folder. Copy the file there.")
    except OSError as error:
        raise UnipetError(f"{path}: cannot be read ({error.strerror or error}).") from None


def parse_json(data: bytes | str, source: str) -> Any:
    """The value of strict JSON; `source` is what errors name. Raises `UnipetError`."""
    if (deep := _depth(data)) > DEPTH:
        raise UnipetError(f"{source} is corrupted: values are nested {deep} deep; {DEPTH} levels are read.")
    try:
        text = data if isinstance(data, str) else data.decode("utf-8")
        return json.loads(text, parse_constant=_no_number, object_pairs_hook=_each_key_once)
    except (ValueError, RecursionError) as error:
        raise UnipetError(f"{source} is corrupted: {str(error)[:200]}.") from None


def _depth(data: bytes | str) -> int:
    """How many brackets are open at most, those inside of texts not counted."""
    text = data.decode("latin-1") if isinstance(data, bytes) else data
    deepest = now = 0
    for match in re.finditer(r'"(?:[^"\\]|\\.)*+"|[\[\]{}]', text):
        bracket = match[0]
        if bracket in "[{":
            now += 1
            deepest = max(deepest, now)
        elif bracket in "]}":
            now -= 1
    return deepest


def _no_number(name: str) -> NoReturn:
    raise ValueError(f"{name} is no number of JSON")


def _each_key_once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        keys = [key for key, _ in pairs]
        twice = next(key for key in keys if keys.count(key) > 1)
        raise ValueError(f"the key {twice[:60]!r} stands twice")
    return found
