"""Tab-separated values without quoting: everything between two tabs is text, including quotes.

A line ends only with \\n or \\r\\n. So a text cannot contain a tab or a line feed, but any other character (U+2028, vertical
tabs, separators, a single carriage return).
"""

from __future__ import annotations

from pathlib import Path

from unipet.tasks.formats.source import Source
from unipet.tasks.formats.table import Rows, read_table


def read_tab(path: Path) -> Source:
    """The rows of a .tsv file. Raises UnipetError naming the file, the line and, if it is known, the field."""
    return read_table(path, split)


def split(text: str) -> Rows:
    """The number and the values of each line."""
    lines = text.split("\n")
    if lines[-1] == "":
        lines.pop()  # the end of the last line does not begin another
    for number, line in enumerate(lines, start=1):
        line = line.removesuffix("\r")
        yield number, line.split("\t") if line else []
