"""The numbers behind the charts, as rows; the tables beside the charts show the same."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

from unipet.report.aggregate import score_of
from unipet.report.averages import Averages
from unipet.report.effect_rows import Effect
from unipet.report.estimates import mean_difference
from unipet.report.page.comparisons import Comparison, Line
from unipet.report.page.curves import POINTS, curve, points_per_run
from unipet.report.page.dimensions import effects_on
from unipet.report.page.names import readable
from unipet.report.page.pareto import front
from unipet.report.tuning import Curve

Rows = list[dict[str, Any]]


def seed_points(comparisons: Sequence[Comparison]) -> Rows:
    """One row per scored run that is shown by itself; `first` marks one per configuration, for what is drawn once."""
    rows = []
    for comparison in comparisons:
        for rank, line in enumerate(comparison.shown):
            mean, std = line.row.score, line.row.std
            assert mean is not None
            spread = (
                {"std": _round(std), "low": _round(mean - std), "high": _round(mean + std)} if std is not None else {}
            )
            scored = [entry for entry in line.single if score_of(entry.record) is not None]
            rows += [
                {
                    "group": comparison.id,
                    "label": line.label,
                    "rank": rank,
                    "seed": str(entry.record.seed),
                    "score": _round(score_of(entry.record)),
                    "mean": _round(mean),
                    "seeds": line.row.scored,
                    "first": number == 0,
                    **spread,
                }
                for number, entry in enumerate(scored)
            ]
    return rows


def cost_points(comparisons: Sequence[Comparison], cost: str) -> Rows:
    """One row per configuration whose score and cost are known."""
    rows = []
    for comparison in comparisons:
        best = {line.id for line in front(comparison.scored, cost)}
        known = [line for line in comparison.scored if cost in line.costs]
        places = [(line.costs[cost], line.row.score or 0.0) for line in known]
        names = readable(_names(known), places, [line.id in best for line in known])
        rows += [
            {
                "group": comparison.id,
                "label": line.label,
                "name": name,
                "score": _round(line.row.score),
                "cost": _round(line.costs[cost]),
                "front": line.id in best,
                "on the front": "yes" if line.id in best else "no",
            }
            for line, name in zip(known, names, strict=True)
        ]
    return rows


def _names(lines: Sequence[Line]) -> list[str]:
    """What is written beside a point: the method, with its variant where it has several."""
    count = Counter(line.row.method for line in lines)
    return [line.label if count[line.row.method] > 1 else line.row.method for line in lines]


def curve_points(comparisons: Sequence[Comparison], points: int = POINTS) -> dict[str, Rows]:
    """Measure -> one row per step of every run that is shown by itself and is finished or still running."""
    runs = sum(len(line.single) for comparison in comparisons for line in comparison.lines)
    by_measure: dict[str, Rows] = {}
    for comparison, line in _lines(comparisons):
        for entry in line.single:
            if entry.record.status not in ("ok", "running"):
                continue  # a diverged run's loss would hide all others
            for measure, steps in curve(entry, points_per_run(runs, points)).items():
                name = f"{line.id}s{entry.record.seed}"
                by_measure.setdefault(measure, []).extend(
                    {"group": comparison.id, "label": line.label, "run": name, "step": step, "value": _round(value)}
                    for step, value in steps
                )
    return by_measure


def effect_points(comparisons: Sequence[Comparison], effects: Sequence[Effect]) -> Rows:
    """One row per pair of configurations; `first` marks one per change, for what is drawn once."""
    rows = []
    for comparison in comparisons:
        for rank, (effect, each, matches) in enumerate(effects_on(effects, comparison)):
            change = effect.change
            interval = {} if each.low is None else {"low": _round(each.low), "high": _round(each.high)}
            rows += [
                {
                    "group": comparison.id,
                    "label": f"{change.factor}: {change.before} → {change.after}",
                    "rank": rank,
                    "before": match.b.line.label,
                    "after": match.a.line.label,
                    "difference": _round(mean_difference(match)),
                    "seeds": len(match.blocks),
                    "rest": "the optimiser's settings differ, too" if match.tuned else "everything else is the same",
                    "mean": _round(each.difference),
                    "pairs": len(matches),
                    "first": number == 0,
                    **interval,
                }
                for number, match in enumerate(matches)
            ]
    return rows


def effort_points(tuning: Sequence[Curve]) -> Rows:
    """One row per study and number of trials; `group` is the number of its task, base model, budget and metric."""
    places = list(dict.fromkeys(curve.place for curve in tuning))
    return [
        {
            "group": str(places.index(curve.place)),
            "label": curve.label,
            "trials": count,
            "best": _round(best),
            "low": _round(low),
            "high": _round(high),
        }
        for curve in tuning
        for count, (best, low, high) in enumerate(zip(curve.expected, curve.low, curve.high, strict=True), 1)
    ]


def rank_points(averages: Sequence[Averages]) -> Rows:
    """One row per method; and one for each run of methods that ranks do not tell apart, from its best to its worst rank."""
    rows: Rows = []
    for number, each in enumerate(averages):
        for line in each.lines:
            rows.append(
                {"group": str(number), "label": line.label, "rank": _round(line.rank), "score": _round(line.mean)}
            )
        for alike in each.ranking.alike:
            ends = [each.lines[at].rank for at in (alike[0], alike[-1])]
            names = ", ".join(each.lines[at].label for at in alike)
            rows.append(
                {
                    "group": str(number),
                    "label": each.lines[alike[-1]].label,
                    "from": _round(ends[0]),
                    "to": _round(ends[1]),
                    "not distinguishable": names,
                }
            )
    return rows


def _lines(comparisons: Sequence[Comparison]) -> Iterator[tuple[Comparison, Line]]:
    for comparison in comparisons:
        for line in comparison.lines:
            yield comparison, line


def _round(value: float | None) -> float | None:
    """Six significant digits: more than a chart can show."""
    return None if value is None else float(f"{value:.6g}")
