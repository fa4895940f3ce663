"""What all regularisers have: a weight, its schedule over the steps, and what one of them may read.

Shapes: N answers of a micro-batch, C classes.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from torch import Tensor

from unipet.calculus.options import option
from unipet.calculus.router_use import RouterUse

HEAVIEST = 1e6  # of a weight: the loss stays within float32
#: How a weight changes; `over` is the share of the steps that this takes.
SCHEDULES: dict[str, str] = {
    "constant": "the weight at every step",
    "linear_warmup": "rises to the weight in equal steps at the beginning of training, then stays",
    "linear_decay": "the weight, which falls towards 0 in equal steps at the end of training",
    "cosine_decay": "the weight, which falls towards 0 along half a cosine at the end of training",
}


@dataclass(frozen=True)
class Regulariser:
    """A term that an objective adds to the task's loss: `weight` times what a subclass computes."""

    weight: float = option(1.0, low=0.0, high=HEAVIEST)
    schedule: str = option("constant", choices=tuple(SCHEDULES))
    over: float = option(1.0, above=0.0, high=1.0)

    @property
    def passes(self) -> int:
        """How many stochastic passes over a batch (views) it needs."""
        return 1

    @property
    def task_passes(self) -> int:
        """How many of the views the task's loss is the mean of."""
        return 1

    def weight_at(self, step: int, steps: int) -> float:
        """The weight in step `step` of `steps`, counted from 0. It is never 0 because of the schedule."""
        length = self.over * steps
        begun = min(1.0, (step + 1) / length)
        left = min(1.0, (steps - step) / length)
        factor = {
            "constant": 1.0,
            "linear_warmup": begun,
            "linear_decay": left,
            "cosine_decay": 0.5 * (1 - math.cos(math.pi * left)),
        }
        return self.weight * factor[self.schedule]


@dataclass(frozen=True)
class Answers:
    """What a model said about a micro-batch: for each view the logits of the answers, (N, C) in float32, and the teacher's.
    Where an answer has `several` labels, each logit is of a yes or no of its own."""

    views: Sequence[Tensor]
    regression: bool = False
    teacher: Tensor | None = None
    several: bool = False


@dataclass(frozen=True)
class Weights:
    """What a method learns: for every insertion's site and slot tensor, its copies (one, or one for each expert) under the
    slot's name; by name every tensor that trains, those of the task's head apart; and the values of all before training."""

    slots: Sequence[tuple[str, Sequence[Tensor]]] = ()
    learned: Mapping[str, Tensor] = field(default_factory=dict)
    head: Mapping[str, Tensor] = field(default_factory=dict)
    start: Mapping[str, Tensor] = field(default_factory=dict)


class OfAnswers(Regulariser):
    """A mean over the answers of a micro-batch."""

    def term(self, seen: Answers) -> Tensor:
        """The unweighted mean, a number with gradient."""
        raise NotImplementedError


class OfWeights(Regulariser):
    """A function of what the method learns, whatever the batch: computed once for each step."""

    def term(self, weights: Weights) -> Tensor:
        """The unweighted value, a number with gradient. Raises UnipetError where the method has nothing to which it applies."""
        raise NotImplementedError


class OfRouting(Regulariser):
    """A function of what the learned routers did with the whole batch."""

    def term(self, uses: Sequence[RouterUse], whole: Mapping[str, Tensor]) -> Tensor:
        """The unweighted share of these uses in the value for the whole batch, whose `RouterUse.counts` are `whole`, by
        place. The shares of all micro-batches add up to the value. Raises UnipetError without a use."""
        raise NotImplementedError
