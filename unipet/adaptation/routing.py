"""Drawing the routes of mixtures: one for a forward pass, or one for each example or token of it, from streams of their own."""

from __future__ import annotations

from typing import Any

import torch

from unipet.calculus.forward_context import ForwardContext
from unipet.calculus.insertion import Insertion


class Routing:
    """The random streams of an adapted model's mixtures."""

    def __init__(self, items: list[Insertion]):
        self._items = [item for item in items if item.parts.mixture is not None]
        self._generator = torch.Generator()
        self._number = -1  # of the step, for routers that take experts in turn
        self.first_row = 0  # of a training batch, that this process sees
        self._rows: dict[tuple[int, int], torch.Generator] = {}  # (view, insertion number) -> stream within a step

    def go_on_from(self, earlier: Routing) -> None:
        """Go on with the random stream of `earlier`, which this replaces."""
        self._generator, self._number = earlier._generator, earlier._number

    def state(self) -> tuple[int, torch.Tensor]:
        """The number of the step, and where the stream stands between two passes."""
        return self._number, self._generator.get_state()

    def resume(self, number: int, stream: torch.Tensor) -> None:
        """Go on from such a state."""
        self._generator.set_state(stream)
        self._number, self._rows = number, {}

    def restart(self, seed: int, number: int) -> None:
        """Begin step `number` with every stream a function of `seed`."""
        self._generator.manual_seed(seed)
        self._number, self._rows = number, {}

    def next(self, views: int) -> list[dict[int, Any]]:
        """The routes of one more pass."""
        self._number += 1
        return self.draw(views)

    def draw(self, views: int) -> list[dict[int, Any]]:
        """For each view a route per insertion, of the mixtures that route whole calls."""
        mixed = [i for i in self._items if i.parts.mixture is not None and i.parts.mixture.grain(True) == "call"]
        return [{i.number: i.bank.draw(self._generator, self._number + view) for i in mixed} for view in range(views)]

    def draw_rows(self, context: ForwardContext, stacks: list[str], training: bool, rows: int, length: int) -> None:
        """Routes of single examples or tokens, for one pass. In training each view of each insertion has a stream of
        its own, so that micro-batches take together what the whole batch would."""
        for item in self._items:
            mixture = item.parts.mixture
            grain = mixture.grain(training) if mixture is not None and item.site.tokens_of in stacks else None
            if not training and grain is not None:
                shape = {"call": (), "example": (rows,), "token": (rows, length)}[grain]
                context.evaluation[item.number] = item.bank.draw(self._generator, 0, shape, training=False)
            elif grain == "example":
                context.routes += [{} for _ in range(context.views - len(context.routes))]
                for view in range(context.views):
                    stream = self._rows.get((view, item.number))
                    if stream is None:
                        seed = int(torch.randint(2**62, (1,), generator=self._generator))
                        stream = self._rows[view, item.number] = torch.Generator().manual_seed(seed)
                        item.bank.draw(stream, 0, (self.first_row,))  # what the rows before it take
                    context.routes[view][item.number] = item.bank.draw(stream, 0, (rows // context.views,))
