"""How each row of a group compares with the best row."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from unipet.report.comparing import Pair

DIFFERENT, SAME, UNTESTED = "different", "not distinguishable", "not tested"  # verdicts on pairs
BEST, NOT_WORSE, WORSE = "best", "not distinguishable from the best", "worse than the best"


def tied(a: float, b: float) -> bool:
    """Whether two means are equal. Adding the same numbers in another order rounds differently; that much may differ."""
    return math.isclose(a, b, rel_tol=1e-12, abs_tol=1e-15)


def standings(means: Mapping[str, float], pairs: Sequence[Pair]) -> dict[str, str]:
    """Label -> how the row stands to the best mean. Rows that share the best mean are all best; one row alone is not.

    `means`: label -> mean score, turned so that more is better. Another row is worse where it differs from every best one
    that it was tested against, and not tested where none was.
    """
    if len(means) < 2 or not pairs:
        return {}
    top = max(means.values())
    best = {label for label, mean in means.items() if tied(mean, top)}
    against: dict[str, set[str]] = {label: set() for label in means}  # the verdicts of its pairs with best ones
    for pair in pairs:
        if pair.a in best or pair.b in best:
            against[pair.a].add(pair.verdict)
            against[pair.b].add(pair.verdict)
    standing_of = {}
    for label, verdicts in against.items():
        if label in best:
            standing_of[label] = BEST
        elif SAME in verdicts:
            standing_of[label] = NOT_WORSE
        else:
            standing_of[label] = WORSE if DIFFERENT in verdicts else UNTESTED
    return standing_of
