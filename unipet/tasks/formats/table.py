"""Reading comma- and tab-separated files: a header, rows of the header's length, text in UTF-8."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

from unipet.errors import UnipetError
from unipet.tasks.formats.source import Source, repeated, text_bytes
from unipet.tasks.gaps import short

#: The number of a row's first line, and its values; a blank line has no values.
Rows = Iterator[tuple[int, list[str]]]


class Malformed(Exception):
    """A row that breaks the rules of its format: its line, the index of the value, and the reason."""

    def __init__(self, line: int, column: int, reason: str) -> None:
        super().__init__(reason)
        self.line, self.column, self.reason = line, column, reason


def read_table(path: Path, split: Callable[[str], Rows]) -> Source:
    """The rows of a file, which `split` splits into values. Raises UnipetError naming the file, the line and, if it is
    known, the field."""
    return Source(_records(path, split), typed=False)


def _records(path: Path, split: Callable[[str], Rows]) -> Iterator[tuple[object, str]]:
    content = text_bytes(path)
    text = content.decode(
        "utf-8", "surrogateescape"
    )  # so that an error can name the row and column of a byte that is not UTF-8
    broken = not _is_utf8(text)
    header: list[str] = []
    try:
        for line, values in split(text):
            place = f"{path}, line {line}"
            if broken:
                _check_utf8(values, header, place)
            if not header:
                header = values
                _check_header(header, place)
                continue
            if not values and len(header) == 1:
                values = [""]  # in a table with one column, a blank line is a row with an empty value
            if not values:
                continue
            if len(values) != len(header):
                raise UnipetError(f"{place}: {len(values)} values, but the header has {len(header)} columns.")
            yield dict(zip(header, values, strict=True)), place
    except Malformed as error:
        field = f", field {short(header[error.column])}" if error.column < len(header) else ""
        raise UnipetError(f"{path}, line {error.line}{field}: malformed table: {error.reason}.") from error


def _check_header(header: list[str], place: str) -> None:
    twice = repeated(header)
    if twice is not None:
        raise UnipetError(f"{place}: the header names column {short(twice)} twice. Remove or rename one of them.")
    for sign, what in {"\0": "a NUL character (a UTF-16 file?)", "\r": "a carriage return that ends no line"}.items():
        if any(sign in name for name in header):
            raise UnipetError(f"{place}: {what} in the header. Save the file as UTF-8 with lines that end with \\n.")


def _check_utf8(values: list[str], header: list[str], place: str) -> None:
    for i, value in enumerate(values):
        if not _is_utf8(value):
            field = f", field {short(header[i])}" if i < len(header) else ""
            byte = next(ord(sign) - 0xDC00 for sign in value if 0xDC80 <= ord(sign) <= 0xDCFF)
            raise UnipetError(f"{place}{field}: not UTF-8 (byte 0x{byte:02x}). Save the file as UTF-8.")


def _is_utf8(text: str) -> bool:
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True
