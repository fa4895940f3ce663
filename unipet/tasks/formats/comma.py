"""Comma separated values as RFC 4180 defines them, to the letter: what it does not allow is an error, never a guess.

A line ends at \\n or \\r\\n. A value that holds a comma, a quote or a line break stands in double quotes, a quote within
it doubled; quotes are allowed nowhere else. All other characters, spaces among them, are text. Values have any length
(the limit of Python's `csv` module, 131,072 characters, is a setting of the whole process).
"""

from __future__ import annotations

import re
from pathlib import Path

from unipet.tasks.formats.source import Source
from unipet.tasks.formats.table import Malformed, Rows, read_table

_BARE = re.compile(r'[^",\r\n]*')


def read_comma(path: Path) -> Source:
    """The rows of a .csv file. Raises UnipetError with file, line and, where it is known, field."""
    return read_table(path, split)


def split(text: str) -> Rows:
    """The lines' numbers and values. Raises Malformed."""
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
    """The value at `position`, the position behind it, and the line that it ends in."""
    if not text.startswith('"', position):
        found = _BARE.match(text, position)
        assert found is not None  # it matches nothing at all, too
        return found.group(), found.end(), line
    parts, begin = list[str](), position + 1
    while True:
        end = text.find('"', begin)
        if end < 0:
            raise Malformed(line, column, "a quoted value begins here and never ends; double each quote within a value")
        parts.append(text[begin:end])
        if not text.startswith('"', end + 1):
            value = '"'.join(parts)
            return value, end + 1, line + value.count("\n")
        begin = end + 2


def _line_end(text: str, position: int, line: int, column: int) -> str:
    """The line's end at `position`: a line break, or nothing at the end of the file."""
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
