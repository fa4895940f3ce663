"""The part of the page with the learning curves."""

from __future__ import annotations

from collections.abc import Sequence

from unipet.report.page.charts import Drawn
from unipet.report.page.comparisons import Comparison
from unipet.report.page.curves import MEASURES
from unipet.report.page.markup import choice, options, section, table, tag
from unipet.report.page.places import Charts, numbers, place

NOTE = (
    "Thick: mean over seeds. Thin: one seed. Failed runs are not drawn, running ones as far as they got; long curves are "
    "thinned evenly."
)


def learning(comparisons: Sequence[Comparison], charts: Charts) -> str:
    """Learning curves of every run."""
    names = [(f"curves-{measure}", MEASURES[measure]) for measure in MEASURES if f"curves-{measure}" in charts]
    if not names:
        missing = tag("p", "No metrics.jsonl beside these records, so there are no curves.", css="empty")
        return section("learning", "Learning curves", missing)
    tables = "".join(_curve_table(one, name, what, charts[name]) for name, what in names for one in comparisons)
    pick = tag("label", "highlight ", tag("select", options([("", "all")]), id="highlight"))
    bar = tag("div", choice("curves", "measure", names), pick, css="bar")
    chart = place(names[0][0], "Learning curves by configuration")
    return section("learning", "Learning curves", bar, chart, tag("p", NOTE, css="note"), numbers(tables))


def _curve_table(comparison: Comparison, name: str, what: str, drawn: Drawn) -> str:
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
    heads = ("configuration", "runs", "last step", f"first {what}", f"last {what}")
    return table(
        f"{what.capitalize()}: {comparison.title}", heads, rows, (1, 2, 3, 4), data_group=comparison.id, data_of=name
    )


def _mean(values: Sequence[float]) -> str:
    return f"{sum(values) / len(values):.4g}"
