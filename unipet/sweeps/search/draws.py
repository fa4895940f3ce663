"""Draws from a search space: every one a function of the space, the seed and its number, and of nothing else."""

from __future__ import annotations

import itertools
import math
import random
from collections.abc import Iterator, Sequence

from unipet.compose.search_space import SearchedKey, SearchSpace
from unipet.errors import UnipetError

DIGITS = 4  # significant ones of a number that is drawn
TRIES = 1000  # for a draw that differs from those before

Choice = tuple[float | int | str, ...]  # a value for every searched key, in their order


def count(space: Sequence[SearchedKey]) -> float:
    """How many combinations there are; infinite with an interval of real numbers."""
    sizes = [
        2 ** len(each.texts) - 1
        if each.subset
        else len(each.texts) or (each.high - each.low + 1 if each.whole else math.inf)
        for each in space
    ]
    return math.prod(sizes)


def all_choices(space: Sequence[SearchedKey]) -> list[Choice]:
    """Every combination, the last key varying fastest. Raises `UnipetError` for an interval."""
    if (interval := next((each for each in space if not each.texts), None)) is not None:
        raise UnipetError(
            f"search=grid: {interval.key} is an interval, of which a grid has no list. Write choice(A, B, ...) or "
            "range(LOW, HIGH, STEP), or use search=random."
        )
    return list(itertools.product(*(_subsets(each) if each.subset else each.texts for each in space)))


def draws(space: SearchSpace, seed: int | str) -> Iterator[Choice]:
    """Different combinations, each drawn independently, until no further one is found. Spaces draw the same for the keys that
    they have in common."""
    seen: set[Choice] = set()
    there, misses = count(space.keys), 0
    for number in itertools.count():
        if len(seen) >= there or misses == TRIES * max(len(seen), 1):
            return
        stream = random.Random(f"{seed} {number}")
        values = {each.key: _draw(each, stream) for each in space.common}
        values |= {each.key: _draw(each, random.Random(f"{seed} {number} {each.key}")) for each in space.own}
        misses += 1
        if (choice := tuple(values.values())) not in seen:
            misses = 0
            seen.add(choice)
            yield choice


def random_choices(space: SearchSpace, trials: int, seed: int | str) -> list[Choice]:
    """The first `trials` draws. Raises `UnipetError` where there are not so many."""
    if (there := count(space.keys)) < trials:
        raise UnipetError(
            f"search.trials: {trials} given, but the space has {there:g} combinations. Set search.trials={there:g}, or "
            "search=grid for all of them."
        )
    choices = list(itertools.islice(draws(space, seed), trials))
    if len(choices) < trials:
        raise UnipetError(
            f"search.trials: {trials} different combinations were not found. Set fewer, or widen an interval."
        )
    return choices


def _draw(key: SearchedKey, stream: random.Random) -> float | int | str:
    """One value, uniform over the texts, or over the interval on its scale."""
    if key.subset:  # each non-empty subset is equally likely
        drawn: list[str] = []
        while not drawn:
            drawn = [text for text in key.texts if stream.random() < 0.5]
        return listed(drawn)
    if key.texts:
        return stream.choice(key.texts)
    low, high = key.low, key.high
    if key.whole and not key.log:
        return stream.randint(int(low), int(high))
    if key.whole:  # every whole number has the share of its unit interval
        value = math.exp(stream.uniform(math.log(low - 0.5), math.log(high + 0.5)))
        return min(max(round(value), int(low)), int(high))
    value = math.exp(stream.uniform(math.log(low), math.log(high))) if key.log else stream.uniform(low, high)
    return rounded(value, low, high)


def listed(texts: Sequence[str]) -> str:
    """A subset as an override writes it."""
    return f"[{','.join(texts)}]"


def _subsets(key: SearchedKey) -> list[str]:
    sizes = range(1, len(key.texts) + 1)
    return [listed(part) for size in sizes for part in itertools.combinations(key.texts, size)]


def rounded(value: float, low: float, high: float) -> float:
    """To a few digits, as a person would write it, within the interval."""
    return min(max(float(f"{value:.{DIGITS}g}"), low), high)
