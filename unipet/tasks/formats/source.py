"""What the reader of every format gives: records, each with the place where it stands, and what the file declares."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from unipet.errors import UnipetError


@dataclass(frozen=True)
class Source:
    """One file, read record by record. A record of a table is a mapping from column to value."""

    records: Iterator[tuple[object, str]]  # a record, and where it stands: "train.csv, line 3"
    typed: bool  # False: the format knows text alone, so "3" may be a number and "[...]" a list
    features: Mapping[str, object] = field(default_factory=dict)  # column -> feature, in the notation of `datasets`


def text_bytes(path: Path) -> bytes:
    """The bytes of a text file without UTF-8's byte order mark. Raises UnipetError for UTF-16 and for no such file."""
    try:
        content = path.read_bytes()
    except OSError as error:
        raise UnipetError(f"task.data_dir: cannot read {path}: {error.strerror}.") from error
    if content.startswith((b"\xff\xfe", b"\xfe\xff")):
        raise UnipetError(
            f"{path}, line 1: not UTF-8, but UTF-16 or UTF-32 by its first bytes. Save the file as UTF-8."
        )
    return content.removeprefix(b"\xef\xbb\xbf")


def repeated(names: Iterable[str]) -> str | None:
    """The first name that is there twice; None where all differ."""
    seen: set[str] = set()
    for name in names:
        if name in seen:
            return name
        seen.add(name)
    return None
