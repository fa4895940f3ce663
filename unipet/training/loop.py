"""The loop of a training: batches, callbacks, clipping, the optimiser's step, and when to log.

It does what transformers' `Trainer` does for one process and device, in the same order, with callbacks of the same names. But
it needs none of the libraries that `Trainer` imports, and looks only at the parameters that train.
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from unipet.tasks import Collate
from unipet.training.forward import Examples, to_device


def seed_everything(seed: int) -> None:
    """Begin every random stream of this process anew."""
    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)


@dataclass(frozen=True)
class Arguments:
    """What the loop is told. `max_grad_norm`: 0 for no clipping."""

    max_steps: int
    batch_size: int
    learning_rate: float
    warmup_steps: int
    weight_decay: float
    adam_beta1: float
    adam_beta2: float
    adam_epsilon: float
    max_grad_norm: float
    seed: int
    device: torch.device

    @property
    def logging_steps(self) -> int:
        """A line of metrics is due every so many steps, and after the first."""
        return max(1, self.max_steps // 50)


@dataclass
class State:
    """How far the training is."""

    max_steps: int
    global_step: int = 0
    epoch: float = 0.0


@dataclass
class Control:
    """What callbacks ask of the loop."""

    should_training_stop: bool = False
    should_log: bool = False


class Callback:
    """Something that is done at certain moments of a training. Each method is told (arguments, state, control)."""

    def on_train_begin(self, args: Arguments, state: State, control: Control) -> None:
        """Before the first step."""

    def on_step_begin(self, args: Arguments, state: State, control: Control) -> None:
        """Before each step; its batch has been put together."""

    def on_pre_optimizer_step(self, args: Arguments, state: State, control: Control) -> None:
        """When the gradients of a step are there, clipped."""

    def on_step_end(self, args: Arguments, state: State, control: Control) -> None:
        """After each step, which `state` counts already."""

    def on_log(self, args: Arguments, state: State, control: Control, logs: dict[str, float]) -> None:
        """After a step whose values are to be logged."""

    def on_train_end(self, args: Arguments, state: State, control: Control) -> None:
        """After the last step."""


class Loop:
    """Trains the parameters of `model` that require a gradient. Subclasses say what a step is, and how rates change."""

    order: Iterable[int]  # of the examples in one epoch; each iteration is the next epoch
    lr_scheduler: Any = None
    optimizer: Any = None

    def __init__(
        self,
        model: nn.Module,
        args: Arguments,
        data_collator: Collate,
        train_dataset: Examples,
        callbacks: list[Callback],
    ) -> None:
        """Seeds every random stream, and moves the model to its device."""
        seed_everything(args.seed)
        model.to(args.device)
        self.model: Any = model
        model.config.use_cache = False  # type: ignore[union-attr]  # keys and values for generation, which no step needs
        self.args, self.state, self.control = args, State(args.max_steps), Control()
        self.data_collator, self.train_dataset, self.callbacks = data_collator, train_dataset, callbacks
        self._training: list[nn.Parameter] = []

    def add_callback(self, callback: Callback) -> None:
        """One more, behind the others."""
        self.callbacks.append(callback)

    def training_step(self, model: nn.Module, inputs: dict[str, Tensor]) -> Tensor:
        """Add the gradients of a batch, and return its loss."""
        raise NotImplementedError

    def create_scheduler(self, num_training_steps: int) -> Any:
        """The schedule of the learning rates."""
        raise NotImplementedError

    def get_decay_parameter_names(self, model: nn.Module) -> Sequence[str]:
        """The parameters that decay."""
        raise NotImplementedError

    def create_optimizer(self) -> torch.optim.Optimizer:
        """AdamW over the parameters that train, in two groups: with and without decay."""
        decaying, args = set(self.get_decay_parameter_names(self.model)), self.args
        named = [(name, each) for name, each in self.model.named_parameters() if each.requires_grad]
        groups: list[dict[str, Any]] = [
            {"params": [each for name, each in named if name in decaying], "weight_decay": args.weight_decay},
            {"params": [each for name, each in named if name not in decaying], "weight_decay": 0.0},
        ]
        betas = (args.adam_beta1, args.adam_beta2)
        self.optimizer = torch.optim.AdamW(
            groups, lr=args.learning_rate, betas=betas, eps=args.adam_epsilon, fused=True
        )
        return self.optimizer

    def train(self) -> None:
        """All steps, or fewer where a callback ends training."""
        self.create_optimizer()
        self.create_scheduler(self.args.max_steps)
        self._training = [each for each in self.model.parameters() if each.requires_grad]
        for each in self.model.parameters():
            each.grad = None
        self._call("on_train_begin")
        batches = self._batches()
        while not self.control.should_training_stop:
            self._step(next(batches))
        self._call("on_train_end")

    def _batches(self) -> Iterator[dict[str, Tensor]]:
        while True:
            epoch, size = list(self.order), self.args.batch_size
            for at in range(0, len(epoch), size):
                yield self.data_collator([self.train_dataset[index] for index in epoch[at : at + size]])

    def _step(self, batch: dict[str, Tensor]) -> None:
        args, state, control = self.args, self.state, self.control
        self._call("on_step_begin")
        self.training_step(self.model, to_device(batch, args.device))
        norm = nn.utils.clip_grad_norm_(self._training, args.max_grad_norm or float("inf"))
        self._call("on_pre_optimizer_step")
        self.optimizer.step()
        rate = self.lr_scheduler.get_last_lr()[0]
        self.lr_scheduler.step()
        for each in self._training:
            each.grad = None
        state.global_step += 1
        control.should_log = state.global_step == 1 or state.global_step % args.logging_steps == 0
        control.should_training_stop |= state.global_step >= args.max_steps
        self._call("on_step_end")
        if control.should_log:
            self.log({"loss": float("nan"), "grad_norm": norm.item(), "learning_rate": rate})

    def log(self, logs: dict[str, float]) -> None:
        """Pass the values of a step to the callbacks; `logs["loss"]` is for a subclass to fill in."""
        for callback in self.callbacks:
            callback.on_log(self.args, self.state, self.control, {**logs, "epoch": self.state.epoch})

    def _call(self, moment: str) -> None:
        for callback in self.callbacks:
            getattr(callback, moment)(self.args, self.state, self.control)
