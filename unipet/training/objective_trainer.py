"""The loop of a training that knows objectives, not methods."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import replace

import torch
from torch import Tensor, nn

from unipet.adaptation.adapted import adaptation
from unipet.errors import UnipetError
from unipet.training.company import Company, Step
from unipet.training.forward import model_inputs, real_tokens
from unipet.training.history import WEIGHT
from unipet.training.loop import Loop
from unipet.training.loss_scale import LossScale, Overflow
from unipet.training.random_streams import RandomStreams
from unipet.training.ranks import Ranks
from unipet.training.sampler import GroupedOrder
from unipet.training.schedule import rate
from unipet.training.step import Loss, Terms
from unipet.training.tally import Tally

_RANGE = "float16 ends at 65504, which activations may pass: precision=bf16 has the range of float32."


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
    company: Company
    learning: list[nn.Parameter]
    loss_scale: LossScale | None = None  # for float16
    lr_ratio: float = 1.0
    faster: AbstractSet[int] = frozenset()
    idle: Sequence[nn.Parameter] = ()
    passes_alike: bool = False  # every process makes as many passes in a step: its layers are put together from all

    def training_step(self, model: nn.Module, inputs: dict[str, Tensor]) -> Tensor:
        """The gradients of one batch: the whole effective one, which `micro_batch` cuts. Returns its loss."""
        if not model.training:
            model.train()
        rows = self.ranks.part(len(inputs["labels"]))
        inserted, number = adaptation(model), self.state.global_step
        inserted.routing.first_row, weights = rows.start, self._weights(number)

        def gradients() -> Tensor:
            found: Terms = {}
            step = Step(
                *(self.loss, model, inputs, number, weights),
                check=self._finite,
                note=found.update,
                redraw=lambda: inserted.draw(number, self.args.seed),
            )
            if (own := self.company.gradients(step)) is None:
                own = self.loss.gradients(
                    *(model, inputs, self.micro_batch, self._backward, self._finite, rows),
                    weights=weights,
                    add_up=self.ranks.total if self.ranks.count > 1 else None,
                    note=found.update,
                    passes=self._passes(inputs) if self.passes_alike else 0,
                )
            self._step_with_zeros()
            terms = (found.get(name, torch.zeros_like(own)).float() for name in self.tally.names)
            return self.ranks.add_up(torch.stack([own, *terms]), self.learning)

        try:
            losses = gradients() if self.loss_scale is None else self._scaled(model, gradients)
        except Overflow:
            raise Diverged(f"{self._place('the gradients are not finite')} {_RANGE}") from None
        self.tally.add(losses, real_tokens(model_inputs(model, inputs)[0]))
        return losses[0]

    def _passes(self, inputs: Mapping[str, Tensor]) -> int:
        """The most passes that a process makes of this batch."""
        parts = (replace(self.ranks, rank=rank).part(len(inputs["labels"])) for rank in range(self.ranks.count))
        return max(sum(1 for _ in self.loss.shares(inputs, self.micro_batch, rows)) for rows in parts)

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

    def _scaled(self, model: nn.Module, gradients: Callable[[], Tensor]) -> Tensor:
        """The step under loss scaling. A step that is computed again sees the random draws of the first time."""
        assert self.loss_scale is not None
        streams, routing = RandomStreams(), adaptation(model).routing
        drawn, routes = streams.state(), routing.state()

        def again() -> None:
            streams.resume(drawn)
            routing.resume(*routes)

        return self.loss_scale.step(gradients, self.learning, again)

    def _backward(self, loss: Tensor) -> None:
        (loss if self.loss_scale is None else loss * self.loss_scale.scale).backward()

    def _finite(self, loss: Tensor) -> None:
        if not torch.isfinite(loss):
            reason = f" {_RANGE}" if self.loss.precision == "fp16" else ""
            raise Diverged(
                f"{self._place(f'the loss became {loss.item()}')} Try a lower optim.lr (it is "
                f"{self.args.learning_rate:g}), a longer optim.warmup_ratio or a smaller optim.clip.{reason}"
            )

    def _place(self, what: str) -> str:
        return f"training: {what} at step {self.state.global_step + 1} of {self.state.max_steps}."

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
