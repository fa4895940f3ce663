"""The largest micro-batch that is predicted to stay within a memory limit. Effective batch, lengths and precision stay."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, MutableMapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from torch import nn

from unipet.adaptation.describing import Draft
from unipet.config import BudgetConfig, RunConfig
from unipet.errors import UnipetError
from unipet.tasks import Collate, Readout, answers_in
from unipet.training.budget.checkpointing import can_checkpoint
from unipet.training.budget.trace import GIB, StepSettings, Trace, Untraceable, trace_step
from unipet.training.forward import Examples, lengths
from unipet.training.sampler import GroupedOrder
from unipet.training.step import Loss

#: (micro-batch, whether there are several in a step, checkpointing) -> the predicted step
Predict = Callable[[int, bool, bool], Trace]


@dataclass(frozen=True)
class MemoryFit:
    """How a step is computed, with `micro_batch` x `accumulation` = the effective batch, and the memory it is predicted to
    need.

    `why_not` says why the run cannot stay within its limit; None if it can. Without a prediction (`trace` is None) nothing
    is fitted, and `warning` gives the reason.
    """

    micro_batch: int
    accumulation: int = 1
    checkpointing: bool = False
    trace: Trace | None = None
    why_not: str | None = None
    warning: str | None = None

    @property
    def predicted_gib(self) -> float | None:
        return None if self.trace is None else self.trace.peak_gib

    def record(self) -> dict[str, Any]:
        """Plain data, for a run's record."""
        parts = {}
        if self.trace is not None:
            whole = self.trace
            found = {"weights": whole.weights_bytes, "optimiser": whole.optimiser_bytes, "rest": whole.rest_bytes}
            parts = {name: size / GIB for name, size in found.items()}
        steps = {"micro_batch": self.micro_batch, "accumulation": self.accumulation}
        return {**steps, "checkpointing": self.checkpointing, "predicted_parts_gib": parts}


def fit_memory(
    predict: Predict, batch_size: int, budget: BudgetConfig, checkpoints: bool, asked: bool | None = None
) -> MemoryFit:
    """The first of these that fits: the whole batch, the largest micro-batch that divides it, and the same two with
    gradient checkpointing (if the base model `checkpoints`). `asked`: always with checkpointing, or never.

    Unless `on_exceed` is `fit`, only the whole batch is tried. With `on_exceed: error`, raises UnipetError if nothing
    fits.
    """
    always = bool(asked)
    whole = MemoryFit(batch_size, checkpointing=always, trace=predict(batch_size, False, always))
    allowed = allowed_bytes(budget)
    if allowed is None or _fits(whole, allowed):
        return whole
    smallest = whole
    if budget.on_exceed == "fit":
        divisors = [size for size in range(1, batch_size + 1) if batch_size % size == 0]
        for checkpointing in (False, True) if checkpoints and asked is None else (always,):

            def at(size: int, checkpointing: bool = checkpointing) -> MemoryFit:
                steps = batch_size // size
                return MemoryFit(size, steps, checkpointing, predict(size, steps > 1, checkpointing))

            found = _largest(divisors, at, allowed)
            if found is not None:
                return found
            smallest = at(divisors[0])
    problem = _too_much(smallest, budget)
    if budget.on_exceed == "error":
        raise UnipetError(f"{problem} Raise the limit, or leave such runs out: budget.on_exceed=skip.")
    return replace(smallest, why_not=problem)


def allowed_bytes(budget: BudgetConfig) -> float | None:
    """The most memory that a step may be predicted to need: the limit minus its margin; None without a limit."""
    if budget.peak_memory_gib is None:
        return None
    return budget.peak_memory_gib * (1 - budget.memory_margin) * GIB


def _largest(sizes: Sequence[int], at: Callable[[int], MemoryFit], allowed: float) -> MemoryFit | None:
    """The fit of the largest size that fits, found by bisection, as a larger micro-batch never needs less memory."""
    found, low, high = None, 0, len(sizes)
    while low < high:
        middle = (low + high) // 2
        tried = at(sizes[middle])
        if _fits(tried, allowed):
            found, low = tried, middle + 1
        else:
            high = middle
    return found


