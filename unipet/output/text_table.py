"""Plain-text tables for terminals and logs, and durations in words."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence

GAP = "  "


def text_table(header: Sequence[str], rows: Sequence[Sequence[str]], width: int = 120) -> str:
    """A table whose columns are as wide as their longest line. Cells may have several lines. The last column is wrapped
    at `width`."""
    cells = [[cell.split("\n") for cell in row] for row in [header, *rows]]
    widths = [max(len(line) for row in cells for line in row[i]) for i in range(len(header))]
    room = max(24, width - sum(widths[:-1]) - len(GAP) * (len(widths) - 1))
    widths[-1] = min(widths[-1], room)
    for row in cells:
        row[-1] = [part for line in row[-1] for part in textwrap.wrap(line, room) or [""]]
    lines = [_lines(row, widths) for row in cells]
    return "\n".join([*lines[0], GAP.join("-" * size for size in widths), *(line for row in lines[1:] for line in row)])


def _lines(row: Sequence[Sequence[str]], widths: Sequence[int]) -> list[str]:
    """One row of the table as lines of text."""
    height = max(len(cell) for cell in row)
    padded = [[*cell, *[""] * (height - len(cell))] for cell in row]
    return [
        GAP.join(_aligned(cell[i], size) for cell, size in zip(padded, widths, strict=True)).rstrip()
        for i in range(height)
    ]


def _aligned(text: str, width: int) -> str:
    numeric = text[:1].isdigit() and not any(c.isalpha() for c in text)
    return text.rjust(width) if numeric else text.ljust(width)


def duration(seconds: float) -> str:
    """`42 s`, `3.5 min`, `2.1 h`."""
    if seconds < 120:
        return f"{seconds:.1f} s" if seconds < 10 else f"{seconds:.0f} s"
    return f"{seconds / 60:.1f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"
