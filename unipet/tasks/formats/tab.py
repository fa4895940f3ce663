"""Tab separated values: no quoting at all. What stands between two tabs is the text, quotes and all.

A line ends at \\n or \\r\\n and nowhere else, so a text holds neither tab nor line feed, and may hold any other character
(U+2028, vertical tabs, separators, a carriage return on its own).
"""

from __future__ import annotations

from pathlib import Path

from unipet.tasks.formats.source import Source
from unipet.tasks.formats.table import Rows, read_table


def read_tab(path: Path) -> Source:
    """The rows of a .tsv file. Raises UnipetError with file, line and, where it is known, field."""
    return read_table(path, split)


def split(text: str) -> Rows:
    """The lines' numbers and values."""
    lines = text.split("\n")
    if lines[-1] == "":
        lines.pop()  # the last line's own end begins no other
    for number, line in enumerate(lines, start=1):
        line = line.removesuffix("\r")
        yield number, line.split("\t") if line else []
