"""The loss of a batch under a method's objective, and its gradients, computed in micro-batches.

Shapes: B examples of the batch, N answers in it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from unipet.adaptation.adapted import adaptation
from unipet.calculus.objectives import (
    TASK,
    Answers,
    Distillation,
    Objective,
    OfAnswers,
    OfRouting,
    OfWeights,
    task_loss,
)
from unipet.calculus.router_use import RouterUse
from unipet.tasks import Readout, read_rows
from unipet.training.forward import evaluation_mode, model_inputs
from unipet.training.precision import autocast
from unipet.training.shares import NOTHING, WHOLE, Batch, Share, shares
from unipet.training.start_values import learned_weights

#: The terms of a loss by name, each with its weight: the task's, then the regularisers'. Their sum is the loss.
Terms = dict[str, Tensor]


def _plainly(model: nn.Module, inputs: Mapping[str, Tensor]) -> Any:
    return model(**inputs)


@dataclass(frozen=True)
class Loss:
    """The task loss on the first view (or the mean of both, if a regulariser says so), plus the weighted regularisers.

    What concerns answers is a mean over the answers of a batch, which `read` takes from the model's output. `precision` is
    that of `autocast`, and `call` the forward pass. `teachers` are the models that distillation learns from, by regulariser;
    without one, as where a step is only measured, the model itself answers in its place. `start` are values from before
    training, for `l2_to_init`; a tensor that is missing there counts as unchanged. With `class_weights`, the task's loss alone
    is a mean weighted by those of the answers.
    """

    objective: Objective
    regression: bool = False
    label_smoothing: float = 0.0
    precision: str = "fp32"
    read: Readout = read_rows
    teachers: Mapping[str, nn.Module] = field(default_factory=dict, compare=False)
    start: Mapping[str, Tensor] = field(default_factory=dict, compare=False)
    call: Callable[[nn.Module, Mapping[str, Tensor]], Any] = _plainly
    class_weights: Sequence[float] = ()

    def __call__(self, model: nn.Module, batch: Batch) -> Tensor:
        """The loss of a whole batch, with gradient, every regulariser at its full weight."""
        weights = self.objective.full_weights()
        terms, uses = self._of_answers(model, batch, weights)
        return sum_of(terms | self._of_routing(uses, routed([uses]), weights) | self._of_weights(model, weights))

    def _of_answers(
        self, model: nn.Module, batch: Batch, weights: Mapping[str, float]
    ) -> tuple[Terms, list[RouterUse]]:
        """The terms that are means over the answers of a (micro-)batch, and what learned routers did in its pass."""
        inputs, labels = model_inputs(model, batch)
        views, adapted = self.objective.views, adaptation(model)
        with autocast(labels.device, self.precision):
            if views == 1:
                outputs = self.call(model, inputs)
            else:
                stacked = {name: torch.cat([value] * views) for name, value in inputs.items()}
                with adapted.views(views):
                    outputs = self.call(model, stacked)
        return self._from_logits(model, outputs.logits, inputs, labels, weights), list(adapted.context.uses)

    def of_pass(
        self, model: nn.Module, logits: Tensor, inputs: Batch, labels: Tensor, weights: Mapping[str, float]
    ) -> Terms:
        """All terms of a whole batch whose pass is over; `logits` are those of its stacked views."""
        uses = list(adaptation(model).context.uses)
        terms = self._from_logits(model, logits, inputs, labels, weights)
        return terms | self._of_routing(uses, routed([uses]), weights) | self._of_weights(model, weights)

    def _from_logits(
        self, model: nn.Module, logits: Tensor, inputs: Batch, labels: Tensor, weights: Mapping[str, float]
    ) -> Terms:
        size, seen, answers = len(labels), list[Tensor](), labels
        for view in range(self.objective.views):
            read, answers = self.read(logits[view * size : (view + 1) * size], dict(inputs), labels)
            seen.append(read.float())  # losses are computed in float32, also under autocast
        own = [
            task_loss(each, answers, self.regression, self.label_smoothing, self.class_weights)
            for each in seen[: self.objective.task_views]
        ]
        terms = {TASK: own[0] if len(own) == 1 else torch.stack(own).mean()}
        for name, regulariser in self.objective.of(OfAnswers).items():
            taught = self._taught(name, model, inputs, labels) if isinstance(regulariser, Distillation) else None
            terms[name] = weights[name] * regulariser.term(Answers(seen, self.regression, taught, answers.dim() == 2))
        return terms

    def _taught(self, name: str, model: nn.Module, inputs: Mapping[str, Tensor], labels: Tensor) -> Tensor:
        """A teacher's logits of the answers, (N, C)."""
        teacher = self.teachers.get(name, model)
        mode = evaluation_mode(teacher) if teacher.training else nullcontext()
        with mode, torch.no_grad(), autocast(labels.device, self.precision):
            logits = teacher(**inputs).logits
        return self.read(logits, dict(inputs), labels)[0].float()

    def _of_routing(
        self, uses: Sequence[RouterUse], whole: Mapping[str, Tensor], weights: Mapping[str, float]
    ) -> Terms:
        """What one pass adds to the terms about the routing of the whole batch."""
        return {name: weights[name] * each.term(uses, whole) for name, each in self.objective.of(OfRouting).items()}

    def _of_weights(self, model: nn.Module, weights: Mapping[str, float]) -> Terms:
        """The terms about what the method learns, which do not depend on the batch."""
        chosen = self.objective.of(OfWeights)
        if not chosen:
            return {}
        learned = learned_weights(model, self.start)
        return {name: weights[name] * each.term(learned) for name, each in chosen.items()}

    def shares(self, batch: Batch, micro_batch: int, rows: slice = slice(None)) -> Iterator[tuple[Batch, Share]]:
        """The micro-batches of the rows that this process computes, each with its shares in the loss of the batch."""
        return shares(batch, micro_batch, rows, self.read, self.class_weights)

    def gradients(
        self,
        model: nn.Module,
        batch: Batch,
        micro_batch: int,
        backward: Callable[[Tensor], None] = Tensor.backward,
        check: Callable[[Tensor], None] = lambda loss: None,
        rows: slice = slice(None),
        weights: Mapping[str, float] | None = None,
        add_up: Callable[[Tensor], Tensor] | None = None,
        note: Callable[[Terms], None] = lambda terms: None,
        passes: int = 0,
    ) -> Tensor:
        """Add the gradients of the batch's loss to the parameters, `micro_batch` examples at a time. Returns the loss,
        detached. Gradients and loss are the contributions of `rows`, the part of the batch that this process computes.

        `check` is called with the loss of every micro-batch before its backward pass, `note` with all terms at the end.
        `weights` are the regularisers' in this step (None: in full); `add_up` adds up tensors of all processes, where there
        are several. Without dropout, the gradients do not depend on the micro-batch, up to rounding: routes of mixtures hold
        for the whole step, the routing of the batch is counted in a pass of its own before those with gradient (unless they
        are one), and what depends on weights alone is computed once, by the process that has the first row. Where `passes` are
        more than the micro-batches, the others count nothing: they are made because another process makes them.
        """
        weights = self.objective.full_weights() if weights is None else weights
        total = batch["labels"].new_zeros((), dtype=torch.float32)
        terms: Terms = {}

        def descend(loss: Tensor) -> None:
            nonlocal total
            backward(loss)
            total = total + loss.detach()

        def add(own: Terms, share: Share = WHOLE) -> None:
            for name, value in own.items():
                value = value.detach() * (share.task if name == TASK else share.answers)
                terms[name] = terms[name] + value if name in terms else value

        whole = self._count_routing(model, batch, micro_batch, rows, weights, add_up, passes)
        pieces = list(self.shares(batch, micro_batch, rows))
        for piece, share in pieces:
            of_answers, uses = self._of_answers(model, piece, weights)
            of_routing = self._of_routing(uses, routed([uses]) if whole is None else whole, weights)
            loss = sum_of(of_answers)
            check(loss)
            if share.task != share.answers:
                others = {name: value * share.answers for name, value in of_answers.items()}
                loss = sum_of(others | {TASK: of_answers[TASK] * share.task})
            elif share.answers != 1.0:
                loss = loss * share.answers
            descend(sum_of({"": loss} | of_routing))
            add(of_answers, share)
            add(of_routing)
        for _ in range(passes - len(pieces)):
            backward(0.0 * sum_of(self._of_answers(model, next(self.shares(batch, 1))[0], weights)[0]))
        if rows.start in (None, 0) and (of_weights := self._of_weights(model, weights)):
            check(sum_of(of_weights))
            descend(sum_of(of_weights))
            add(of_weights)
        note(terms)
        return total

    def _count_routing(
        self,
        model: nn.Module,
        batch: Batch,
        micro_batch: int,
        rows: slice,
        weights: Mapping[str, float],
        add_up: Callable[[Tensor], Tensor] | None,
        passes: int = 0,
    ) -> dict[str, Tensor] | None:
        """The counts of every learned router over the whole batch, which a term needs that is not a sum over micro-batches;
        None where the one pass with gradient can count them itself. Random streams are left as they were."""
        if not self.objective.of(OfRouting):
            return None
        pieces = list(self.shares(batch, micro_batch, rows))
        if len(pieces) < 2 and add_up is None:
            return None
        nothing = (
            [] if pieces else [({name: value[:1] for name, value in batch.items()}, NOTHING)]
        )  # it names the places
        devices = [batch["labels"].device] if batch["labels"].is_cuda else []
        routing = adaptation(model).routing
        number, stream = routing.state()
        with torch.random.fork_rng(devices=devices), torch.no_grad():
            counted = routed(self._of_answers(model, piece, weights)[1] for piece, _ in pieces or nothing)
            for _ in range(passes - len(pieces or nothing)):
                self._of_answers(model, next(self.shares(batch, 1))[0], weights)
        routing.resume(number, stream)
        if nothing:
            counted = {place: torch.zeros_like(counts) for place, counts in counted.items()}
        return counted if add_up is None else {place: add_up(counts) for place, counts in counted.items()}


def routed(passes: Iterable[Sequence[RouterUse]]) -> dict[str, Tensor]:
    """The sums of what learned routers did in several passes: `RouterUse.counts`, by place."""
    found: dict[str, Tensor] = {}
    for uses in passes:
        for use in uses:
            found[use.place] = found[use.place] + use.counts() if use.place in found else use.counts()
    return found


def sum_of(terms: Terms) -> Tensor:
    """The sum of terms, from the first to the last."""
    first, *others = terms.values()
    for each in others:
        first = first + each
    return first
