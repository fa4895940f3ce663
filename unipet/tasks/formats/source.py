"""The result of every format's reader: records with their places in the file, and the features that the file declares."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from unipet.errors import UnipetError


@dataclass(frozen=True)
class Source:
    """One file, read record by record. A record of a table is a mapping from column to value."""

    records: Iterator[tuple[object, str]]  # a record and its place: "train.csv, line 3"
    typed: bool  # False: the format has only texts, so "3" may be a number and "[...]" a list
    features: Mapping[str, object] = field(default_factory=dict)  # column -> feature, in the form of `datasets`


def text_bytes(path: Path) -> bytes:
    """The bytes of a text file without the byte order mark. Raises UnipetError for UTF-16 and for a missing file."""
    try:
        content = path.read_bytes()
    except OSError as error:
        raise UnipetError(f"task.data_dir: cannot read {path}: {error.strerror}.") from error
    if content.startswith((b"\xff\xfe", b"\xfe\xff")):
        raise UnipetError(
            f"{path}, line 1: not UTF-8; its first bytes are those of UTF-16 or UTF-32. Save the file as UTF-8."
        )
    return content.removeprefix(b"\xef\xbb\xbf")


def repeated(names: Iterable[str]) -> str | None:
    """The first name that occurs twice; None if all names differ."""
    seen: set[str] = set()
    for name in names:
        if name in seen:
            return name
        seen.add(name)
    return None
