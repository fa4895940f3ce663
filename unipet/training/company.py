"""Whether a run trains alone, or in a pack with others: what its training asks its company at every step."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from torch import Tensor, nn

from unipet.training.resume_point import State
from unipet.training.shares import Batch
from unipet.training.step import Loss, Terms

if TYPE_CHECKING:
    from unipet.training.budget.memory_fit import MemoryFit


class StandsAside(KeyboardInterrupt):
    """A run leaves its pack before its first step. `alone` says that it is to be run alone; otherwise a later pack may take it.
    Not an error of the run: as an interruption, it passes what would record a failure."""

    def __init__(self, reason: str, alone: bool) -> None:
        super().__init__(reason)
        self.reason, self.alone = reason, alone


@dataclass(frozen=True)
class Step:
    """One optimiser step of one run: `number` were done before. `weights` are the regularisers' in it. `check` is called with the
    loss before its gradients are taken, `note` with its terms, and `redraw` puts the routes of mixtures back to the step's
    beginning."""

    loss: Loss
    model: nn.Module
    batch: Batch
    number: int
    weights: Mapping[str, float]
    check: Callable[[Tensor], None]
    note: Callable[[Terms], None]
    redraw: Callable[[], None]


class Company:
    """That of a run that trains alone."""

    shows = True  # whether its progress is shown
    packed = 0  # the most runs that trained together, this one included; 0: none did

    def join(self, prepared: Any) -> None:
        """Called with what is prepared of the run, before anything is written. May raise `StandsAside`."""

    def admit(self, fit: MemoryFit) -> None:
        """Called before the run puts anything on its device. May raise `StandsAside`."""

    def keeps(self, layers: Mapping[str, int]) -> None:
        """Called before the first step with the frozen layers, by stack, whose outputs the run keeps. May raise `StandsAside`."""

    def gradients(self, step: Step) -> Tensor | None:
        """Add the gradients of a batch's loss to the parameters, and return the loss, detached; None: the run is to do it by
        itself. May raise `StandsAside`."""
        return None

    def writes_weights(self, model: nn.Module) -> None:
        """Called before frozen weights of the model are overwritten, which others may read."""

    def state(self) -> State:
        """With how many it has trained."""
        return State({"packed": self.packed})

    def resume(self, state: State) -> None:
        """Remember those."""
        self.packed = max(self.packed, state.values["packed"])
