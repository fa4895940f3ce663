"""Tuning-effort curves: the best score that a search of n trials may expect, per method, from the trials that were run.

Dodge et al., "Show Your Work" (2019), eq. 2-4: of N independent trials with scores v_1 <= ... <= v_N, the best of n drawn with
replacement is v_i with probability (i/N)^n - ((i-1)/N)^n; the curve is its expectation for n = 1..N. The interval is the 2.5 to
97.5 % range of the curve over resampled trials (percentile bootstrap). Both speak of the selection split, on which trials are
scored, and not of the reported one.

Trials of halving and racing are the draws of a random search, too, but those that were stopped early have the score of their last
rung alone. It counts as theirs: a curve is too low where all of n draws had been stopped.

Trials of a model-based search follow from those before, so that nothing can be resampled: its curve is the best score after each
trial as it ran, without an interval, beside that of random search.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from unipet.output.csv_text import csv_text
from unipet.output.text_table import text_table
from unipet.report.aggregate import budget_of, is_synthetic, named, score_of
from unipet.report.collect import Entry

INDEPENDENT = ("random", "grid")  # searches whose trials do not depend on the outcomes of others
STOPPING = ("halving", "racing")  # the same, but a trial may have been stopped before its end
MODELLED = ("optuna",)  # searches of which each trial depends on those before
RESAMPLES, LEVEL = 2000, 0.95
SHOWN = (1, 2, 4, 8, 16, 32, 64, 128)  # numbers of trials in the text, and how many there were
SCORELESS = "trials without a score, which count as the worst one"
STOPPED = "trials that were stopped early, which count with the score of their last rung"
COLUMNS = (
    "task",
    "model",
    "budget",
    "metric",
    "method",
    "study",
    "search",
    "trials",
    "expected_best",
    "low",
    "high",
    "stopped",
)


@dataclass(frozen=True)
class Curve:
    """A study: the expected best score of 1..N trials and the limits of its interval, on the scale of the metric."""

    task: str
    model: str
    budget: str
    metric: str
    method: str
    study: str
    search: str
    expected: tuple[float, ...]
    low: tuple[float, ...]
    high: tuple[float, ...]
    scoreless: int = 0  # trials without a score: each counts as the worst one
    as_ran: bool = False  # the best so far of one search as it ran, without an interval
    stopped: int = 0  # trials that did not come to their end: each counts with the score that it had

    @property
    def place(self) -> tuple[str, str, str, str]:
        """What its scores may be compared within: task, base model, budget, metric."""
        return self.task, self.model, self.budget, self.metric

    @property
    def label(self) -> str:
        """The method, or the study where that says more."""
        name = self.study if self.study and self.study != f"method={self.method}" else self.method
        return f"{name} ({self.search}, as it ran)" if self.as_ran else name


@dataclass
class _Trials:
    sign: float = 1.0
    metric: str = ""
    by_number: dict[int, tuple[float, list[float | None]]] = field(
        default_factory=dict
    )  # share of the training, scores

    def join(self, number: int, until: float, score: float | None) -> None:
        """Another run of a trial; only those that trained for longest count."""
        share, scores = self.by_number.get(number, (0.0, []))
        if until >= share:
            self.by_number[number] = (until, [*(scores if until == share else []), score])


def expected_best(scores: np.ndarray) -> np.ndarray:
    """E[max of n draws] (..., N) for n = 1..N from `scores` (..., N), with replacement."""
    ordered, count = np.sort(scores, -1), scores.shape[-1]
    below = (np.arange(count + 1) / count)[:, None] ** np.arange(1, count + 1)  # P(best of n is among the i lowest)
    return np.asarray(ordered @ np.diff(below, axis=0))


def curves(trials: Sequence[Entry]) -> list[Curve]:
    """One curve for each study of a search that has trials, in the order in which they come."""
    studies: dict[tuple[str, ...], _Trials] = {}
    for entry in trials:
        record = entry.record
        trial = record.trial
        if trial.search not in (*INDEPENDENT, *STOPPING, *MODELLED) or trial.number is None:
            continue
        if trial.until < 1 and trial.search not in STOPPING:
            continue
        task = f"{named(record.task)} (synthetic)" if is_synthetic(entry) else named(record.task)
        place = (task, named(record.model), budget_of(entry), named(record.method))
        known = studies.setdefault((*place, trial.study, trial.search), _Trials())
        known.join(trial.number, trial.until, score_of(record))
        if record.metric:
            known.metric, known.sign = record.metric, 1.0 if record.data.scoring.higher_is_better else -1.0
    made = [_curve(key, known) for key, known in studies.items()]
    return [curve for curve in made if curve is not None]


def _curve(key: tuple[str, ...], known: _Trials) -> Curve | None:
    means = [
        None
        if any(score is None for score in scores)
        else known.sign * float(np.mean([s for s in scores if s is not None]))
        for _, (_, scores) in sorted(known.by_number.items())
    ]
    scored = [mean for mean in means if mean is not None]
    if not scored:
        return None
    values = np.array([min(scored) if mean is None else mean for mean in means])
    if key[-1] in MODELLED:
        best = tuple((known.sign * np.maximum.accumulate(values)).tolist())
        task, model, budget, method, study, search = key
        place = (task, model, budget, known.metric, method, study, search)
        return Curve(*place, best, best, best, len(means) - len(scored), as_ran=True)
    drawn = np.random.default_rng(0).integers(0, len(values), (RESAMPLES, len(values)))
    tail = (1 - LEVEL) / 2
    limits = np.quantile(expected_best(values[drawn]), [tail, 1 - tail], axis=0)
    low, high = np.sort(known.sign * limits, axis=0).tolist()
    task, model, budget, method, study, search = key
    return Curve(
        *(task, model, budget, known.metric, method, study, search),
        *(tuple((known.sign * expected_best(values)).tolist()), tuple(low), tuple(high)),
        len(means) - len(scored),
        stopped=sum(until < 1 for until, _ in known.by_number.values()),
    )


def curve_cells(curves_of: Sequence[Curve]) -> list[tuple[str, list[str], list[list[str]]]]:
    """A title, heads and rows for each task, base model, budget and metric."""
    tables = []
    for place in dict.fromkeys(curve.place for curve in curves_of):
        own = [curve for curve in curves_of if curve.place == place]
        most = max(len(curve.expected) for curve in own)
        counts = [*(n for n in SHOWN if n < most), most]
        rows = [[curve.label, *(_cell(curve, n) for n in counts)] for curve in own]
        task, model, budget, metric = place
        tables.append(
            (f"best {metric}: {task}, {model}, budget {budget}", ["study", *(f"n={n}" for n in counts)], rows)
        )
    return tables


def curves_text(curves_of: Sequence[Curve]) -> str:
    """For the terminal."""
    parts = [
        "what n trials may expect on the selection split (Dodge et al. 2019), with the 95 % range of resampled trials; of a "
        "model-based search the best after n trials, as it ran:"
    ]
    parts += [f"{title}\n{text_table(heads, rows)}" for title, heads, rows in curve_cells(curves_of)]
    for told, counts in (
        (SCORELESS, [curve.scoreless for curve in curves_of]),
        (STOPPED, [curve.stopped for curve in curves_of]),
    ):
        if any(counts):
            of = [f"{curve.label} on {curve.task} ({n})" for curve, n in zip(curves_of, counts, strict=True) if n]
            parts += [f"{told}: {', '.join(of)}"]
    return "\n".join(parts)


def _cell(curve: Curve, count: int) -> str:
    if count > len(curve.expected):
        return "-"
    if curve.as_ran:
        return f"{curve.expected[count - 1]:.4f}"
    return f"{curve.expected[count - 1]:.4f} [{curve.low[count - 1]:.4f}, {curve.high[count - 1]:.4f}]"


def curves_csv(curves_of: Sequence[Curve]) -> str:
    """One line for each study and number of trials, in full precision."""
    lines: list[list[object]] = [[*COLUMNS]]
    for curve in curves_of:
        names = (curve.task, curve.model, curve.budget, curve.metric, curve.method, curve.study, curve.search)
        for count, values in enumerate(zip(curve.expected, curve.low, curve.high, strict=True), 1):
            lines.append([*names, count, *values, curve.stopped])
    return csv_text(lines)