def _fits(fit: MemoryFit, allowed: float) -> bool:
    return fit.trace is not None and fit.trace.peak_bytes <= allowed


def _too_much(smallest: MemoryFit, budget: BudgetConfig) -> str:
    needed = smallest.predicted_gib or 0.0
    allowed = (allowed_bytes(budget) or 0.0) / GIB
    how = f"a micro-batch of {smallest.micro_batch}" + (" with checkpointing" if smallest.checkpointing else "")
    text = (
        f"budget.peak_memory_gib={budget.peak_memory_gib:g} minus its margin of {budget.memory_margin:.0%} allows "
        f"{allowed:.4g} GiB; {how} is predicted to need {needed:.4g} GiB, {needed - allowed:.4g} too much."
    )
    return text if budget.on_exceed == "fit" else f"{text} budget.on_exceed=fit would try smaller micro-batches."


def fit_run(
    config: RunConfig,
    model: nn.Module,
    draft: Draft,
    examples: Examples,
    collate: Collate,
    read: Readout,
    regression: bool,
    device: str,
    traces: MutableMapping[str, Trace] | None = None,
) -> MemoryFit:
    """The memory fit of a run on the unadapted `model`, from its widest batch. `draft` is the method, built on this base
    model without weights. `traces` are the steps that were traced before with this model, method and loss; new traces are
    added to it.

    Raises UnipetError as `fit_memory`.
    """
    known = {} if traces is None else traces
    rows = widest(examples, config.optim.batch_size, config.seed)
    largest = math.ceil(len(rows) / config.budget.gpus)  # part of a batch that one device takes
    method = draft.inserted.method
    if not method.trains:
        return MemoryFit(largest)
    loss = Loss(method.objective, regression, config.optim.label_smoothing, config.precision, read)
    whole = collate([examples[index] for index in rows])

    def predict(size: int, accumulates: bool, checkpointing: bool) -> Trace:
        batch = {name: value[:size] for name, value in whole.items()}  # padded as training pads it
        settings = StepSettings(accumulates, checkpointing, config.optim.clip)
        shapes = {name: [list(value.shape), str(value.dtype)] for name, value in batch.items()}
        key = json.dumps([shapes, answers_in(batch["labels"], read), asdict(settings)])
        if key not in known:
            known[key] = trace_step(model, method, loss, batch, settings, device=device, draft=draft)
        return known[key]

    try:
        return fit_memory(predict, largest, config.budget, can_checkpoint(model), config.checkpointing)
    except Untraceable as error:
        limited = " No micro-batch was fitted to budget.peak_memory_gib." if config.budget.peak_memory_gib else ""
        return MemoryFit(largest, checkpointing=bool(config.checkpointing), warning=f"{error}{limited}")


def widest(examples: Examples, batch_size: int, seed: int) -> list[int]:
    """A batch that needs as much memory as any other: the longest batch of the first epoch, with the longest example and
    the one with the most labels put into it. Examples with the most labels come first, because a micro-batch takes the
    first examples."""
    sizes, targets = lengths(examples), getattr(examples, "target_lengths", None)
    order = GroupedOrder(sizes, batch_size, seed).order(0)
    batches = [order[at : at + batch_size] for at in range(0, len(order), batch_size)]
    chosen = max(batches, key=lambda batch: (len(batch), max(sizes[index] for index in batch)))
    wanted = [max(range(len(known)), key=known.__getitem__) for known in (sizes, targets) if known]
    others = sorted((index for index in chosen if index not in wanted), key=sizes.__getitem__, reverse=True)
    rows = [*dict.fromkeys(wanted), *others][: len(chosen)]
    return sorted(rows, key=targets.__getitem__, reverse=True) if targets else rows
