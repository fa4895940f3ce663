"""Draws from a search space: every one a function of the space, the seed and its number, and of nothing else."""

from __future__ import annotations

import itertools
import math
import random
from collections.abc import Sequence

from unipet.compose.search_space import SearchedKey, SearchSpace
from unipet.errors import UnipetError

DIGITS = 4  # significant ones of a number that is drawn
TRIES = 1000  # for a draw that differs from those before

Choice = tuple[float | int | str, ...]  # a value for every searched key, in their order


def count(space: Sequence[SearchedKey]) -> float:
    """How many combinations there are; infinite with an interval of real numbers."""
    sizes = [len(each.texts) or (each.high - each.low + 1 if each.whole else math.inf) for each in space]
    return math.prod(sizes)


def all_choices(space: Sequence[SearchedKey]) -> list[Choice]:
    """Every combination, the last key varying fastest. Raises `UnipetError` for an interval."""
    if (interval := next((each for each in space if not each.texts), None)) is not None:
        raise UnipetError(
            f"search=grid: {interval.key} is an interval, of which a grid has no list. Write choice(A, B, ...) or "
            "range(LOW, HIGH, STEP), or use search=random."
        )
    return list(itertools.product(*(each.texts for each in space)))


def random_choices(space: SearchSpace, trials: int, seed: int) -> list[Choice]:
    """`trials` different combinations, drawn independently. Spaces draw the same for the keys that they have in common.
    Raises `UnipetError` where there are not so many."""
    if (there := count(space.keys)) < trials:
        raise UnipetError(
            f"search.trials: {trials} given, but the space has {there:g} combinations. Set search.trials={there:g}, or "
            "search=grid for all of them."
        )
    choices: dict[Choice, None] = {}
    for number in range(trials * TRIES):
        if len(choices) == trials:
            break
        stream = random.Random(f"{seed} {number}")
        values = {each.key: _draw(each, stream) for each in space.common}
        values |= {each.key: _draw(each, random.Random(f"{seed} {number} {each.key}")) for each in space.own}
        choices.setdefault(tuple(values.values()))
    if len(choices) < trials:
        raise UnipetError(
            f"search.trials: {trials} different combinations were not found. Set fewer, or widen an interval."
        )
    return list(choices)


def _draw(key: SearchedKey, stream: random.Random) -> float | int | str:
    """One value, uniform over the texts, or over the interval on its scale."""
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


def rounded(value: float, low: float, high: float) -> float:
    """To a few digits, as a person would write it, within the interval."""
    return min(max(float(f"{value:.{DIGITS}g}"), low), high)
