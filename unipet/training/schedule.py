"""The learning rate of every optimiser step as a share of `optim.lr`: a warm-up, then the schedule.

Steps count from 1. No step has learning rate 0: the warm-up starts above zero, and the decay ends above zero.
"""

from __future__ import annotations

import math


def warmup_steps(ratio: float, steps: int) -> int:
    """The number of warm-up steps: the share `ratio` of `steps`, rounded up, but never all of them."""
    return min(math.ceil(ratio * steps), steps - 1)


def rung_step(until: float, steps: int) -> int | None:
    """The step after which a training of `steps` ends early, at the share `until` of it, rounded up; None for the whole."""
    step = math.ceil(until * steps)
    return step if step < steps else None


def rate(schedule: str, step: int, steps: int, warmup: int) -> float:
    """The share of `optim.lr` at one step of 1..`steps`.

    Warm-up: k/(w+1) at the k-th of w steps, then 1. After it, with p the completed share of the remaining steps (0 at the
    first one): `linear` 1 - p, `cosine` (1 + cos πp)/2 (Loshchilov & Hutter 2017, eq. 5), `constant` 1.
    """
    if step <= warmup:
        return step / (warmup + 1)
    over = (step - 1 - warmup) / (steps - warmup)
    return {"linear": 1.0 - over, "cosine": (1.0 + math.cos(math.pi * over)) / 2, "constant": 1.0}[schedule]
