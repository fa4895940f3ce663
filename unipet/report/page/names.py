"""Which points of a chart get their name written beside them, where not all names have room."""

from __future__ import annotations

import math
from collections.abc import Sequence

#: A letter's width, a line's height and their distance from the point, as shares of a chart on a wide screen.
LETTER, LINE, ABOVE, BELOW = 0.0075, 0.045, 0.036, -0.042
_BELOW = 100  # times as small as the smallest cost above zero: there a symmetric logarithm becomes linear


def linear_below(costs: Sequence[float]) -> float:
    """Where an axis that has a place for zero becomes about linear."""
    return min((cost for cost in costs if cost > 0), default=float(_BELOW)) / _BELOW


def readable(names: Sequence[str], places: Sequence[tuple[float, float]], first: Sequence[bool]) -> list[str]:
    """The names to write, "" where a name would lie over another. `places` are (cost, score); `first` are written first, above
    their points, the others below. The rest have the tooltip and the table.
    """
    if not places:
        return []
    zeros, below = any(cost <= 0 for cost, _ in places), linear_below([cost for cost, _ in places])
    columns = _shares([math.asinh(cost / (2 * below)) if zeros else math.log(cost) for cost, _ in places])
    rows = _shares([score for _, score in places])
    taken: list[tuple[float, float, float]] = []
    written = [""] * len(names)
    for index in sorted(range(len(names)), key=lambda index: (not first[index], -rows[index])):
        half = LETTER * len(names[index]) / 2
        x, y = columns[index], rows[index] + (ABOVE if first[index] else BELOW)
        if all(abs(x - other) > half + width or abs(y - height) > LINE for other, height, width in taken):
            taken.append((x, y, half))
            written[index] = names[index]
    return written


def _shares(values: Sequence[float]) -> list[float]:
    """From 0 for the least to 1 for the greatest."""
    low, high = min(values), max(values)
    return [(value - low) / ((high - low) or 1.0) for value in values]
