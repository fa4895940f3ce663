"""Where page.js draws a chart, and what stands beside every chart: its numbers, and a word where there is nothing."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

from unipet.report.page.charts import Drawn
from unipet.report.page.comparisons import Comparison
from unipet.report.page.markup import e, tag

Charts = Mapping[str, Drawn]


def place(name: str, what: str) -> str:
    """The chart's place; what it says is what a screen reader reads before the table."""
    return tag("div", css="chart", data_chart=name, role="img", aria_label=f"{what}; the table below has the numbers")


def numbers(tables: str) -> str:
    """The chart's numbers, folded."""
    return tag("details", tag("summary", "The numbers as a table"), tables)


def per_group(comparisons: Sequence[Comparison], chosen: Collection[str], text: str) -> str:
    """A sentence shown with the chosen comparisons only."""
    return "".join(tag("p", e(text), css="empty", data_group=one.id) for one in comparisons if one.id in chosen)
