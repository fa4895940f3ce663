"""Several stochastic views of one batch should agree.

Shapes: N answers, C classes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations

import torch
from torch import Tensor
from torch.nn import functional as F

from unipet.calculus.objectives.regulariser import Answers, OfAnswers
from unipet.calculus.options import option


@dataclass(frozen=True)
class Consistency(OfAnswers):
    """`views` stochastic views of a batch should agree (AdaMix eq. 5, Wang et al. 2022); the task's loss is that of the first.

    `symmetric_kl` is ½[KL(p‖q) + KL(q‖p)], the mean over answers and, with more than two views, over pairs of views. A
    regression task has one logit, whose softmax is constantly one, so there the divergence is the mean squared error; where an
    example has several labels, it is the mean over labels of that of each yes or no.
    `stop_gradient` detaches each divergence's target, as the released AdaMix code does. Where the task generates text, the
    answers are the target's tokens: prompts and padding are masked. `weight` is 1 in the paper and in its GLUE code; its NLG
    code has 100.
    """

    views: int = option(2, low=2, high=8)
    divergence: str = option("symmetric_kl", choices=("symmetric_kl", "mse"))
    stop_gradient: bool = option(True)

    @property
    def passes(self) -> int:
        return self.views

    def term(self, seen: Answers) -> Tensor:
        mse = seen.regression or self.divergence == "mse"
        return agreement(seen.views[: self.views], mse, self.stop_gradient, seen.several)


@dataclass(frozen=True)
class RDrop(OfAnswers):
    """R-Drop (Liang et al. 2021): two views, the task's loss is the mean of both, and their symmetric KL is minimised in both
    directions, without a stopped gradient. `weight` is their α, from 0.1 to 5; for regression, the mean squared error takes
    the place of the divergence."""

    @property
    def passes(self) -> int:
        return 2

    @property
    def task_passes(self) -> int:
        return 2

    def term(self, seen: Answers) -> Tensor:
        return agreement(seen.views[:2], seen.regression, stop_gradient=False, several=seen.several)


def agreement(views: Sequence[Tensor], mse: bool, stop_gradient: bool, several: bool = False) -> Tensor:
    """The mean over pairs of views of their divergence, given each view's logits (N, C) in float32."""
    pairs = [_divergence(a_NC, b_NC, mse, stop_gradient, several) for a_NC, b_NC in combinations(views, 2)]
    return pairs[0] if len(pairs) == 1 else torch.stack(pairs).mean()


def _divergence(a_NC: Tensor, b_NC: Tensor, mse: bool, stop_gradient: bool, several: bool) -> Tensor:
    """Half the sum of both directions. With `stop_gradient` the gradient of the symmetric KL with respect to each view is
    ½(softmax(own) - softmax(other))/N, which is not the gradient of the symmetric KL itself; the value is the same."""
    target_a, target_b = (a_NC.detach(), b_NC.detach()) if stop_gradient else (a_NC, b_NC)
    if mse:
        return 0.5 * (F.mse_loss(a_NC, target_b) + F.mse_loss(b_NC, target_a))
    return 0.5 * (kl(target_b, a_NC, several) + kl(target_a, b_NC, several))


def kl(target_NC: Tensor, given_NC: Tensor, several: bool = False) -> Tensor:
    """KL(softmax(target) ‖ softmax(given)), the mean over answers. With `several`, each logit is of a yes or no: the KL of the
    two distributions over yes and no, the mean over answers and labels, as the task's loss is."""
    if several:  # the softmax of (z, 0) is (σ(z), 1 - σ(z))
        target_NC, given_NC = (
            torch.stack([each, torch.zeros_like(each)], -1).flatten(0, 1) for each in (target_NC, given_NC)
        )
    return F.kl_div(
        torch.log_softmax(given_NC, -1), torch.log_softmax(target_NC, -1), reduction="batchmean", log_target=True
    )
