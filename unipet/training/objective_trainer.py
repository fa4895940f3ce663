"""The loop of a training that knows objectives, not methods."""

from __future__ import annotations

from collections.abc import Sequence
from collections.abc import Set as AbstractSet

import torch
from torch import Tensor, nn

from unipet.adaptation.adapted import adaptation
from unipet.errors import UnipetError
from unipet.training.forward import model_inputs, real_tokens
from unipet.training.history import WEIGHT
from unipet.training.loop import Loop
from unipet.training.ranks import Ranks
from unipet.training.sampler import GroupedOrder
from unipet.training.schedule import rate
from unipet.training.step import Loss, Terms
from unipet.training.tally import Tally


class Diverged(UnipetError):
    """The loss stopped being a finite number; training ended there, before the step could spoil the weights."""


class ObjectiveTrainer(Loop):
    """A loop with the loss, the data order and the weight decay that every method shares."""

    loss: Loss
    order: GroupedOrder
    micro_batch: int
    schedule: str
    tally: Tally
    ranks: Ranks
    learning: list[nn.Parameter]
    lr_ratio: float = 1.0
    faster: AbstractSet[int] = frozenset()
    idle: Sequence[nn.Parameter] = ()

    def training_step(self, model: nn.Module, inputs: dict[str, Tensor]) -> Tensor:
        """The gradients of one batch: the whole effective one, which `micro_batch` cuts. Returns its loss."""
        if not model.training:
            model.train()
        rows = self.ranks.part(len(inputs["labels"]))
        adaptation(model).routing.first_row = rows.start
        found: Terms = {}
        own = self.loss.gradients(
            *(model, inputs, self.micro_batch, Tensor.backward, self._finite, rows),
            weights=self._weights(self.state.global_step),
            add_up=self.ranks.total if self.ranks.count > 1 else None,
            note=found.update,
        )
        self._step_with_zeros()
        told = torch.stack([own, *(found.get(name, torch.zeros_like(own)).float() for name in self.tally.names)])
        losses = self.ranks.add_up(told, self.learning)
        self.tally.add(losses, real_tokens(model_inputs(model, inputs)[0]))
        return losses[0]

    def _weights(self, step: int) -> dict[str, float]:
        return self.loss.objective.weights_at(step, self.state.max_steps)

    def _step_with_zeros(self) -> None:
        """Zero gradients for the tensors that step without one (`Mixture.unrouted`), once they have had another."""
        for tensor in self.idle:
            if tensor.grad is None and tensor in self.optimizer.state:
                tensor.grad = torch.zeros_like(tensor)

    def log(self, logs: dict[str, float]) -> None:
        """With the means of the loss and of its terms since the last line, the weights that change, and the epoch."""
        self.state.epoch = self.order.epochs(self.state.global_step)
        weights = self._weights(self.state.global_step - 1)
        changing = {f"{WEIGHT}{name}": weights[name] for name in self.loss.objective.scheduled}
        super().log({**logs, **self.tally.means(), **changing})

    def _finite(self, loss: Tensor) -> None:
        if not torch.isfinite(loss):
            raise Diverged(
                f"training: the loss became {loss.item()} at step {self.state.global_step + 1} of "
                f"{self.state.max_steps}. Try a lower optim.lr (it is {self.args.learning_rate:g}), a longer "
                "optim.warmup_ratio or a smaller optim.clip."
            )

    def create_optimizer(self) -> torch.optim.Optimizer:
        """AdamW, with what learns faster in groups of its own (Hayou et al. 2024, LoRA+)."""
        optimiser = super().create_optimizer()
        for group in [group for group in optimiser.param_groups if self.faster]:
            quick = [p for p in group["params"] if id(p) in self.faster]
            if quick:
                group["params"] = [p for p in group["params"] if id(p) not in self.faster]
                optimiser.add_param_group({**group, "params": quick, "lr": group["lr"] * self.lr_ratio})
        return optimiser

    def create_scheduler(self, num_training_steps: int) -> torch.optim.lr_scheduler.LRScheduler:
        """Warm-up and decay without a step at rate 0, which those of transformers begin with."""
        steps, warmup = num_training_steps, self.args.warmup_steps
        self.lr_scheduler = torch.optim.lr_scheduler.LambdaLR(
            self.optimizer, lambda done: rate(self.schedule, done + 1, steps, warmup)
        )
        schedule: torch.optim.lr_scheduler.LRScheduler = self.lr_scheduler
        return schedule

    def get_decay_parameter_names(self, model: nn.Module) -> list[str]:
        """Only tensors of two or more dimensions decay: zero is "no change" for a matrix, but for no scale or bias."""
        return [name for name, parameter in model.named_parameters() if parameter.ndim >= 2]
