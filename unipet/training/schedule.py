"""The learning rate of every optimiser step, as a share of `optim.lr`: warm-up, then what the schedule's name says.

Steps count from 1. No step has rate 0: the warm-up ends below the full rate, the decay above zero.
"""

from __future__ import annotations

import math


def warmup_steps(ratio: float, steps: int) -> int:
    """How many of `steps` warm up: their share `ratio`, rounded up, but never the last step."""
    return min(math.ceil(ratio * steps), steps - 1)


def rate(schedule: str, step: int, steps: int, warmup: int) -> float:
    """The share of `optim.lr` at one step of 1..`steps`: k/(w+1) at the k-th of w warm-up steps, 1 at the step after.

    Then, with the part p of the rest that is over (0 at its first step): `linear` 1 - p, `cosine` (1 + cos πp)/2
    (Loshchilov & Hutter 2017, eq. 5), `constant` 1.
    """
    if step <= warmup:
        return step / (warmup + 1)
    over = (step - 1 - warmup) / (steps - warmup)
    return {"linear": 1.0 - over, "cosine": (1.0 + math.cos(math.pi * over)) / 2, "constant": 1.0}[schedule]
