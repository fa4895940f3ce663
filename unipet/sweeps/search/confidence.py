"""Anytime-valid tests of a mean of paired differences: how sure it is, at any moment, that it is above zero.

The capital process of Waudby-Smith & Ramdas ("Estimating means of bounded random variables by betting", 2024, section 4): with
differences x_1, x_2, ... in [-1, 1], mapped to y = (x + 1)/2, the capital K_t = prod_{i<=t} (1 + b_i (y_i - 1/2)) starts at 1 and
has expectation of at most 1 under every distribution whose mean is not above zero, if b_i >= 0 is known before y_i. By Ville's
inequality the chance that K ever reaches 1/a is at most a. So 1/max K is a p-value that may be looked at at every moment.
The bets are the predictable plug-in of their eq. 26: b_i = min(sqrt(2 log(1/a) / (v_{i-1} i log(i + 1))), c / m) with m = 1/2,
c = 1/2 and v the variance so far.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

NULL = 0.5  # the mean of y when that of the differences is zero
SHARE = 0.5  # of the capital that may be lost in one bet


def worse_p(differences: Sequence[float], level: float) -> float:
    """The p-value of "the mean of `differences` (N,), each within [-1, 1], is at most zero", valid at every moment; small when
    the mean is above zero. `level` is the one at which it shall be judged: the bets are best there, valid anywhere."""
    capital = largest = 0.0  # logarithms
    mean, squares = 0.5, 0.25  # as if one observation had been seen before: eq. 26
    for count, difference in enumerate(differences, 1):
        value = (difference + 1) / 2
        variance = squares / count
        bet = min(math.sqrt(2 * math.log(1 / level) / (variance * count * math.log(count + 1))), SHARE / NULL)
        capital += math.log1p(bet * (value - NULL))
        largest = max(largest, capital)
        mean = (mean * count + value) / (count + 1)
        squares += (value - mean) ** 2
    return math.exp(-largest)
