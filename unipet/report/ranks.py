"""Ranks of methods over tasks: Friedman's test and Nemenyi's critical difference, as Demšar (2006) recommends them for the
comparison of several classifiers over several data sets. numpy and scipy; pure functions."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

LEVEL = 0.95
DIGITS = 12  # scores that agree in so many are equal


@dataclass(frozen=True)
class Ranking:
    """Mean ranks (k,) of k methods over `tasks`, 1 the best, and what Friedman's test says of them.

    `p` is that of Iman and Davenport's F, which Demšar (2006, p. 11) prefers to χ². Two methods differ where their mean ranks
    are further apart than `critical`. `alike`: the longest runs of methods within it, best first, as indices; all, where the
    test finds nothing.
    """

    mean: tuple[float, ...]
    tasks: int
    chi_square: float
    f: float
    p: float
    critical: float
    alike: tuple[tuple[int, ...], ...]

    @property
    def differ(self) -> bool:
        """Whether the test finds any difference."""
        return self.p <= 1 - LEVEL


def ranks(goodness: np.ndarray) -> np.ndarray:
    """Ranks (tasks, k) of scores (tasks, k) of which more is better: 1 is the best, equal scores share their mean rank."""
    from scipy.stats import rankdata

    return np.asarray(rankdata(-np.round(goodness, DIGITS), axis=1))


def ranking(mean: Sequence[float], tasks: int) -> Ranking:
    """Friedman's test (eq. in Demšar 2006, p. 11) and Nemenyi's critical difference, of mean ranks over `tasks` tasks."""
    from scipy.stats import f as f_distribution

    k, n = len(mean), tasks
    chi_square = 12 * n / (k * (k + 1)) * (sum(rank**2 for rank in mean) - k * (k + 1) ** 2 / 4)
    left = n * (k - 1) - chi_square
    f = math.inf if left <= 1e-12 else (n - 1) * chi_square / left
    p = 0.0 if math.isinf(f) else float(f_distribution.sf(f, k - 1, (k - 1) * (n - 1)))
    critical = critical_value(k) * math.sqrt(k * (k + 1) / (6 * n))
    found = p <= 1 - LEVEL
    return Ranking(tuple(mean), n, chi_square, f, p, critical, _alike(mean, critical if found else math.inf))


def critical_value(methods: int, level: float = LEVEL) -> float:
    """Nemenyi's q (Demšar 2006, Table 5a): the studentised range's quantile for infinitely many degrees of freedom, over √2."""
    from scipy.stats import studentized_range

    return float(studentized_range.ppf(level, methods, math.inf)) / math.sqrt(2)


def _alike(mean: Sequence[float], critical: float) -> tuple[tuple[int, ...], ...]:
    """The longest runs of at least two methods, from the best, that lie within `critical`."""
    best_first = sorted(range(len(mean)), key=lambda at: mean[at])
    found: list[tuple[int, ...]] = []
    for at, first in enumerate(best_first):
        run = tuple(other for other in best_first[at:] if mean[other] - mean[first] <= critical)
        if len(run) > 1 and not (found and set(run) <= set(found[-1])):
            found.append(run)
    return tuple(found)
