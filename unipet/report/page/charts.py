"""The charts as Vega-Lite, written with Altair: one specification per chart, a signal `group` choosing the comparison.

Colours are the page's CSS variables, so that a chart follows the light or dark scheme by itself. No chart says by
colour alone: means are diamonds, members of a front are filled and named, curves have dashes.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from unipet.errors import UnipetError
from unipet.report.averages import Averages
from unipet.report.effect_rows import Effect
from unipet.report.page.chart_data import (
    Rows,
    cost_points,
    curve_points,
    effect_points,
    effort_points,
    rank_points,
    seed_points,
)  # fmt: skip
from unipet.report.page.chart_style import ACCENT, CONFIG, DASHES, HUES, INK, LONG, MUTE, ONE, label_axis, step, tips
from unipet.report.page.comparisons import COSTS, Comparison
from unipet.report.page.curves import MEASURES, POINTS
from unipet.report.page.names import linear_below
from unipet.report.page.rendering import MISSING
from unipet.report.page.study_charts import effects_chart, effort_chart, ranks_chart
from unipet.report.tuning import Curve


@dataclass(frozen=True)
class Drawn:
    """A chart: its specification, whose data are named `rows`, and these rows."""

    spec: dict[str, Any]
    rows: Rows


Charts = Mapping[str, Drawn]


def charts(
    comparisons: Sequence[Comparison],
    points: int = POINTS,
    effects: Sequence[Effect] = (),
    averages: Sequence[Averages] = (),
    tuning: Sequence[Curve] = (),
) -> dict[str, Drawn]:
    """Name -> chart, of those that have anything to show; the curves of a measure have `points` points in all.

    Raises `UnipetError` where Altair is missing.
    """
    try:
        import altair  # noqa: F401
    except ImportError:
        raise UnipetError(MISSING) from None
    first = comparisons[0].id if comparisons else ""
    curves = curve_points(comparisons, points)
    asked: dict[str, tuple[Rows, Callable[[Any, Rows], Any]]] = {
        "scores": (seed_points(comparisons), _scores),
        **{f"front-{cost}": (cost_points(comparisons, cost), partial(_front, cost=cost)) for cost in COSTS},
        **{f"curves-{measure}": (curves.get(measure, []), partial(_curves, measure=measure)) for measure in MEASURES},
        "effects": (effect_points(comparisons, effects), effects_chart),
        "ranks": (rank_points(averages), ranks_chart),
        "tuning": (effort_points(tuning), effort_chart),
    }
    return {name: Drawn(_spec(draw, rows, first), rows) for name, (rows, draw) in asked.items() if rows}


def _spec(draw: Callable[[Any, Rows], Any], rows: Rows, first: str) -> dict[str, Any]:
    import altair as alt
    from altair.utils.schemapi import debug_mode

    with debug_mode(False):  # checking each piece against the schema takes seconds; a test checks the whole
        chart = draw(alt.NamedData("rows"), rows).transform_filter("datum.group === group")
        sized = chart.properties(width="container", autosize=alt.AutoSizeParams(type="fit-x", contains="padding"))
        spec: dict[str, Any] = sized.add_params(alt.param(name="group", value=first)).to_dict(validate=False)
    return {**spec, "config": CONFIG}


def _scores(data: Any, rows: Rows) -> Any:
    """Every seed a ring, their mean a diamond, ± one sample standard deviation a line."""
    import altair as alt

    base = alt.Chart(data).encode(y=label_axis())
    scale, x = alt.Scale(zero=False, nice=True), alt.Axis(tickCount=8, labelExpr=ONE.format("x"))
    spread = (
        base.mark_rule(color=INK, strokeWidth=2)
        .encode(
            x=alt.X("low:Q", scale=scale, title="score", axis=x),
            x2="high:Q",
            tooltip=tips("label:N", "mean:Q", "std:Q"),
        )
        .transform_filter("datum.first && isValid(datum.low)")
    )
    mean = (
        base.mark_point(shape="diamond", size=110, color=INK, fill=INK, opacity=1)
        .encode(x=alt.X("mean:Q", scale=scale, axis=x), tooltip=tips("label:N", "mean:Q", "std:Q", "seeds:Q"))
        .transform_filter("datum.first")
    )
    seeds = base.mark_point(size=70, color=ACCENT, fill="transparent", strokeWidth=2, opacity=1).encode(
        x=alt.X("score:Q", scale=scale, axis=x), tooltip=tips("label:N", "seed:N", "score:Q")
    )
    return alt.layer(spread, mean, seeds).properties(height=step(rows, 30))


def _front(data: Any, rows: Rows, cost: str) -> Any:
    import altair as alt

    _, title, _ = COSTS[cost]
    zeros = any(row["cost"] <= 0 for row in rows)
    below = linear_below([row["cost"] for row in rows])
    kind = alt.Scale(type="symlog", constant=below) if zeros else alt.Scale(type="log", nice=False, padding=30)
    written = "~s" if cost == "parameters" else ".4~r"  # thousands and millions; else plain decimals
    if zeros:  # this scale has no ticks of its own that suit it
        values = [0, *(10.0**power for power in range(math.ceil(math.log10(below)), 13))]
        zero = "datum.value === 0 ? '0' : datum.label"
        ticks = alt.Axis(format=written, values=values, labelOverlap=True, labelExpr=zero)
    else:
        one = ONE.format("x").replace(".6~g", "~s" if cost == "parameters" else ".6~r")
        ticks = alt.Axis(format=written, tickCount=6, labelExpr=one)
    x = alt.X("cost:Q", scale=kind, title=title + (" (as measured)" if cost == "memory" else ""), axis=ticks)
    scale, axis = alt.Scale(zero=False, padding=18), alt.Axis(labelExpr=ONE.format("y"))
    y = alt.Y("score:Q", scale=scale, title="mean score", axis=axis)
    base = alt.Chart(data).encode(x=x, y=y)
    shown = tips("label:N", "score:Q", "cost:Q", "on the front:N")
    steps = (
        base.mark_line(interpolate="step-after", color=ACCENT, strokeWidth=2)
        .transform_filter("datum.front")
        .encode(order="cost:Q")
    )
    inside = (
        base.mark_point(size=70, color=MUTE, fill="transparent", strokeWidth=1.5, opacity=1)
        .encode(tooltip=shown)
        .transform_filter("!datum.front")
    )
    best = (
        base.mark_point(shape="diamond", size=140, color=ACCENT, fill=ACCENT, opacity=1)
        .encode(tooltip=shown)
        .transform_filter("datum.front")
    )
    names = (
        base.mark_text(align="center", dy=-13, color=INK, fontWeight="bold", fontSize=12)
        .encode(text="name:N")
        .transform_filter("datum.front")
    )
    others = (
        base.mark_text(align="center", dy=15, color=MUTE, fontSize=11)
        .encode(text="name:N")
        .transform_filter("!datum.front")
    )
    return alt.layer(steps, inside, best, others, names).properties(height=360)


def _curves(data: Any, rows: Rows, measure: str) -> Any:
    """Every seed a thin line, the mean over seeds a thick one; `highlight` names the one to look at."""
    import altair as alt

    positive = measure in ("loss", "grad_norm", "lr") and all(row["value"] > 0 for row in rows)
    scale = alt.Scale(type="log", nice=False, padding=6) if positive and measure != "lr" else alt.Scale(zero=False)
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
    ends = {side: alt.Axis(labelExpr=ONE.format(side)) for side in ("x", "y")}
    x = alt.X("step:Q", title="optimiser step", axis=ends["x"])
    y = alt.Y("value:Q", scale=scale, title=MEASURES[measure], axis=ends["y"])
    chosen = "highlight === '' || datum.label === highlight"
    base = alt.Chart(data).encode(x=x, color=colour, strokeDash=dash)
    seeds = base.mark_line(strokeWidth=1).encode(
        y=y, detail="run:N", opacity=alt.condition(chosen, alt.value(0.35), alt.value(0.04))
    )
    mean = base.mark_line(strokeWidth=2.5).encode(
        y=alt.Y("mean(value):Q", scale=scale, title=MEASURES[measure], axis=ends["y"]),
        opacity=alt.condition(chosen, alt.value(1), alt.value(0.08)),
    )
    return alt.layer(seeds, mean).add_params(alt.param(name="highlight", value="")).properties(height=340)
