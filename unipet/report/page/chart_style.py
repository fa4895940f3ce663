"""What all charts of the page have in common: colours, axes, labels, what is shown at the pointer."""

from __future__ import annotations

from typing import Any

from unipet.report.page.chart_data import Rows
from unipet.runs.labels import SEPARATOR

INK, MUTE, LINE, ACCENT = "var(--ink)", "var(--mute)", "var(--line)", "var(--accent)"
HUES = [f"var(--hue{number})" for number in range(1, 9)]
DASHES = [[1, 0], [7, 3], [2, 2], [8, 2, 2, 2], [4, 4], [12, 3], [1, 4]]  # one fewer than hues, so that 56 lines differ
CONFIG: dict[str, Any] = {
    "background": "transparent",
    "font": "system-ui, sans-serif",
    "view": {"stroke": None},
    "axis": {
        "labelColor": INK,
        "titleColor": MUTE,
        "titleFontWeight": "normal",
        "gridColor": LINE,
        "domainColor": LINE,
        "tickColor": LINE,
        "labelFontSize": 12,
        "titleFontSize": 12,
    },
    "axisY": {"labelLimit": 600},
    "legend": {"labelColor": INK, "titleColor": MUTE, "titleFontWeight": "normal", "labelLimit": 1000},
}

#: An axis with one value says this value; one with several has as many digits as its steps need.
ONE = "domain('{0}')[0] === domain('{0}')[1] ? format(datum.value, '.6~g') : datum.label"
LONG = 60  # characters of a label on one line
BROKEN = f"length(datum.label) > {LONG} ? split(datum.label, '{SEPARATOR}') : datum.label"


def step(rows: Rows, least: int) -> dict[str, int]:
    """The height of a row of a chart: room for its label's lines."""
    most = max(len(str(row["label"]).split(SEPARATOR)) if len(str(row["label"])) > LONG else 1 for row in rows)
    return {"step": max(least, 14 * most + 6)}


def tips(*fields: str) -> list[Any]:
    """What is shown where the pointer is."""
    import altair as alt

    return [alt.Tooltip(field) for field in fields]


def label_axis() -> Any:
    """The labels from the top, in the order of `rank`."""
    import altair as alt

    return alt.Y(
        "label:N",
        sort=alt.EncodingSortField("rank", op="min"),
        title=None,
        axis=alt.Axis(domain=False, ticks=False, grid=True, labelExpr=BROKEN),
    )
