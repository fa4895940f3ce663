"""Comma-separated values, exactly as RFC 4180 defines them. Anything that it does not allow is an error.

A line ends with \\n or \\r\\n. A value with a comma, a quote or a line break is enclosed in double quotes, and a quote inside
it is doubled. Quotes are not allowed elsewhere. All other characters, including spaces, are text. Values may have any
length; Python's `csv` module has a limit of 131,072 characters, which is a setting of the whole process.
"""

from __future__ import annotations

import re
from pathlib import Path

from unipet.tasks.formats.source import Source
from unipet.tasks.formats.table import Malformed, Rows, read_table

_BARE = re.compile(r'[^",\r\n]*')


def read_comma(path: Path) -> Source:
    """The rows of a .csv file. Raises UnipetError naming the file, the line and, if it is known, the field."""
    return read_table(path, split)


def split(text: str) -> Rows:
    """The number and the values of each line. Raises Malformed."""
    position, line = 0, 1
    while position < len(text):
        first, begin, values = line, position, list[str]()
        while True:
            value, position, line = _value(text, position, line, len(values))
            values.append(value)
            if not text.startswith(",", position):
                break
            position += 1
        blank = position == begin
        position += len(_line_end(text, position, line, len(values) - 1))
        line += 1
        yield first, [] if blank else values


def _value(text: str, position: int, line: int, column: int) -> tuple[str, int, int]:
    """The value at `position`, the position after it, and the line in which it ends."""
    if not text.startswith('"', position):
        found = _BARE.match(text, position)
        assert found is not None  # the pattern also matches the empty text
        return found.group(), found.end(), line
    parts, begin = list[str](), position + 1
    while True:
        end = text.find('"', begin)
        if end < 0:
            raise Malformed(line, column, "a quoted value begins here and never ends; double each quote inside a value")
        parts.append(text[begin:end])
        if not text.startswith('"', end + 1):
            value = '"'.join(parts)
            return value, end + 1, line + value.count("\n")
        begin = end + 2


def _line_end(text: str, position: int, line: int, column: int) -> str:
    """The line break at `position`, or "" at the end of the file."""
    for end in ("\n", "\r\n"):
        if text.startswith(end, position):
            return end
    if position == len(text):
        return ""
    if text[position] == "\r":
        raise Malformed(line, column, "a carriage return that ends no line; put the value in quotes")
    if text[position] == '"':
        raise Malformed(line, column, "a quote within a value that is not quoted; quote the value and double the quote")
    raise Malformed(line, column, f"{text[position]!r} after the closing quote; double each quote within a value")
