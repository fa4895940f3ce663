"""The loss of a batch under a method's objective, and its gradients, computed in micro-batches.

Shapes: B examples of the batch, N answers in it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from unipet.adaptation.adapted import adaptation
from unipet.calculus.objectives import Objective, consistency_loss, task_loss
from unipet.tasks import Readout, answers_in, read_rows
from unipet.training.forward import model_inputs
from unipet.training.precision import autocast
from unipet.training.resume_point import State

Batch = Mapping[str, Tensor]


def _plainly(model: nn.Module, inputs: Mapping[str, Tensor]) -> Any:
    return model(**inputs)


@dataclass(frozen=True)
class Loss:
    """The task loss on the first view, plus the consistency loss between the views if the objective has two. Both are means
    over the answers of a batch, which `read` takes from the model's output. `precision` is that of
    `autocast`: "fp32", "bf16" or "fp16". `call` is the forward pass."""

    objective: Objective
    regression: bool = False
    label_smoothing: float = 0.0
    precision: str = "fp32"
    read: Readout = read_rows
    call: Callable[[nn.Module, Mapping[str, Tensor]], Any] = _plainly

    def __call__(self, model: nn.Module, batch: Batch) -> Tensor:
        inputs, labels = model_inputs(model, batch)
        views = self.objective.views
        with autocast(labels.device, self.precision):
            if views == 1:
                outputs = self.call(model, inputs)
            else:
                stacked = {name: torch.cat([value] * views) for name, value in inputs.items()}
                with adaptation(model).views(views):
                    outputs = self.call(model, stacked)
        size = len(labels)
        first, answers = self.read(outputs.logits[:size], inputs, labels)
        first = first.float()  # losses are computed in float32, also under autocast
        loss = task_loss(first, answers, self.regression, self.label_smoothing)
        if self.objective.consistency is not None:
            second, _ = self.read(outputs.logits[size:], inputs, labels)
            loss = loss + consistency_loss(self.objective.consistency, first, second.float(), self.regression)
        return loss

    def shares(self, batch: Batch, micro_batch: int, rows: slice = slice(None)) -> Iterator[tuple[Batch, float]]:
        """Split the batch into micro-batches, each with its share of the N answers. The loss of the batch is the sum of
        the micro-batches' losses times their shares. A micro-batch without an answer is left out.

        Every micro-batch keeps the padding of the whole batch. `rows` are the rows of the batch that this process computes.
        """
        whole = answers_in(batch["labels"], self.read)
        first, end, _ = rows.indices(len(batch["labels"]))
        for at in range(first, end, micro_batch):
            piece = {name: value[at : min(at + micro_batch, end)] for name, value in batch.items()}
            own = answers_in(piece["labels"], self.read)
            if own:
                yield piece, own / whole

    def gradients(
        self,
        model: nn.Module,
        batch: Batch,
        micro_batch: int,
        backward: Callable[[Tensor], None] = Tensor.backward,
        check: Callable[[Tensor], None] = lambda loss: None,
        rows: slice = slice(None),
    ) -> Tensor:
        """Add the gradients of the batch's loss to the parameters, `micro_batch` examples at a time. Returns the loss,
        detached. Gradients and loss are the contributions of `rows`, the part of the batch that this process computes.

        `check` is called with the loss of every micro-batch before its backward pass. Without dropout, the gradients do
        not depend on the micro-batch, up to rounding, because routes of mixtures hold for the whole step.
        """
        total = batch["labels"].new_zeros((), dtype=torch.float32)
        for piece, share in self.shares(batch, micro_batch, rows):
            loss = self(model, piece)
            check(loss)
            if share != 1.0:
                loss = loss * share
            backward(loss)
            total = total + loss.detach()
        return total


class Tally:
    """What the steps of a training have added up: real tokens, and losses since the last line of metrics."""

    def __init__(self, device: torch.device) -> None:
        self.tokens = 0
        self._losses, self._steps = torch.zeros((), device=device), 0

    def add(self, loss: Tensor, tokens: int) -> None:
        """One more step."""
        self.tokens += tokens
        self._losses += loss
        self._steps += 1

    def mean_loss(self) -> float:
        """The mean loss of a step since this was last asked."""
        mean = self._losses.item() / self._steps
        self._losses, self._steps = torch.zeros_like(self._losses), 0
        return mean

    def state(self) -> State:
        """The sums so far."""
        return State({"tokens": self.tokens, "steps": self._steps}, {"losses": self._losses})

    def resume(self, state: State) -> None:
        """Add to those."""
        self.tokens, self._steps = state.values["tokens"], state.values["steps"]
        self._losses = state.tensors["losses"].to(self._losses.device)
