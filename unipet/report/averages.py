"""Methods over several tasks: mean scores, mean ranks, and how probable it is that one improves on another.

Only methods that have a score on every task are averaged, and only tasks on which runs may be ranked.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from unipet.report import statistics
from unipet.report.comparing import Group
from unipet.report.flagged import Flagged
from unipet.report.improvement import Improvement, improvement, resampled
from unipet.report.numbers import together
from unipet.report.ranks import Ranking, ranking, ranks
from unipet.report.scored import Scored
from unipet.report.statistics import SEEDS, Stratum, by_split, known

PAIRED = 30  # methods: of more, the best one alone is compared, with so many others at most:
COMPARED = 200


@dataclass(frozen=True)
class Average:
    """One method over the tasks: mean score with its limits at 95 %, mean rank."""

    label: str
    scores: tuple[float, ...]  # of each task, as recorded
    seeds: int  # of the task with the fewest
    rank: float
    mean: float | None = None
    low: float | None = None
    high: float | None = None
    flags: tuple[tuple[str, Flagged], ...] = ()  # (task, flag)


@dataclass(frozen=True)
class Averages:
    """The methods of one base model and budget, best rank first."""

    model: str
    budget: str
    tasks: tuple[str, ...]
    metrics: tuple[str, ...]
    scale: str  # of the means; "" where the metrics' scales allow none
    lines: tuple[Average, ...]
    ranking: Ranking
    improvements: tuple[Improvement, ...]
    missing: Mapping[str, tuple[str, ...]]  # label -> tasks on which it has no score
    unranked: tuple[str, ...] = ()  # tasks whose runs may not be ranked

    @property
    def name(self) -> str:
        return f"{len(self.tasks)} tasks, {self.model}, budget {self.budget}"


def averages(groups: Sequence[Group]) -> list[Averages]:
    """One for each base model and budget with at least two methods on at least two tasks."""
    places: dict[tuple[str, str], list[Group]] = {}
    for group in groups:
        if len(group.scored) > 1:
            places.setdefault((group.model, group.budget), []).append(group)
    made = [_averages(model, budget, some) for (model, budget), some in places.items()]
    return [each for each in made if each is not None]


def _averages(model: str, budget: str, groups: Sequence[Group]) -> Averages | None:
    ranked = sorted((group for group in groups if group.ranked), key=lambda group: group.task)
    by_task = [dict(zip(_names(group, ranked), group.scored, strict=True)) for group in ranked]
    labels = list(dict.fromkeys(label for lines in by_task for label in lines))
    missing = {
        label: tuple(group.task for group, lines in zip(ranked, by_task, strict=True) if label not in lines)
        for label in labels
    }
    whole = [label for label in labels if not missing[label]]
    if len(ranked) < 2 or len(whole) < 2:
        return None
    goodness = np.array([[lines[label].goodness for label in whole] for lines in by_task])
    mean_ranks = ranks(goodness).mean(0).tolist()
    order = sorted(range(len(whole)), key=lambda at: (mean_ranks[at], whole[at]))
    metrics = [group.scored[0].row.metric for group in ranked]
    scales = [group.scored[0].row.scale for group in ranked]
    alike = together(scales, metrics) if len({group.scored[0].row.sign for group in ranked}) == 1 else None
    scale, factors = alike or ("", [])
    lines = [
        _average(whole[at], [tasks[whole[at]] for tasks in by_task], mean_ranks[at], factors, ranked) for at in order
    ]
    return Averages(
        model=model,
        budget=budget,
        tasks=tuple(group.task for group in ranked),
        metrics=tuple(metrics),
        scale=scale,
        lines=tuple(lines),
        ranking=ranking([line.rank for line in lines], len(ranked)),
        improvements=tuple(_improvements([line.label for line in lines], by_task)),
        missing={label: tasks for label, tasks in missing.items() if tasks},
        unranked=tuple(group.task for group in groups if not group.ranked),
    )


def _names(group: Group, ranked: Sequence[Group]) -> list[str]:
    """What tells a group's lines from each other, on all tasks alike: the label, but the method where no task has two variants
    of it. A method that was tuned on each task, and became another variant there, is one method."""
    several = {
        method
        for each in ranked
        for method, count in Counter(line.row.method for line in each.scored).items()
        if count > 1
    }
    variants: dict[str, set[str]] = {}
    for line in (line for each in ranked for line in each.scored):
        variants.setdefault(line.row.method, set()).add(line.label)
    own = [(line.row.method, line.label) for line in group.scored]
    return [label if method in several or len(variants[method]) == 1 else method for method, label in own]


def _average(
    label: str, lines: Sequence[Scored], rank: float, factors: Sequence[float], groups: Sequence[Group]
) -> Average:
    strata = [
        Stratum(by_split(factor * np.array(list(line.scores.values())), [split for split, _ in line.scores]))
        for line, factor in zip(lines, factors, strict=False)
    ]
    test = statistics.stratified(strata, SEEDS) if strata else None
    return Average(
        label=label,
        scores=tuple(float(np.mean(list(line.scores.values()))) for line in lines),
        seeds=min(len(line.scores) for line in lines),
        rank=rank,
        mean=None if test is None else float(test.difference),
        low=None if test is None else known(test.low),
        high=None if test is None else known(test.high),
        flags=tuple((group.task, flag) for group, line in zip(groups, lines, strict=True) for flag in line.row.flags),
    )


def _improvements(labels: Sequence[str], by_task: Sequence[Mapping[str, Scored]]) -> list[Improvement]:
    """Every pair of methods, the one of better rank first. The runs of a method are resampled once, for all of its pairs."""
    scores = {
        label: [
            resampled(lines[label].row.sign * np.array(list(lines[label].scores.values())), (at, task))
            for task, lines in enumerate(by_task)
        ]
        for at, label in enumerate(labels)
    }
    firsts = labels if len(labels) <= PAIRED else labels[:1]
    return [
        improvement(a, b, list(zip(scores[a], scores[b], strict=True)))
        for at, a in enumerate(firsts)
        for b in labels[at + 1 : at + 1 + COMPARED]
    ]
