"""Training: a transformers `Trainer` for any method's objective."""

from __future__ import annotations

from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TextIO

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader
from transformers import PrinterCallback, ProgressCallback, Trainer, TrainingArguments

from unipet.adaptation.api import adaptation, parameters
from unipet.config import RunConfig
from unipet.errors import UnipetError
from unipet.output.stopwatch import phase
from unipet.tasks import Collate, Readout, read_rows
from unipet.training.budget.checkpointing import checkpointed
from unipet.training.budget.limits import batch_tokens, count_steps, seconds_allowed
from unipet.training.callbacks import Best, Clock, GradientProbe, Journal, Log, Routes, ShownProgress, TimeLimit
from unipet.training.forward import Examples, lengths, model_inputs, real_tokens
from unipet.training.lr_ratio import up_tensors
from unipet.training.movement import Movement
from unipet.training.processes import one_process
from unipet.training.sampler import GroupedOrder
from unipet.training.schedule import rate, warmup_steps
from unipet.training.step import Loss


class Diverged(UnipetError):
    """The loss became NaN or infinite. Training ended before that step changed the weights."""


@dataclass
class Trained:
    """The cost of one training, and how it ended."""

    steps: int = 0
    seconds: float = 0.0  # of the steps alone
    tokens: int = 0  # without padding; an example seen in two views counts once
    stopped_by: str = "epochs"  # epochs | max_steps | max_tokens | gpu_hours
    untrained: list[str] = field(default_factory=list)  # trainable tensors that got no gradient or did not move


@phase("training")
@one_process()
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
    micro_batch: int | None = None,
    checkpointing: bool = False,
) -> Trained:
    """Train every parameter of `model` that requires a gradient, in place. The model stays on the training device.

    `read` finds the answers in the model's output. `best` scores checkpoints on the selection split; that time does not
    count as training. A step splits its batch into micro-batches of `micro_batch` examples (None: the whole batch). This
    changes only memory and the random draws of dropout. With `checkpointing`, activations are computed again in the
    backward pass instead of stored. At every log interval, one line is written to `metrics` as JSON and passed to
    `log(values, step)`. Two runs with the same seed see the same data order and the same dropout.
    Raises `Diverged` for a loss that is not finite, and `UnipetError` if no tensor ever had a gradient or none moved.
    """
    optim = config.optim
    order = GroupedOrder(lengths(examples), optim.batch_size, config.seed)
    both = bool(getattr(model.config, "is_encoder_decoder", False))
    steps, stopped_by = count_steps(len(examples), config, batch_tokens(examples, order.batches(), both))
    arguments = TrainingArguments(
        output_dir=str(directory),
        per_device_train_batch_size=optim.batch_size,
        max_steps=steps,
        learning_rate=optim.lr,
        warmup_steps=warmup_steps(optim.warmup_ratio, steps),
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
        logging_nan_inf_filter=False,  # the filter would hide the losses that raise `Diverged`
    )
    if torch.cuda.is_available():
        arguments._n_gpu = 1  # one device per run: DataParallel's copies would not carry the adaptation
    probe, clock, progress, journal = GradientProbe(model), Clock(), ShownProgress(), Journal(metrics, log)
    if best is not None:
        best.journal = journal
    hours = TimeLimit(seconds_allowed(config.budget), lambda: best.seconds if best else 0.0)
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
            journal,
            hours,
            *([best] if best else []),  # last, because it checks whether an earlier callback has ended training
        ],
    )
    trainer.loss = Loss(objective, regression, optim.label_smoothing, config.precision, read)
    trainer.order, trainer.micro_batch, trainer.lr_ratio = order, micro_batch or optim.batch_size, optim.lr_ratio
    trainer.schedule = optim.schedule
    if optim.lr_ratio != 1.0:
        trainer.faster = {id(tensor) for tensor in up_tensors(adaptation(model))}
    for unwanted in (ProgressCallback, PrinterCallback):
        trainer.remove_callback(unwanted)
    movement = Movement(parameters(model, head=True))
    try:
        with checkpointed(model, checkpointing):
            trainer.train()
    finally:
        progress.close()
    probe.check()
    still = movement.check(list(parameters(model)), optim.lr, trainer.state.global_step)
    seconds = clock.seconds - (best.seconds if best else 0.0)
    ended_by = "gpu_hours" if hours.reached and trainer.state.global_step < steps else stopped_by
    return Trained(trainer.state.global_step, seconds, trainer.tokens, ended_by, sorted({*probe.untouched(), *still}))


