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


def improvement(
    a: str, b: str, tasks: Sequence[tuple[np.ndarray, np.ndarray]], count: int = RESAMPLES, seed: int = 0
) -> Improvement:
    """`tasks`: for each task the scores of a's runs (K,) and of b's (L,), more is better; runs are not paired.

    The probability is the mean over tasks of the Mann-Whitney statistic, and its interval a stratified bootstrap: runs are
    resampled within each task, for each method on its own, and percentiles taken (rliable does the same).
    """
    rng, estimate, drawn = np.random.default_rng(seed), 0.0, np.zeros(count)
    for first, second in tasks:
        wins = (first[:, None] > second) + 0.5 * (first[:, None] == second)  # (K, L)
        estimate += wins.mean()
        times = [rng.multinomial(len(runs), np.full(len(runs), 1 / len(runs)), count) for runs in (first, second)]
        drawn += np.einsum("bk,kl,bl->b", times[0], wins, times[1]) / wins.size
    tail = (1 - LEVEL) / 2
    low, high = np.quantile(drawn / len(tasks), [tail, 1 - tail])
    return Improvement(a, b, float(estimate / len(tasks)), float(low), float(high))
