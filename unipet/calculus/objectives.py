"""What training minimises: the task's loss, and regularisers that a method may add.

Shapes: B batch, C classes.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from unipet.calculus.options import option


@dataclass(frozen=True)
class Consistency:
    """Two stochastic views of a batch should agree (AdaMix eq. 5; R-Drop, Liang et al. 2021).

    `symmetric_kl` is ½[KL(p‖q) + KL(q‖p)], batch mean; a regression task has one logit, whose softmax is constantly
    one, so there the divergence is the mean squared error. `stop_gradient` detaches each divergence's target, as the
    released AdaMix code does. `weight` is 1 in the paper and in its GLUE code; its NLG code has 100.
    """

    divergence: str = option("symmetric_kl", choices=("symmetric_kl", "mse"))
    stop_gradient: bool = option(True)
    weight: float = option(1.0, low=0.0)


@dataclass(frozen=True)
class Objective:
    """The regularisers of a method; none unless it says so."""

    consistency: Consistency | None = option(None)

    @property
    def views(self) -> int:
        """How many stochastic passes over a batch one training step needs."""
        return 1 if self.consistency is None else 2


def task_loss(logits: Tensor, labels: Tensor, regression: bool, label_smoothing: float = 0.0) -> Tensor:
    """Cross-entropy over logits (B, C), or mean squared error over logits (B, 1)."""
    if regression:
        return F.mse_loss(logits.float().squeeze(-1), labels.float())
    return F.cross_entropy(logits.float(), labels, label_smoothing=label_smoothing)


def consistency_loss(consistency: Consistency, first: Tensor, second: Tensor, regression: bool) -> Tensor:
    """The weighted divergence between two views' logits (B, C).

    With `stop_gradient` the gradient with respect to each view is ½(softmax(own) - softmax(other))/B, which is not the
    gradient of the symmetric KL itself; the value is the same.
    """
    a_BC, b_BC = first.float(), second.float()
    target_a, target_b = (a_BC.detach(), b_BC.detach()) if consistency.stop_gradient else (a_BC, b_BC)
    if regression or consistency.divergence == "mse":
        loss = 0.5 * (F.mse_loss(a_BC, target_b) + F.mse_loss(b_BC, target_a))
    else:
        loss = 0.5 * (_kl(target_b, a_BC) + _kl(target_a, b_BC))
    return consistency.weight * loss


def _kl(target_BC: Tensor, given_BC: Tensor) -> Tensor:
    """KL(softmax(target) ‖ softmax(given)), mean over the batch."""
    return F.kl_div(
        torch.log_softmax(given_BC, -1), torch.log_softmax(target_BC, -1), reduction="batchmean", log_target=True
    )
