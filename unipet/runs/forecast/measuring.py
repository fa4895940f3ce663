"""The calibration of one kind of job: the time of its stages on this machine, measured with a few real batches.

The ordinary training loop runs on batches of representative lengths, at a learning rate near zero, and its result is
discarded. Sizes are the tokens of a batch including padding; costs are seconds.
"""

from __future__ import annotations

import gc
import io
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field, replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch

from unipet.adaptation.api import adapt
from unipet.adaptation.checkpoint import save
from unipet.calculus.method import Method
from unipet.config import BudgetConfig, RunConfig
from unipet.runs.base_model import load_base_model
from unipet.runs.certify import certify, frozen_marks
from unipet.runs.forecast.estimate import Point, representatives
from unipet.runs.forecast.flops import flop_counter
from unipet.runs.forecast.selected import Selected, batch_size_in_tokens
from unipet.runs.memory import PeakMemory
from unipet.runs.prepare import Prepared
from unipet.runs.record_files import ADAPTER
from unipet.tasks import LOSS, Encoded, EncodedRows, TaskData, collate, kind_of, readout, selection_metric
from unipet.training.budget.checkpointing import checkpointed
from unipet.training.budget.memory_fit import MemoryFit
from unipet.training.evaluation import mean_target_loss, score_split
from unipet.training.forward import longest_first, to_device
from unipet.training.loop import seed_everything
from unipet.training.positions import check_lengths
from unipet.training.sampler import GroupedOrder
from unipet.training.step import Loss
from unipet.training.trainer import train

BATCHES = 6  # measured batches: of training, each twice, and of evaluation, each once
SECONDS = 10.0  # time limit of the training steps, and of the evaluation batches


