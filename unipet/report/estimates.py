"""What pairs of configurations say of a change: a mean difference per task and over tasks, with interval and p-value.

Within a task, differences are averaged over the pairs of each seed (and few-shot split), so that what runs of one seed have in
common is not counted several times; the test is the one of `statistics.decided`. Over tasks, a task is a block: the means of
the tasks are averaged, and their variances added. Differences are signed so that more is better.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from unipet.report import statistics
from unipet.report.cases import Match
from unipet.report.identity import Block
from unipet.report.numbers import together
from unipet.report.scored import paired, resample
from unipet.report.standings import DIFFERENT, SAME, UNTESTED
from unipet.report.statistics import Stratum, known

ALL = "over tasks"


@dataclass(frozen=True)
class Estimated:
    """A difference on one task, or over several: its mean, its limits at 95 %, and what they speak of."""

    task: str  # or ALL
    model: str
    budget: str
    metric: str
    scale: str
    tasks: tuple[str, ...] = ()
    pairs: int = 0  # of configurations
    seeds: int = 0  # differences per task at least; blocks of split and seed, of few-shot runs
    splits: int = 1
    difference: float | None = None
    low: float | None = None
    high: float | None = None
    basis: str = ""
    p: float | None = None
    p_adjusted: float | None = None
    verdict: str = UNTESTED
    better: int = 0  # tasks whose mean difference is above zero
    p_tasks: float | None = None  # would other tasks say the same? Student's t over the means of the tasks
    tuned: tuple[str, ...] = ()  # settings that some pairs do not have in common, because they were tuned


@dataclass(frozen=True)
class _Task:
    task: str
    metric: str
    scale: str
    stratum: Stratum
    pairs: int
    blocks: tuple[Block, ...]
    tuned: tuple[str, ...]


def estimates(matches: Sequence[Match]) -> list[Estimated]:
    """One for each task, and where a base model and budget have several tasks, one over them."""
    places: dict[tuple[str, str], dict[str, list[Match]]] = {}
    for match in matches:
        tasks, models, budgets = ([case.place[part] for case in (match.a, match.b)] for part in range(3))
        place = (_both(models), _both(budgets))
        places.setdefault(place, {}).setdefault(_both(tasks), []).append(match)
    made = []
    for (model, budget), by_task in places.items():
        parts = [_task(task, some) for task, some in by_task.items()]
        made += [_estimated(part.task, model, budget, [part]) for part in parts]
        if len(parts) > 1 and (alike := _alike(parts)):
            made.append(_estimated(ALL, model, budget, alike))
    return made


def mean_difference(match: Match) -> float:
    """a - b of one pair, averaged over its blocks; more is better."""
    return float(np.mean([_single(match, block).differences[0] for block in match.blocks]))


def _both(names: Sequence[str]) -> str:
    return " vs ".join(dict.fromkeys(names))


def _task(task: str, matches: Sequence[Match]) -> _Task:
    """The differences by block, averaged over the pairs that have the block; over the blocks of all pairs, if these are two."""
    _resample(matches)
    shared = set.intersection(*(set(match.blocks) for match in matches))
    blocks = sorted(shared if len(shared) > 1 else {block for match in matches for block in match.blocks})
    rows, replicates = [], []
    examples = 0
    for block in blocks:
        some = [_single(match, block) for match in matches if block in match.blocks]
        rows.append(np.mean([each.differences[0] for each in some]))
        examples = max(examples, *(each.examples for each in some))
        drawn = [each.resampled[0] for each in some if each.resampled is not None]
        replicates.append(np.mean(drawn, axis=0) if len(drawn) == len(some) else None)
    splits = [split for split, _ in blocks]
    answered = [each for each in replicates if each is not None]
    resampled = statistics.by_split(np.stack(answered), splits) if len(answered) == len(blocks) else None
    row = matches[0].a.line.row
    return _Task(
        task,
        row.metric,
        row.scale,
        Stratum(statistics.by_split(np.array(rows), splits), resampled, examples if resampled is not None else 0),
        len(matches),
        tuple(blocks),
        tuple(dict.fromkeys(key for match in matches for key in match.tuned)),
    )


def _resample(matches: Sequence[Match]) -> None:
    """Scores on resampled examples of whatever has none yet: groups that are not ranked."""
    groups = {id(case.group): case.group for match in matches for case in (match.a, match.b)}
    for group in groups.values():
        resample(group.scored, [])


def _single(match: Match, block: Block) -> Stratum:
    a, b = match.a.line, match.b.line
    counts = {len(line.answers[block].ids) for line in (a, b) if block in line.answers}
    return paired(a, b, [block], counts.pop() if len(counts) == 1 else 0)


def _alike(parts: Sequence[_Task]) -> list[_Task]:
    """The tasks as they can be averaged; [] where their metrics' scales do not allow it."""
    common = together([part.scale for part in parts], [part.metric for part in parts])
    if common is None:
        return []
    scale, factors = common
    return [
        part if factor == 1.0 else replace(part, scale=scale, stratum=_scaled(part.stratum, factor))
        for part, factor in zip(parts, factors, strict=True)
    ]


def _scaled(stratum: Stratum, by: float) -> Stratum:
    resampled = None if stratum.resampled is None else by * stratum.resampled
    return Stratum(by * stratum.differences, resampled, stratum.examples)


def _estimated(task: str, model: str, budget: str, parts: Sequence[_Task]) -> Estimated:
    strata = [part.stratum for part in parts]
    basis, test = statistics.decided(strata)
    means = np.array([each.differences.mean() for each in strata])
    metrics, scales = (list(dict.fromkeys(getattr(part, what) for part in parts)) for what in ("metric", "scale"))
    return Estimated(
        task=task,
        model=model,
        budget=budget,
        metric=", ".join(metrics),
        scale=scales[0],
        tasks=tuple(part.task for part in parts),
        pairs=sum(part.pairs for part in parts),
        seeds=min(len(part.blocks) for part in parts),
        splits=max(len({split for split, _ in part.blocks}) for part in parts),
        difference=float(test.difference),
        low=known(test.low),
        high=known(test.high),
        basis=basis,
        p=known(test.p),
        better=int((means > 0).sum()),
        p_tasks=known(statistics.over_seeds(means).p) if len(means) > 1 else None,
        tuned=tuple(dict.fromkeys(key for part in parts for key in part.tuned)),
    )


def corrected(families: Mapping[object, Sequence[Estimated]]) -> dict[object, list[Estimated]]:
    """Holm's correction over each of two families: all estimates over tasks, and all of single tasks."""
    flat = [(key, at, each) for key, some in families.items() for at, each in enumerate(some)]
    adjusted: dict[tuple[object, int], float] = {}
    for over in (True, False):
        family = [(key, at, each.p) for key, at, each in flat if (each.task == ALL) == over and each.p is not None]
        values = statistics.holm([p for _, _, p in family])
        adjusted |= {(key, at): value for (key, at, _), value in zip(family, values, strict=True)}
    return {
        key: [
            replace(each, p_adjusted=p, verdict=DIFFERENT if p <= 1 - statistics.LEVEL else SAME)
            if (p := adjusted.get((key, at))) is not None
            else each
            for at, each in enumerate(some)
        ]
        for key, some in families.items()
    }
