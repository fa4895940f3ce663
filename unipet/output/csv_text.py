"""CSV that a spreadsheet shows as it was written: no cell out of a name, a label or a text becomes a formula."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable

#: What a spreadsheet takes for the beginning of a formula, blanks and full-width forms included
#: (https://owasp.org/www-community/attacks/CSV_Injection).
FORMULA = tuple("=+-@＝＋－＠")


def csv_text(rows: Iterable[Iterable[object]]) -> str:
    """Rows of cells as CSV; None is an empty cell. A text that begins as a formula does, and is no number, gets an apostrophe
    in front, which spreadsheets hide."""
    buffer = io.StringIO()
    csv.writer(buffer, lineterminator="\n").writerows([_cell(value) for value in row] for row in rows)
    return buffer.getvalue()


def _cell(value: object) -> object:
    if value is None:
        return ""
    harmless = not isinstance(value, str) or not value.lstrip().startswith(FORMULA) or _is_number(value)
    return value if harmless else f"'{value}"


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True
