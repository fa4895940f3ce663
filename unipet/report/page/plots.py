"""The parts of the page that follow the chosen comparison; here those on scores and what they cost."""

from __future__ import annotations

from collections.abc import Sequence

from unipet.report.flagged import MARK
from unipet.report.numbers import figure, score
from unipet.report.page.charts import Drawn
from unipet.report.page.comparisons import COSTS, Comparison
from unipet.report.page.dimensions import dimensions
from unipet.report.page.learning import learning
from unipet.report.page.markup import choice, e, options, section, table, tag
from unipet.report.page.overview import verdicts
from unipet.report.page.places import Charts, numbers, per_group, place

SCORES = "Ring: one seed. Diamond: their mean. Line: ± one standard deviation."
FRONT = (
    "Filled and bold: on the Pareto front, where nothing has a score as good at no more cost. Means are taken as they are; "
    "the front does not say that a difference is more than noise. Names that would lie over others are left out: point at a mark."
)


def plots(comparisons: Sequence[Comparison], charts: Charts) -> str:
    """The choice of a comparison and all parts that follow it."""
    return tag(
        "div", picker(comparisons), *(part(comparisons, charts) for part in (scores, fronts, learning, dimensions))
    )


def picker(comparisons: Sequence[Comparison]) -> str:
    """The one choice that all charts follow: what is compared."""
    values = [(one.id, f"{one.title} · {len(one.scored)} configurations") for one in comparisons]
    label = tag("label", "comparison ", tag("select", options(values), id="comparison"))
    return tag("div", label, css="bar sticky", role="group", aria_label="what the charts show")


def scores(comparisons: Sequence[Comparison], charts: Charts) -> str:
    """Score by method, every seed a point, and what the tests say."""
    tables = "".join(
        table(
            f"Scores: {one.title}",
            ("configuration", f"mean {one.metric}", "± std", "seeds", "score of each seed"),
            [
                (
                    line.label,
                    score(line.row.score, line.row.scale) + (f" {MARK}" if line.row.flags else ""),
                    score(line.row.std, line.row.scale),
                    str(line.row.scored),
                    ", ".join(score(one, line.row.scale) for one in line.row.scores),
                )
                for line in one.shown
            ],
            (1, 2, 3),
            data_group=one.id,
        )
        for one in comparisons
    )
    said = "".join(tag("p", e(f"{_metric(one)}. {SCORES}"), css="note", data_group=one.id) for one in comparisons)
    unscored = {one.id for one in comparisons if not one.scored}
    return section(
        "scores",
        "Score by method",
        said,
        place("scores", "Scores of every seed by configuration"),
        per_group(comparisons, unscored, "No run of this comparison has a score."),
        numbers(tables),
        *map(verdicts, comparisons),
    )


def _metric(comparison: Comparison) -> str:
    """The metric, its scale, and which end of it is good where that is the lower one."""
    row = comparison.lines[0].row
    about = ", ".join(filter(None, [row.scale, "" if row.higher_is_better else "lower is better"]))
    return f"Metric: {comparison.metric or 'none yet'}" + (f" ({about})" if about else "")


def fronts(comparisons: Sequence[Comparison], charts: Charts) -> str:
    """Score against parameters, memory and time."""
    names = [(f"front-{cost}", cost) for cost in COSTS if f"front-{cost}" in charts]
    if not names:
        return ""
    tables = "".join(_front_table(one, cost, charts[name]) for name, cost in names for one in comparisons)
    missing = "".join(
        tag(
            "p",
            e(f"Without a recorded {cost}, so not in that chart: {', '.join(absent)}."),
            css="note",
            data_group=one.id,
        )
        for _, cost in names
        for one in comparisons
        if (absent := [line.label for line in one.scored if cost not in line.costs])
    )
    return section(
        "trade-offs",
        "Score against cost",
        choice("front", "cost", names),
        place(names[0][0], "Mean score against cost with the Pareto front"),
        tag("p", FRONT, css="note"),
        missing,
        numbers(tables),
    )


def _front_table(comparison: Comparison, cost: str, drawn: Drawn) -> str:
    _, _, title, pattern = COSTS[cost]
    rows, scale = [row for row in drawn.rows if row["group"] == comparison.id], comparison.lines[0].row.scale
    return table(
        f"Score against {title}: {comparison.title}",
        ("configuration", "mean score", title, "on the front"),
        [
            (row["label"], score(row["score"], scale), _cost(row["cost"], pattern), row["on the front"])
            for row in sorted(rows, key=lambda row: row["cost"])
        ],
        (1, 2),
        data_group=comparison.id,
        data_of=f"front-{cost}",
    )


def _cost(value: float, pattern: str) -> str:
    """A cost as its column writes it; of a small one as many digits as it needs."""
    return figure(value, int(pattern[-2])) if abs(value) < 1 else format(value, pattern)
