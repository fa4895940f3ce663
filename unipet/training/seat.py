"""One run's place in a pack: where its training waits for the others."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from torch import Tensor, nn

from unipet.adaptation.adapted import adaptation
from unipet.adaptation.attaching import OWN
from unipet.training.company import Company, StandsAside, Step
from unipet.training.turns import Turn

if TYPE_CHECKING:
    from unipet.training.budget.memory_fit import MemoryFit
    from unipet.training.pack import Pack


class Seat(Company):
    """One run's place in a pack."""

    def __init__(self, pack: Pack, number: int, work: Callable[[Seat], None]) -> None:
        self.pack, self.shows = pack, number == 0
        self.turn = Turn(f"run {number + 1} of a pack", lambda: work(self))
        self.wants: Step | None = None
        self.answer: Tensor | BaseException | None = None

    def join(self, prepared: Any) -> None:
        if (reason := self.pack.accepts(prepared)) is not None:
            raise StandsAside(reason, alone=True)

    def admit(self, fit: MemoryFit) -> None:
        self.pack.admit(fit)

    def keeps(self, layers: Mapping[str, int]) -> None:
        if layers:
            listed = ", ".join(f"{count} of its {stack}" for stack, count in layers.items())
            raise StandsAside(
                f"alone it keeps the outputs of frozen layers ({listed}), which a common pass computes (cache_frozen)",
                alone=True,
            )

    def gradients(self, step: Step) -> Tensor | None:
        self.wants, self.answer = step, None
        self.turn.pause()
        self.wants, answer = None, self.answer
        if isinstance(answer, BaseException):
            raise answer
        return answer

    def writes_weights(self, model: nn.Module) -> None:
        mixed = any(insertion.parts.mixture is not None for insertion in adaptation(model).items)
        for name, parameter in model.named_parameters() if mixed else ():  # merging a mixture writes
            if not name.startswith(OWN):
                parameter.data = parameter.data.clone()

    def alone(self) -> None:
        """Let the run take its step by itself, as if nothing of it had been computed."""
        assert self.wants is not None
        self.answer = None
        for parameter in self.wants.model.parameters():
            parameter.grad = None
        self.wants.redraw()
