"""The Pareto front of score against a cost: configurations that no other one beats in both."""

from __future__ import annotations

from collections.abc import Sequence

from unipet.report.page.comparisons import Line


def front(lines: Sequence[Line], cost: str) -> list[Line]:
    """The lines on the front, cheapest first. Only lines with a mean score and this cost take part.

    A line is on it when no other has at least as good a score at no more than its cost, one of the two strictly better.
    Means are compared as they are: the front does not say whether a difference is more than noise.
    """
    known = [line for line in lines if line.row.score is not None and cost in line.costs]

    def beaten(line: Line) -> bool:
        return any(_beats(other, line, cost) for other in known)

    return sorted((line for line in known if not beaten(line)), key=lambda line: line.costs[cost])


def _beats(line: Line, other: Line, cost: str) -> bool:
    score, than = (line.row.sign * (line.row.score or 0.0) for line in (line, other))
    cheaper, dearer = line.costs[cost] < other.costs[cost], line.costs[cost] > other.costs[cost]
    return score >= than and not dearer and (score > than or cheaper)
