"""Training: a transformers `Trainer` that knows objectives, not methods."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TextIO

import torch
from torch import nn
from torch.utils.data import DataLoader, Sampler
from transformers import PrinterCallback, ProgressCallback, Trainer, TrainingArguments

from unipet.adaptation import adaptation
from unipet.adapting import parameters
from unipet.callbacks import Best, Clock, GradientProbe, Journal, Log, Progress, Routes
from unipet.config import OptimConfig, RunConfig
from unipet.errors import UnipetError
from unipet.forward import Examples, autocast, lengths, model_inputs, real_tokens
from unipet.objectives import consistency_loss, task_loss
from unipet.settings import SCHEDULES
from unipet.tasks import Collate, Readout, read_rows


class Diverged(UnipetError):
    """The loss stopped being a finite number; training ended there, before the step could spoil the weights."""


@dataclass
class Trained:
    """What one training cost and how it ended."""

    steps: int = 0
    seconds: float = 0.0  # of the steps themselves
    tokens: int = 0  # real ones, padding left out; an example seen in two views counts once
    stopped_by: str = "epochs"  # epochs | max_steps
    untrained: list[str] = field(default_factory=list)  # trainable tensors that never got a gradient


def train(
    model: nn.Module,
    objective: Any,
    examples: Examples,
    collate: Collate,
    regression: bool,
    config: RunConfig,
    directory: Path,
    metrics: TextIO,
    log: Log,
    read: Readout = read_rows,
    best: Best | None = None,
) -> Trained:
    """Train what requires a gradient in `model`, in place, and leave it on the training device.

    `read` finds the answers in the model's output; `best` watches a selection split, and its time counts as no training.
    Every log interval one line goes to `metrics` as JSON and to `log(values, step)`. Equal seeds, equal data and dropout.
    Raises `Diverged` on a loss that is not finite, `UnipetError` when no tensor ever had a gradient.
    """
    optim = config.optim
    steps, stopped_by = plan_steps(len(examples), config)
    arguments = TrainingArguments(
        output_dir=str(directory),
        per_device_train_batch_size=optim.batch_size,
        max_steps=steps,
        learning_rate=optim.lr,
        lr_scheduler_type=SCHEDULES[optim.schedule],
        warmup_steps=math.ceil(optim.warmup_ratio * steps),
        weight_decay=optim.weight_decay,
        adam_beta1=optim.beta1,
        adam_beta2=optim.beta2,
        adam_epsilon=optim.epsilon,
        optim="adamw_torch",
        max_grad_norm=optim.clip,
        seed=config.seed,
        data_seed=config.seed,
        use_cpu=not torch.cuda.is_available(),
        remove_unused_columns=False,
        save_strategy="no",
        eval_strategy="no",
        report_to=[],
        logging_steps=max(1, steps // 50),
        logging_first_step=True,
        logging_nan_inf_filter=False,  # it would hide what `Diverged` is there to tell
    )
    if torch.cuda.is_available():
        arguments._n_gpu = 1  # one device per run: DataParallel's copies would not carry the adaptation
    probe, clock, progress = GradientProbe(model), Clock(), Progress()
    trainer = ObjectiveTrainer(
        model=model,
        args=arguments,
        data_collator=collate,
        train_dataset=examples,
        callbacks=[
            Routes(model, config.seed),
            probe,
            clock,
            progress,
            Journal(metrics, log),
            *([best] if best else []),
        ],
    )
    trainer.configure(objective, regression, optim, config.precision, read)
    if optim.lr_ratio != 1.0:
        trainer.faster = faster(model)
    for unwanted in (ProgressCallback, PrinterCallback):
        trainer.remove_callback(unwanted)
    try:
        trainer.train()
    finally:
        progress.close()
    probe.check()
    seconds = clock.seconds - (best.seconds if best else 0.0)
    return Trained(trainer.state.global_step, seconds, trainer.tokens, stopped_by, probe.untouched())


def plan_steps(examples: int, config: RunConfig) -> tuple[int, str]:
    """The number of optimiser steps, and what ends training: "epochs" or "max_steps"."""
    steps = math.ceil(config.optim.epochs * math.ceil(examples / config.optim.batch_size))
    limit = config.budget.max_steps
    if limit is not None and limit < steps:
        return limit, "max_steps"
    return max(steps, 1), "epochs"


def faster(model: nn.Module) -> set[int]:
    """The tensors of slots called `up`, by identity. Raises UnipetError if the method has none."""
    found = {id(p) for name, p in parameters(model).items() if name.rsplit("/", 1)[-1].split(".")[0].startswith("up")}
    if not found:
        raise UnipetError(
            "optim.lr_ratio: it is the learning rate of `up` slots over that of all others, and the method "
            f"{adaptation(model).method.name!r} has none. Remove the override, or set optim.lr_ratio=1."
        )
    return found


class ObjectiveTrainer(Trainer):
    """`Trainer` with the loss, the data order and the weight decay that every method shares."""

    faster: AbstractSet[int] = frozenset()

    def configure(
        self, objective: Any, regression: bool, optim: OptimConfig, precision: str, read: Readout = read_rows
    ) -> None:
        """Set what the loss is made of; call it once, before `train`."""
        self.objective = objective
        self.regression = regression
        self.label_smoothing = optim.label_smoothing
        self.lr_ratio = optim.lr_ratio
        self.precision = precision
        self.read = read
        self.tokens = 0
        # The loss below is a mean over the micro-batch, so the Trainer must average it over an accumulation.
        self.model_accepts_loss_kwargs = False

    def compute_loss(
        self, model: nn.Module, inputs: dict[str, Any], return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        """The task loss on the first view, plus the consistency between the views where the objective has two."""
        inputs, labels = model_inputs(model, inputs)
        if model.training:
            self.tokens += real_tokens(inputs)
        views = self.objective.views if model.training else 1
        with autocast(labels.device, self.precision):
            if views == 1:
                outputs = model(**inputs)
            else:
                stacked = {name: torch.cat([value] * views) for name, value in inputs.items()}
                with adaptation(model).views(views):
                    outputs = model(**stacked)
        size = len(labels)
        first, answers = self.read(outputs.logits[:size], inputs, labels)
        first = first.float()  # losses in float32 under autocast, too
        loss = task_loss(first, answers, self.regression, self.label_smoothing)
        if views == 2:
            second, _ = self.read(outputs.logits[size:], inputs, labels)
            loss = loss + consistency_loss(self.objective.consistency, first, second.float(), self.regression)
        if model.training and not torch.isfinite(loss):
            raise Diverged(
                f"training: the loss became {loss.item()} at step {self.state.global_step + 1} of "
                f"{self.state.max_steps}. Try a lower optim.lr (it is {self.args.learning_rate:g}), a longer "
                "optim.warmup_ratio or a smaller optim.clip."
            )
        return (loss, outputs) if return_outputs else loss

    def get_train_dataloader(self) -> DataLoader[Any]:
        """Batches of similar length in an order that depends on the data and the seed alone."""
        size = self.args.train_batch_size
        order = GroupedOrder(lengths(self.train_dataset), size, self.args.data_seed)
        loader = DataLoader(
            self.train_dataset,
            batch_size=size,
            sampler=order,
            collate_fn=self.data_collator,
            generator=torch.Generator().manual_seed(self.args.data_seed),
        )
        return self.accelerator.prepare(loader)

    def create_optimizer(self, *args: Any, **kwargs: Any) -> torch.optim.Optimizer:
        """The Trainer's own, with what learns faster in groups of its own (Hayou et al. 2024, LoRA+)."""
        optimiser: torch.optim.Optimizer = super().create_optimizer(*args, **kwargs)
        for group in [group for group in optimiser.param_groups if self.faster]:
            quick = [p for p in group["params"] if id(p) in self.faster]
            if quick:
                group["params"] = [p for p in group["params"] if id(p) not in self.faster]
                optimiser.add_param_group({**group, "params": quick, "lr": group["lr"] * self.lr_ratio})
        return optimiser

    def get_decay_parameter_names(self, model: nn.Module) -> list[str]:
        """Only tensors of two or more dimensions decay: zero is "no change" for a matrix, but for no scale or bias."""
        return [name for name, parameter in model.named_parameters() if parameter.ndim >= 2]

    def floating_point_ops(self, inputs: dict[str, Any]) -> int:
        """Not counted: the Trainer's formula assumes that every parameter trains."""
        return 0


