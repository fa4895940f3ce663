"""The part of the page on what scores cost: parameters, memory, time."""

from __future__ import annotations

from collections.abc import Sequence

from unipet.report.numbers import figure, score
from unipet.report.page.charts import Charts, Drawn
from unipet.report.page.comparisons import COSTS, Comparison
from unipet.report.page.rendering import Table


def costs_of_charts(charts: Charts) -> list[tuple[str, str]]:
    """(chart, cost) of every cost that has a chart."""
    return [(f"front-{cost}", cost) for cost in COSTS if f"front-{cost}" in charts]


def cost_tables(comparisons: Sequence[Comparison], charts: Charts) -> list[Table]:
    """The numbers of those charts."""
    return [
        _table(comparison, cost, charts[name]) for name, cost in costs_of_charts(charts) for comparison in comparisons
    ]


def costless(comparisons: Sequence[Comparison], charts: Charts) -> list[tuple[str, str, list[str]]]:
    """(comparison, cost, configurations) that have a score and no recorded cost."""
    return [
        (comparison.id, cost, absent)
        for _, cost in costs_of_charts(charts)
        for comparison in comparisons
        if (absent := [line.label for line in comparison.scored if cost not in line.costs])
    ]


def _table(comparison: Comparison, cost: str, drawn: Drawn) -> Table:
    _, title, pattern = COSTS[cost]
    points, scale = [row for row in drawn.rows if row["group"] == comparison.id], comparison.lines[0].row.scale
    rows = [
        (row["label"], score(row["score"], scale), _cost(row["cost"], pattern), row["on the front"])
        for row in sorted(points, key=lambda row: row["cost"])
    ]
    heads = ("configuration", "mean score", title, "on the front")
    return Table(f"Score against {title}: {comparison.title}", heads, rows, (1, 2), comparison.id, f"front-{cost}")


def _cost(value: float, pattern: str) -> str:
    """A cost as its column writes it; of a small one as many digits as it needs."""
    return figure(value, int(pattern[-2])) if abs(value) < 1 else format(value, pattern)
