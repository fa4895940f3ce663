"""The part of the page with the learning curves."""

from __future__ import annotations

from collections.abc import Sequence

from unipet.report.page.charts import Charts, Drawn
from unipet.report.page.comparisons import Comparison
from unipet.report.page.curves import MEASURES
from unipet.report.page.rendering import Table


def measures(charts: Charts) -> list[tuple[str, str]]:
    """(chart, measure) of every measure that has curves."""
    return [(f"curves-{measure}", title) for measure, title in MEASURES.items() if f"curves-{measure}" in charts]


def curve_tables(comparisons: Sequence[Comparison], charts: Charts) -> list[Table]:
    """The ends of the curves of every configuration."""
    return [
        _curve_table(comparison, name, measure, charts[name])
        for name, measure in measures(charts)
        for comparison in comparisons
    ]


def _curve_table(comparison: Comparison, name: str, measure: str, drawn: Drawn) -> Table:
    ends: dict[str, dict[str, list[tuple[float, float]]]] = {}
    for row in drawn.rows:
        if row["group"] == comparison.id:
            ends.setdefault(row["label"], {}).setdefault(row["run"], []).append((row["step"], row["value"]))
    rows = [
        (
            label,
            str(len(runs)),
            f"{max(steps[-1][0] for steps in runs.values()):g}",
            _mean([steps[0][1] for steps in runs.values()]),
            _mean([steps[-1][1] for steps in runs.values()]),
        )
        for label, runs in ends.items()
    ]
    heads = ("configuration", "runs", "last step", f"first {measure}", f"last {measure}")
    return Table(f"{measure.capitalize()}: {comparison.title}", heads, rows, (1, 2, 3, 4), comparison.id, name)


def _mean(values: Sequence[float]) -> str:
    return f"{sum(values) / len(values):.4g}"