class GroupedOrder(Sampler[int]):
    """A shuffled order in which each run of `batch_size` examples has similar lengths.

    The order of an epoch is a function of (lengths, batch size, seed, epoch) and uses no global random state, so that
    two methods of one seed see the same batches although they draw different amounts of random numbers.
    """

    def __init__(self, sizes: Sequence[int], batch_size: int, seed: int, pool: int = 50) -> None:
        """`pool`: how many batches' worth of shuffled examples are sorted together."""
        self._sizes, self._batch_size, self._seed, self._pool = sizes, batch_size, seed, pool
        self._epoch = 0

    def __len__(self) -> int:
        return len(self._sizes)

    def __iter__(self) -> Iterator[int]:
        self._epoch += 1
        return iter(self.order(self._epoch - 1))

    def order(self, epoch: int) -> list[int]:
        """The indices of one epoch; an incomplete batch comes last, so that the others stay whole."""
        generator = torch.Generator().manual_seed(self._seed * 1_000_003 + epoch)
        shuffled = torch.randperm(len(self._sizes), generator=generator).tolist()
        whole = len(shuffled) - len(shuffled) % self._batch_size
        batches = []
        for start in range(0, whole, self._pool * self._batch_size):
            pool = shuffled[start : min(start + self._pool * self._batch_size, whole)]
            pool.sort(key=self._sizes.__getitem__)
            batches += [pool[at : at + self._batch_size] for at in range(0, len(pool), self._batch_size)]
        mixed = [batches[index] for index in torch.randperm(len(batches), generator=generator).tolist()]
        return [index for batch in mixed for index in batch] + shuffled[whole:]
