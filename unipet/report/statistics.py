"""Paired statistics of two methods: over seeds, over evaluation examples, over both; and Holm's correction.

The design is crossed: every seed of both methods answers the same examples. With d[s, i] the difference of two methods on
example i with seed s, d = mean + seed effect + example effect + rest. Two things were sampled, so there are two questions:

- over seeds: would other seeds, on these examples, say the same? Student's t over the differences of whole scores.
- over examples: would other examples, for these trained models, say the same? Examples are resampled with replacement, the
  same ones for every run; scores are computed again on each resample (`resampling.py`), differences averaged over seeds.

The combined answer adds both variances, less the part of the rest that both contain, and so speaks of other seeds *and*
other examples. Seeds are not resampled: a bootstrap of three seeds is too narrow by a third, Student's t is not.

Arrays: a leading shape `...` of independent comparisons, then seeds S, then resamples B. Differences are signed so that
more is better. numpy and scipy only; pure functions.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

Source = tuple[np.ndarray, float]  # a part of a variance, and its degrees of freedom

LEVEL = 0.95
SEEDS, EXAMPLES, BOTH = "seeds", "examples", "seeds and examples"  # what a test speaks of
RESAMPLES = 2000
SMALLEST = 1e-12  # p-value that is told apart from zero
BLOCK = 4_000_000  # weights held at a time


@dataclass(frozen=True)
class Estimate:
    """A difference (...), its confidence limits and its two-sided p-value; NaN where nothing can be said."""

    difference: np.ndarray
    low: np.ndarray
    high: np.ndarray
    p: np.ndarray


def resamples(examples: int, count: int = RESAMPLES, seed: int = 0) -> Iterator[np.ndarray]:
    """`count` bootstrap samples of `examples` in blocks (b, examples): how often each resample holds each example."""
    rng, left = np.random.default_rng(seed), count
    while left:
        size = min(left, max(1, BLOCK // examples))
        drawn = rng.integers(0, examples, (size, examples)) + examples * np.arange(size)[:, None]
        yield np.bincount(drawn.ravel(), minlength=size * examples).reshape(size, examples).astype(np.float64)
        left -= size


@dataclass(frozen=True)
class Stratum:
    """One task: the differences (..., S) of whole scores, and, where examples are known, on their resamples (..., S, B)."""

    differences: np.ndarray
    resampled: np.ndarray | None = None
    examples: int = 0


def over_seeds(differences: np.ndarray, level: float = LEVEL) -> Estimate:
    """Paired t-test over the seeds: `differences` (..., S) of whole scores; NaN for one seed."""
    return stratified([Stratum(differences)], SEEDS, level)


def over_examples(differences: np.ndarray, resampled: np.ndarray, examples: int, level: float = LEVEL) -> Estimate:
    """Paired bootstrap over examples, the trained models fixed. `resampled` (..., S, B): the differences on each resample.

    The interval is the estimate ± Student's t (examples - 1 degrees of freedom) times the bootstrap's standard error.
    """
    return stratified([Stratum(differences, resampled, examples)], EXAMPLES, level)


def combined(differences: np.ndarray, resampled: np.ndarray, examples: int, level: float = LEVEL) -> Estimate:
    """Over seeds and examples at once; needs two seeds, else NaN.

    The variance is (seeds) + (examples) - (rest, which both contain). Its quantile is Cochran's: Student's quantiles of
    the two sources, weighted by their variances. It errs on the cautious side (tests/report/test_statistics.py has numbers).
    """
    return stratified([Stratum(differences, resampled, examples)], BOTH, level)


def stratified(strata: Sequence[Stratum], basis: str, level: float = LEVEL) -> Estimate:
    """The mean over tasks of each one's mean difference, for these tasks: a task is a block and has variances of its own.

    `basis` is what is sampled within a task: SEEDS, EXAMPLES or BOTH; of one task the estimate is that of the three functions
    above. The variances of several tasks add up, with the degrees of freedom of Welch and Satterthwaite (1946).
    """
    by_seed: list[Source] = []
    by_example: list[Source] = []
    total = np.asarray(0.0)
    for each in strata:
        seeds, share, rest = each.differences.shape[-1], len(strata) ** -2, np.asarray(0.0)
        own, of_examples = np.asarray(0.0), np.asarray(0.0)
        if basis != EXAMPLES:
            own = _seed_variance(each.differences)
            by_seed.append((share * own, seeds - 1))
        if basis != SEEDS:
            assert each.resampled is not None
            of_examples, single = _example_variance(each.resampled, each.examples)
            by_example.append((share * of_examples, each.examples - 1))
            if basis == BOTH and seeds > 1:
                rest = np.maximum(single - of_examples, 0.0) / (seeds - 1)
        total = total + share * np.maximum(own + of_examples - rest, np.maximum(own, of_examples))
    sources = [_summed(parts) for parts in (by_seed, by_example) if parts]
    return _student(np.mean([each.differences.mean(-1) for each in strata], axis=0), sources, total, level)


def decided(strata: Sequence[Stratum]) -> tuple[str, Estimate]:
    """The test that decides, by what it speaks of: seeds and examples if both are known, else the one that is; "" for neither."""
    answered = all(each.resampled is not None for each in strata)
    for basis in (BOTH, EXAMPLES, SEEDS) if answered else (SEEDS,):
        estimate = stratified(strata, basis)
        if not np.isnan(estimate.p):
            return basis, estimate
    return "", stratified(strata, SEEDS)


def _summed(parts: Sequence[Source]) -> Source:
    """A sum of independent variances, and about how many degrees of freedom it has."""
    if len(parts) == 1:
        return parts[0]
    if any(freedom < 1 for _, freedom in parts):
        return np.sum([variance for variance, _ in parts], axis=0), min(freedom for _, freedom in parts)
    total = np.sum([variance for variance, _ in parts], axis=0)
    squares = sum(variance**2 / freedom for variance, freedom in parts)
    return total, float(total**2 / squares) if squares > 0 else sum(freedom for _, freedom in parts)


def by_split(values: np.ndarray, splits: Sequence[int]) -> np.ndarray:
    """Values by block (S, ...) as they are; of several few-shot splits, the mean over the seeds of each split, because runs on
    one split have its training examples in common and are no independent samples."""
    of = np.asarray(splits)
    if len(set(of.tolist())) < 2:
        return values
    return np.stack([values[of == split].mean(0) for split in np.unique(of)])


def _seed_variance(differences: np.ndarray) -> np.ndarray:
    """Of the mean over seeds, for these examples: seed effect / S + rest / (S N); NaN for one seed."""
    seeds = differences.shape[-1]
    if seeds < 2:
        return np.full(differences.shape[:-1], np.nan)
    return np.asarray(differences.var(-1, ddof=1) / seeds)


def _example_variance(resampled: np.ndarray, examples: int) -> tuple[np.ndarray, np.ndarray]:
    """Of the mean over seeds, for these models: example effect / N + rest / (S N); and the same of a single seed."""
    correction = examples / max(examples - 1, 1)  # the bootstrap's variance is that of the plug-in estimate
    return resampled.mean(-2).var(-1, ddof=1) * correction, resampled.var(-1, ddof=1).mean(-1) * correction


def _student(difference: np.ndarray, sources: Sequence[Source], variance: np.ndarray, level: float) -> Estimate:
    """Limits and p from a variance that stems from `sources` (variance, degrees of freedom)."""
    difference, error = np.asarray(difference), np.sqrt(variance)
    margin = _quantile(np.full(difference.shape, (1 + level) / 2), sources) * error
    p = np.where(np.isnan(margin), np.nan, _two_sided(difference, sources, error))
    exact = variance == 0  # no seed and no example differs from another: equal, or nothing to judge the difference by
    p = np.where(exact, np.where(difference == 0, 1.0, np.nan), p)
    margin = np.where(exact & (difference != 0), np.nan, margin)
    return Estimate(difference, difference - margin, difference + margin, p)


def _two_sided(difference: np.ndarray, sources: Sequence[Source], error: np.ndarray) -> np.ndarray:
    """The p-value: the tails at which the quantile, times the error, is the difference."""
    from scipy.special import stdtr

    with np.errstate(invalid="ignore", divide="ignore"):
        ratio = np.abs(difference) / error
    tails = [stdtr(max(freedom, 1), -ratio) for _, freedom in sources]
    if len(tails) == 1:
        return np.asarray(np.minimum(2 * tails[0], 1.0))
    # The mixed quantile lies between its sources', so its tail does, too. Bisection in the tail's logarithm.
    low, high = (np.log(np.maximum(pick(tails[0], tails[1]), SMALLEST)) for pick in (np.minimum, np.maximum))
    for _ in range(30):
        middle = (low + high) / 2
        within = _quantile(1 - np.exp(middle), sources) * error >= np.abs(difference)
        low, high = np.where(within, middle, low), np.where(within, high, middle)
    return np.minimum(2 * np.exp((low + high) / 2), 1.0)


def _quantile(probability: np.ndarray, sources: Sequence[Source]) -> np.ndarray:
    """Student's quantile; of several sources the mean, weighted by their variances (Cochran and Cox 1950)."""
    from scipy.special import stdtrit

    if any(freedom < 1 for _, freedom in sources):
        return np.full(np.shape(probability), np.nan)
    total = sum(variance for variance, _ in sources)
    with np.errstate(invalid="ignore", divide="ignore"):
        weighted = sum(stdtrit(freedom, probability) * variance for variance, freedom in sources) / total
    return np.where(np.asarray(total) > 0, weighted, 0.0)


def holm(values: Sequence[float]) -> list[float]:
    """Holm's (1979) adjusted p-values, in the order given: the chance of any false "different" in the family stays
    below the level, whatever depends on what."""
    count, largest = len(values), 0.0
    adjusted = [1.0] * count
    for rank, index in enumerate(sorted(range(count), key=lambda i: values[i])):
        largest = max(largest, min(1.0, (count - rank) * values[index]))
        adjusted[index] = largest
    return adjusted


def known(value: np.ndarray) -> float | None:
    """A number; None for NaN."""
    return None if np.isnan(value) else float(value)