@dataclass
class Calibration:
    """`fixed_s`: seconds of each stage that a job does once. `steps`, `passes`: (size, seconds) of optimiser steps and of
    evaluation batches. `losses`: (size, seconds) of batches that score a checkpoint by its loss, without decoding. `flops`:
    (size, floating-point operations) of optimiser steps."""

    fixed_s: dict[str, float] = field(default_factory=dict)
    steps: list[Point] = field(default_factory=list)
    passes: list[Point] = field(default_factory=list)
    flops: list[Point] = field(default_factory=list)
    losses: list[Point] = field(default_factory=list)

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Count the seconds inside towards this stage."""
        started = time.perf_counter()
        yield
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        self.fixed_s[name] = self.fixed_s.get(name, 0.0) + time.perf_counter() - started

    def to_dict(self) -> dict[str, Any]:
        """Plain data, from which `Calibration(**data)` makes an equal object."""
        return asdict(self)


class BaseModel:
    """The base model of a kind of job, loaded on first use. `seconds` is the time that loading took."""

    def __init__(self, config: RunConfig, data: TaskData) -> None:
        self._config, self._data = config, data
        self._loaded: tuple[Any, Any] | None = None
        self.seconds = 0.0

    def load(self) -> tuple[Any, Any]:
        """The unadapted model and its tokenizer. Raises UnipetError as `load_base_model`."""
        if self._loaded is None:
            started = time.perf_counter()
            seed_everything(self._config.seed)
            data = self._data
            self._loaded = load_base_model(self._config.model, data.labels, data.regression, self._config.task.kind)
            self.seconds = time.perf_counter() - started
        return self._loaded


def measure(prepared: Prepared, encoded: Encoded, fit: MemoryFit, base: BaseModel) -> Calibration:
    """Calibrate a run with its fitted method and the micro-batch of `fit`. `base` is adapted, and cannot be used again.

    Raises UnipetError for mistakes that would also make the run fail.
    """
    config, method, data = prepared.config, prepared.fit.method, prepared.data
    device = "cuda:0" if torch.cuda.is_available() else "cpu"
    found = Calibration()
    model, tokenizer = base.load()
    found.fixed_s["loading"] = base.seconds
    batch, read = collate(tokenizer), readout(config.task, tokenizer)
    check_lengths(encoded, model, config.task)
    with found.stage("adapting"):
        adapt(model, method, prepared.sites)
        gc.collect()
        PeakMemory(device)
    with tempfile.TemporaryDirectory() as directory:
        _steps(found, config, method, data.regression, encoded, fit, model, batch, read, Path(directory))
        _passes(found, config, data, encoded, model, tokenizer)
        if encoded.selection is not None and selection_metric(config.task) == LOSS:
            _losses(found, config, encoded.selection, model, tokenizer)
        with found.stage("saving"):
            save(model, Path(directory) / ADAPTER)
        with found.stage("certifying"):
            before = frozen_marks(model)
            certify(model, config, encoded, encoded.evaluation, tokenizer, Path(directory), [], before)
    return found


def _steps(
    found: Calibration,
    config: RunConfig,
    method: Method,
    regression: bool,
    encoded: Encoded,
    fit: MemoryFit,
    model: Any,
    batch: Any,
    read: Any,
    directory: Path,
) -> None:
    """Time optimiser steps, and count the operations of the smallest and the largest one."""
    both = bool(getattr(model.config, "is_encoder_decoder", False))
    chosen = training_batches(encoded, config, both)
    rows = Selected(encoded.train, chosen, keep_together=True)
    sizes = [batch_size_in_tokens(encoded.train, each, both) for each in chosen]
    optim = replace(config.optim, lr=1e-9, epochs=2.0, batch_size=len(chosen[0]))
    # Not compiled: compiling takes longer than all that is measured here.
    short = replace(config, optim=optim, compile=False, budget=BudgetConfig(gpu_hours=SECONDS / 3600))
    ends: list[float] = []
    started = time.perf_counter()
    trained = train(
        *(model, method.objective, rows, batch, regression, short, directory, io.StringIO()),
        lambda values, step: ends.append(time.perf_counter()),  # with so few steps, every step is logged
        read=read,
        micro_batch=min(fit.micro_batch, len(chosen[0])),
        checkpointing=fit.checkpointing,
    )
    found.fixed_s["preparing training"] = time.perf_counter() - started - trained.seconds
    order = GroupedOrder(rows.lengths, len(chosen[0]), config.seed).batches()
    taken = [sizes[rows.lengths[indices[0]]] for indices, _ in zip(order, range(trained.steps), strict=False)]
    durations = [after - before for before, after in pairwise(ends)]
    found.steps = list(zip(taken[1:], durations, strict=False))  # the first step also allocates
    if not found.steps:
        found.steps = [(taken[0], trained.seconds / trained.steps)]
    loss = Loss(method.objective, regression, config.optim.label_smoothing, config.precision, read)
    model.train()
    device = next(model.parameters()).device
    with checkpointed(model, fit.checkpointing):
        for number in {sizes.index(min(sizes)), sizes.index(max(sizes))}:
            whole = to_device(batch([encoded.train[index] for index in chosen[number]]), device)
            with flop_counter() as flops:
                loss.gradients(model, whole, fit.micro_batch)
            found.flops.append((sizes[number], flops.get_total_flops()))
    model.zero_grad(set_to_none=True)


def training_batches(encoded: Encoded, config: RunConfig, both: bool) -> list[list[int]]:
    """A few representative batches of the first epoch, with equally many examples each."""
    order = GroupedOrder(encoded.train.lengths, config.optim.batch_size, config.seed).order(0)
    size = min(config.optim.batch_size, len(order))
    batches = [order[at : at + size] for at in range(0, len(order) - size + 1, size)]
    sizes = [batch_size_in_tokens(encoded.train, each, both) for each in batches]
    return [batches[index] for index in representatives(sizes, BATCHES)]


def _passes(
    found: Calibration, config: RunConfig, data: TaskData, encoded: Encoded, model: Any, tokenizer: Any
) -> None:
    """Time evaluation batches: predicting answers, or generating texts as long as the references, and scoring them."""
    both = bool(getattr(model.config, "is_encoder_decoder", False))
    split = encoded.evaluation
    batches = list(longest_first(split, config.optim.eval_batch_size))
    sizes = [batch_size_in_tokens(split, each, both) for each in batches]
    chosen = representatives(sizes, BATCHES)
    began = time.perf_counter()
    for count, index in enumerate([chosen[0], *chosen]):  # the first batch runs twice, as a warm-up
        if count > 1 and time.perf_counter() - began > SECONDS:
            break
        rows: Any = Selected(split, [batches[index]])
        as_long = _as_long_as_references(config, rows)
        started = time.perf_counter()
        with suppress(ValueError):  # so few answers may have no score, for example if all are equal; the time counts
            score_split(as_long, model, [data.evaluation[i] for i in batches[index]], rows, tokenizer)
        if count:
            found.passes.append((sizes[index], time.perf_counter() - started))


def _losses(calibration: Calibration, config: RunConfig, split: EncodedRows, model: Any, tokenizer: Any) -> None:
    """Time batches that score a checkpoint by its loss."""
    both = bool(getattr(model.config, "is_encoder_decoder", False))
    batches = list(longest_first(split, config.optim.eval_batch_size))
    sizes = [batch_size_in_tokens(split, each, both) for each in batches]
    chosen = representatives(sizes, BATCHES)
    for count, index in enumerate([chosen[0], *chosen]):  # the first batch runs twice, as a warm-up
        rows: Any = Selected(split, [batches[index]])
        started = time.perf_counter()
        mean_target_loss(config, model, rows, tokenizer)
        if count:
            calibration.losses.append((sizes[index], time.perf_counter() - started))


def _as_long_as_references(config: RunConfig, rows: Selected) -> RunConfig:
    """For generation, fix the number of generated tokens to the longest reference of the batch, as the model is untrained."""
    if not kind_of(config.task.kind).generates:
        return config
    limit = config.task.decoding.max_new_tokens or config.task.max_target
    length = max(1, min(limit, max(rows.target_lengths)))
    decoding = replace(config.task.decoding, max_new_tokens=length, min_new_tokens=length)
    return replace(config, task=replace(config.task, decoding=decoding))
