"""Charts of a study: what each choice does, methods by rank, and scores by tuning effort."""

from __future__ import annotations

from typing import Any

from unipet.report.page.chart_data import Rows
from unipet.report.page.chart_style import ACCENT, DASHES, HUES, INK, LONG, MUTE, ONE, label_axis, step, tips


def effects_chart(data: Any, rows: Rows) -> Any:
    """Every pair a ring, their mean a diamond, its 95 % interval a line, no change the line at zero."""
    import altair as alt

    base = alt.Chart(data).encode(y=label_axis())
    x = alt.X("difference:Q", title="difference in score", axis=alt.Axis(format="+.3~g"))
    zero = alt.Chart(data).mark_rule(color=MUTE, strokeDash=[4, 3]).encode(x=alt.datum(0))
    pairs = base.mark_point(size=60, color=ACCENT, fill="transparent", strokeWidth=2, opacity=1).encode(
        x=x,
        shape=alt.Shape(
            "rest:N",
            scale=alt.Scale(range=["circle", "square"]),
            legend=alt.Legend(title="apart from it", orient="bottom", direction="vertical"),
        ),
        tooltip=tips("before:N", "after:N", "difference:Q", "seeds:Q", "rest:N"),
    )
    interval = (
        base.mark_rule(color=INK, strokeWidth=2)
        .encode(x=alt.X("low:Q"), x2="high:Q", tooltip=tips("label:N", "mean:Q", "low:Q", "high:Q"))
        .transform_filter("datum.first && isValid(datum.low)")
    )
    mean = (
        base.mark_point(shape="diamond", size=120, color=INK, fill=INK, opacity=1)
        .encode(x=alt.X("mean:Q"), tooltip=tips("label:N", "mean:Q", "low:Q", "high:Q", "pairs:Q"))
        .transform_filter("datum.first")
    )
    return alt.layer(zero, pairs, interval, mean).properties(height=step(rows, 34))


def ranks_chart(data: Any, rows: Rows) -> Any:
    """The critical-difference diagram: every method at its mean rank, a thick line joins those that ranks do not tell apart."""
    import altair as alt

    base = alt.Chart(data).encode(y=label_axis())
    scale = alt.Scale(zero=False, nice=True, padding=12)
    x = alt.X(
        "rank:Q", scale=scale, title="mean rank over tasks (1 is the best)", axis=alt.Axis(labelExpr=ONE.format("x"))
    )
    methods = (
        base.mark_point(shape="diamond", size=110, color=INK, fill=INK, opacity=1)
        .encode(x=x, tooltip=tips("label:N", "rank:Q", "score:Q"))
        .transform_filter("isValid(datum.rank)")
    )
    alike = (
        base.mark_rule(color=ACCENT, strokeWidth=5, opacity=0.6)
        .encode(x=alt.X("from:Q", scale=scale), x2="to:Q", tooltip=tips("not distinguishable:N"))
        .transform_filter("isValid(datum.from)")
    )
    return alt.layer(alike, methods).properties(height=step(rows, 28))


def effort_chart(data: Any, rows: Rows) -> Any:
    """The best selection score that n trials may expect, one line and its 95 % band for each study."""
    import altair as alt

    legend = alt.Legend(
        title=None,
        orient="bottom",
        columns=1 if max(len(str(row["label"])) for row in rows) > LONG else 2,
        symbolType="stroke",
        symbolSize=400,
        symbolStrokeWidth=2,
        symbolOpacity=1,
        labelFontSize=12,
    )
    colour = alt.Color("label:N", scale=alt.Scale(range=HUES), legend=legend)
    dash = alt.StrokeDash("label:N", scale=alt.Scale(range=DASHES), legend=legend)
    x = alt.X("trials:Q", title="trials", axis=alt.Axis(tickMinStep=1, format="d"))
    scale = alt.Scale(zero=False)
    base = alt.Chart(data).encode(x=x, color=colour)
    band = base.mark_area(opacity=0.15).encode(
        y=alt.Y("low:Q", scale=scale, title="best selection score expected"), y2="high:Q"
    )
    line = base.mark_line(strokeWidth=2.5, point=True).encode(
        y=alt.Y("best:Q", scale=scale, title="best selection score expected", axis=alt.Axis(labelExpr=ONE.format("y"))),
        strokeDash=dash,
        tooltip=tips("label:N", "trials:Q", "best:Q", "low:Q", "high:Q"),
    )
    return alt.layer(band, line).properties(height=320)
