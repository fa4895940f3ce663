"""The probability that a run of one method is better than a run of another one, over tasks (Agarwal et al. 2021, section 4.3)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

RESAMPLES, LEVEL = 2000, 0.95


@dataclass(frozen=True)
class Improvement:
    """P(a run of `a` is better than a run of `b`), equal scores counting one half, and the limits of its interval."""

    a: str
    b: str
    probability: float
    low: float
    high: float


@dataclass(frozen=True, eq=False)
class Resampled:
    """The scores (K,) of one method's runs on one task, and how often each of B resamples holds each run (B, K)."""

    scores: np.ndarray
    times: np.ndarray


def resampled(scores: np.ndarray, stream: Sequence[int], count: int = RESAMPLES) -> Resampled:
    """Bootstrap samples of the runs with `scores` (K,), drawn from a random stream of their own."""
    runs = len(scores)
    return Resampled(
        scores, np.random.default_rng(stream).multinomial(runs, np.full(runs, 1 / runs), count).astype(float)
    )


def improvement(a: str, b: str, tasks: Sequence[tuple[Resampled, Resampled]]) -> Improvement:
    """`tasks`: for each task a's runs and b's, more is better; runs are not paired.

    The probability is the mean over tasks of the Mann-Whitney statistic, and its interval a stratified bootstrap: runs are
    resampled within each task, for each method on its own, and percentiles taken (rliable does the same).
    """
    estimate, drawn = 0.0, np.zeros(len(tasks[0][0].times))
    for first, second in tasks:
        x, y = first.scores[:, None], second.scores
        wins = (x > y) + 0.5 * (x == y)  # (K, L)
        estimate += wins.mean()
        drawn += ((first.times @ wins) * second.times).sum(1) / wins.size
    tail = (1 - LEVEL) / 2
    low, high = np.quantile(drawn / len(tasks), [tail, 1 - tail])
    return Improvement(a, b, float(estimate / len(tasks)), float(low), float(high))