class ObjectiveTrainer(Trainer):
    """`Trainer` with unipet's loss, data order and weight decay, which are the same for every method."""

    loss: Loss
    order: GroupedOrder
    micro_batch: int
    schedule: str
    lr_scheduler: Any
    lr_ratio: float = 1.0
    faster: AbstractSet[int] = frozenset()
    tokens = 0

    def training_step(self, model: nn.Module, inputs: dict[str, Any], num_items_in_batch: Any = None) -> Tensor:
        """Compute the gradients of one effective batch, one micro-batch at a time. Returns its loss."""
        model.train()
        batch = self._prepare_inputs(inputs)
        self.tokens += real_tokens(model_inputs(model, batch)[0])
        return self.loss.gradients(model, batch, self.micro_batch, self.accelerator.backward, self._finite)

    def _finite(self, loss: Tensor) -> None:
        if not torch.isfinite(loss):
            raise Diverged(
                f"training: the loss became {loss.item()} at step {self.state.global_step + 1} of "
                f"{self.state.max_steps}. Try a lower optim.lr (it is {self.args.learning_rate:g}), a longer "
                "optim.warmup_ratio or a smaller optim.clip."
            )

    def get_train_dataloader(self) -> DataLoader[Any]:
        """Batches of examples of similar length. Their order depends only on the data and the seed."""
        loader = DataLoader(
            self.train_dataset,
            batch_size=self.args.train_batch_size,
            sampler=self.order,
            collate_fn=self.data_collator,
            generator=torch.Generator().manual_seed(self.args.data_seed),
        )
        return self.accelerator.prepare(loader)

    def create_optimizer(self, *args: Any, **kwargs: Any) -> torch.optim.Optimizer:
        """The Trainer's optimizer, with the faster tensors in parameter groups of their own (LoRA+, Hayou et al. 2024)."""
        optimiser: torch.optim.Optimizer = super().create_optimizer(*args, **kwargs)
        for group in [group for group in optimiser.param_groups if self.faster]:
            quick = [p for p in group["params"] if id(p) in self.faster]
            if quick:
                group["params"] = [p for p in group["params"] if id(p) not in self.faster]
                optimiser.add_param_group({**group, "params": quick, "lr": group["lr"] * self.lr_ratio})
        return optimiser

    def create_scheduler(
        self, num_training_steps: int, optimizer: torch.optim.Optimizer | None = None
    ) -> torch.optim.lr_scheduler.LRScheduler:
        """Warm-up and decay in which no step has learning rate 0. The Trainer's own schedules begin with such a step."""
        steps, warmup = num_training_steps, self.args.warmup_steps
        if self.lr_scheduler is None:
            self.lr_scheduler = torch.optim.lr_scheduler.LambdaLR(
                self.optimizer if optimizer is None else optimizer,
                lambda done: rate(self.schedule, done + 1, steps, warmup),
            )
        return self.lr_scheduler

    def get_decay_parameter_names(self, model: nn.Module) -> list[str]:
        """Only tensors of two or more dimensions get weight decay. Zero means "no change" for a matrix, but not for a
        scale or a bias."""
        return [name for name, parameter in model.named_parameters() if parameter.ndim >= 2]

    def floating_point_ops(self, inputs: dict[str, Any]) -> int:
        """Always 0: the Trainer's formula assumes that every parameter is trained."""
        return 0
