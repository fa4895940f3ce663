"""Which methods differ, and which cannot be told apart: every pair within one task, base model and budget.

A `Group` is what may be ranked together. Where its runs differ in more than the method (data, what chose the checkpoint,
what was spent), it names the difference and is not ranked, unless asked. Both verdicts are results: "different" and "not
distinguishable"; "not tested" says that the runs do not allow a test.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import combinations

from unipet.report import statistics
from unipet.report.aggregate import Row, grouped
from unipet.report.collect import Entry
from unipet.report.protocol import Difference, differing, some, unrecorded
from unipet.report.scored import Scored, paired, resample, scored_runs
from unipet.report.standings import BEST as BEST
from unipet.report.standings import DIFFERENT as DIFFERENT
from unipet.report.standings import NOT_WORSE as NOT_WORSE
from unipet.report.standings import SAME as SAME
from unipet.report.standings import UNTESTED as UNTESTED
from unipet.report.standings import WORSE as WORSE
from unipet.report.standings import standings
from unipet.report.statistics import known

ALPHA = 1 - statistics.LEVEL
FEW = 3  # seeds: fewer are warned of


@dataclass(frozen=True)
class Pair:
    """Two methods of a group: `a` has the higher mean score. All differences are a - b, signed so that more is better.

    `low` and `high` are the limits of the deciding test at 95 %, for this pair alone; `p_adjusted` is Holm's over the group.
    """

    a: str
    b: str
    seeds: int  # that both have; blocks of split and seed, of few-shot runs
    examples: int = 0
    difference: float | None = None
    low: float | None = None
    high: float | None = None
    basis: str = ""  # what the deciding test speaks of: "seeds and examples", "examples", "seeds", or nothing
    p: float | None = None  # of the deciding test
    p_adjusted: float | None = None
    verdict: str = UNTESTED
    splits: int = 1  # few-shot: over whose means the test is; 1: over the seeds themselves


@dataclass(frozen=True)
class Group:
    """The rows of one task, base model and budget, best first, and what the runs say about them."""

    task: str
    model: str
    budget: str
    rows: tuple[Row, ...]
    labels: tuple[str, ...]  # of the rows; with the budget where there are several
    pairs: tuple[Pair, ...] = ()
    warnings: tuple[str, ...] = ()
    differences: tuple[str, ...] = ()  # besides the method: reasons not to rank
    diff: tuple[Difference, ...] = ()  # the same, value by value; without budgets
    ranked: bool = True
    standings: Mapping[str, str] = field(default_factory=dict)  # row label -> BEST, NOT_WORSE, WORSE or UNTESTED
    scored: tuple[Scored, ...] = field(default=(), repr=False, compare=False)  # the scores of the rows that have any

    @property
    def best(self) -> tuple[str, ...]:
        """The rows with the best mean: several where they are equal, none where there is no ranking."""
        return tuple(label for label, standing in self.standings.items() if standing == BEST)

    @property
    def flagged(self) -> dict[str, Row]:
        """Label -> row, of those with flags."""
        return {label: row for label, row in zip(self.labels, self.rows, strict=True) if row.flags}

    @property
    def name(self) -> str:
        """Task, base model and budget, as a heading."""
        return f"{self.rows[0].task_label}, {self.model}, budget {self.budget}"


def compare(entries: Iterable[Entry], anyway: bool = False) -> list[Group]:
    """Every group with its pairs. `anyway` ranks across budgets and despite differences, which stay named.

    Raises `UnipetError` for a damaged predictions.jsonl.
    """
    rows: dict[tuple[str, ...], list[tuple[Row, list[Entry]]]] = {}
    for row, runs in grouped(entries):
        key = (row.task, row.model) if anyway else (row.task, row.model, row.budget)
        rows.setdefault(key, []).append((row, runs))
    return [_group(members, anyway) for members in rows.values()]


def _group(members: Sequence[tuple[Row, list[Entry]]], anyway: bool) -> Group:
    first = members[0][0]
    budgets = list(dict.fromkeys(row.budget for row, _ in members))
    labels = [row.label if len(budgets) == 1 else f"{row.label} [{row.budget}]" for row, _ in members]
    by_label = dict(zip(labels, (runs for _, runs in members), strict=True))
    diff = differing(by_label)
    differences = [str(each) for each in diff if each.hard]
    if len(budgets) > 1:
        differences.insert(0, f"budgets differ: {'; '.join(budgets)}")
    ranked = anyway or not differences
    warnings = [f"numbers may differ by rounding: {each}" for each in diff if not each.hard]
    if older := unrecorded(by_label):
        warnings.append(f"what must agree is read from configurations, since the records do not have it: {some(older)}")
    scored = [
        scored_runs(row, label, runs, warnings)
        for label, (row, runs) in zip(labels, members, strict=True)
        if row.score is not None
    ]
    few = [line.label for line in scored if len(line.scores) < FEW]
    if few:
        warnings.append(f"fewer than three seeds: {some(few)}. A standard deviation of so few says little")
    lost = [f"{row.label} ({row.runs - row.scored} of {row.runs})" for row, _ in members if row.scored < row.runs]
    if lost:
        warnings.append(f"runs without a score: {', '.join(lost)}. The mean is over the others")
    repeated = [f"{label} ({row.repeated})" for label, (row, _) in zip(labels, members, strict=True) if row.repeated]
    if repeated:
        warnings.append(f"several runs of one seed, of which one counts; left out: {', '.join(repeated)}")
    pairs = _pairs(scored, warnings) if ranked else []
    if any(pair.basis == "examples" for pair in pairs):
        warnings.append("one seed in common: the test speaks of these trained models, not of the methods")
    return Group(
        task=first.task,
        model=first.model,
        budget=", ".join(budgets),
        rows=tuple(row for row, _ in members),
        labels=tuple(labels),
        pairs=tuple(pairs),
        warnings=tuple(warnings),
        differences=tuple(differences),
        diff=tuple(each for each in diff if each.hard),
        ranked=ranked,
        standings=standings({line.label: line.goodness for line in scored}, pairs) if ranked else {},
        scored=tuple(scored),
    )


def _pairs(scored: Sequence[Scored], warnings: list[str]) -> list[Pair]:
    """Every pair, tested. Holm's correction is over all of them, because the same data choose the best row."""
    examples = resample(scored, warnings)
    ordered = sorted(scored, key=lambda line: line.goodness, reverse=True)
    pairs = [_pair(a, b, examples) for a, b in combinations(ordered, 2)]
    tested = [pair.p for pair in pairs if pair.p is not None]
    adjusted = iter(statistics.holm(tested))
    judged = []
    for pair in pairs:
        p = None if pair.p is None else next(adjusted)
        verdict = UNTESTED if p is None else DIFFERENT if p <= ALPHA else SAME
        judged.append(replace(pair, p_adjusted=p, verdict=verdict))
    return judged


def _pair(a: Scored, b: Scored, examples: int) -> Pair:
    """One comparison: over seeds and examples where both are known, else over the one that is."""
    seeds = sorted(a.scores.keys() & b.scores.keys())
    if not seeds:
        return Pair(a.label, b.label, 0)
    stratum = paired(a, b, seeds, examples)
    if (
        len(seeds) == 1 and stratum.resampled is None
    ):  # no test; of a sweep over many values there are very many such pairs
        return Pair(a.label, b.label, 1, difference=float(stratum.differences[0]))
    basis, test = statistics.decided([stratum])
    return Pair(
        a=a.label,
        b=b.label,
        seeds=len(seeds),
        examples=stratum.examples,
        difference=float(test.difference),
        low=known(test.low),
        high=known(test.high),
        basis=basis,
        splits=len({split for split, _ in seeds}),
        p=known(test.p),
    )
