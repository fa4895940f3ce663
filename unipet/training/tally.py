"""What the steps of a training add up to between two lines of metrics."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from unipet.training.history import TERM
from unipet.training.resume_point import State


class Tally:
    """What the steps of a training have added up: real tokens, and losses since the last line of metrics."""

    def __init__(self, device: torch.device, terms: Sequence[str] = ()) -> None:
        """`terms` are the names of the terms that are told apart; none if the loss is the task's alone."""
        self.tokens = 0
        self.names = tuple(terms)
        self._losses, self._steps = torch.zeros(1 + len(self.names), device=device), 0

    def add(self, losses: Tensor, tokens: int) -> None:
        """One more step: its loss, and its terms in the order of their names."""
        self.tokens += tokens
        self._losses += losses
        self._steps += 1

    def means(self) -> dict[str, float]:
        """The mean of a step's loss, and of its terms as `loss/NAME`, since this was last asked."""
        means = (self._losses / self._steps).tolist()
        self._losses, self._steps = torch.zeros_like(self._losses), 0
        return dict(zip(("loss", *(f"{TERM}{name}" for name in self.names)), means, strict=True))

    def state(self) -> State:
        """The sums so far."""
        return State({"tokens": self.tokens, "steps": self._steps}, {"losses": self._losses})

    def resume(self, state: State) -> None:
        """Add to those."""
        self.tokens, self._steps = state.values["tokens"], state.values["steps"]
        self._losses = state.tensors["losses"].to(self._losses.device)
