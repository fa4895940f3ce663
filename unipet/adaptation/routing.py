"""The random numbers of mixtures' routes: a function of the seed, the step, the view and the place, drawn from no stream.

Routes of whole calls are drawn here; those of examples and tokens at their sites, from the numbers given here.
"""

from __future__ import annotations

import torch
from torch import nn

from unipet.calculus.forward_context import ForwardContext
from unipet.calculus.insertion import Insertion
from unipet.calculus.mixture import Route
from unipet.calculus.mixture.counter import place
from unipet.calculus.mixture.routes import call_route, drawn_route


class Routing:
    """The draws of an adapted model's mixtures."""

    def __init__(self, items: list[Insertion]):
        self._items = [item for item in items if item.parts.mixture is not None]
        self.driven = False  # a training loop begins the steps; otherwise every forward pass is one
        self._seed = 0
        self._number = -1  # of the step, for routers that take experts in turn
        self._evaluations = 0  # passes in evaluation so far
        self._rows = {False: 0, True: 0}  # of the step's batch, that passes without and with gradients have seen
        self.first_row = 0  # of a training batch, that this process sees
        self.rank = 0  # of this process, for mixtures that draw differently in each
        self.expert = 0  # the one of an ensemble of logits that a pass evaluates

    @property
    def mixed(self) -> bool:
        """Whether there is any mixture."""
        return bool(self._items)

    def go_on_from(self, earlier: Routing) -> None:
        """Go on drawing where `earlier`, which this replaces, stands."""
        self.resume(*earlier.state())
        self.driven, self.first_row, self.rank = earlier.driven, earlier.first_row, earlier.rank

    def state(self) -> tuple[int, tuple[int, int]]:
        """Where the draws stand between two passes: the number of the step; the seed, and how many evaluations there were."""
        return self._number, (self._seed, self._evaluations)

    def resume(self, number: int, stream: tuple[int, int]) -> None:
        """Go on from such a state. The rows of the step's batch count anew."""
        seed, self._evaluations = stream
        self.restart(seed, number)

    def restart(self, seed: int, number: int) -> None:
        """Begin step `number` with all draws a function of `seed` and `number`."""
        self._seed, self._number, self._rows = seed, number, {False: 0, True: 0}

    def draw(self, context: ForwardContext, views: int) -> None:
        """Give a training pass of so many views its random numbers, and the routes of mixtures that route whole calls."""
        context.seeds = [place(self._seed, self._number, view) for view in range(views)]
        context.routes = [
            {i.number: self._route(i, view, bits) for i in self._of_calls()} for view, bits in enumerate(context.seeds)
        ]

    def _of_calls(self) -> list[Insertion]:
        return [i for i in self._items if i.parts.mixture is not None and i.parts.mixture.grain_of(True) == "call"]

    def _route(self, item: Insertion, view: int, bits: int) -> Route:
        mixture = item.parts.mixture
        assert mixture is not None
        bits = place(bits, self.rank) if mixture.ranks == "different" else bits
        return call_route(mixture, item.bank.mixed_slots(), self._number + view, place(bits, item.group))

    def begin_pass(self, context: ForwardContext, before: ForwardContext, training: bool, rows: int) -> None:
        """Give a pass over a batch of so many rows its draws; `before` is the context of what came before it."""
        if not training:
            self._draw_evaluation(context)
            return
        if self.driven:
            context.routes, context.seeds = [{**route} for route in before.routes], before.seeds
        else:
            self.restart(self._seed, self._number + 1)
            self.draw(context, context.views)
        # A training may look at the whole batch before it takes gradients: both times, a row has the same place.
        context.first_row = self.first_row + self._rows[torch.is_grad_enabled()]
        self._rows[torch.is_grad_enabled()] += rows // context.views

    def _draw_evaluation(self, context: ForwardContext) -> None:
        """Give a pass in evaluation its random numbers, and the routes of reducers that route whole calls."""
        drawing = [i for i in self._items if i.parts.mixture is not None and i.parts.mixture.draws_in_evaluation]
        if not drawing:
            return
        self._evaluations += 1
        context.evaluation_seeds = [place("evaluation", self._seed, self._number, self._evaluations)]
        for item in drawing:
            mixture, slots = item.parts.mixture, item.bank.mixed_slots()
            if mixture is None or mixture.grain_of(False) != "call":
                continue
            drawn = drawn_route(mixture, slots, place(context.evaluation_seeds[0], item.group))
            ensemble = mixture.reducer == "ensemble_logits"
            context.evaluation[item.number] = dict.fromkeys(slots, self.expert % mixture.experts) if ensemble else drawn

    def stepping(self) -> list[nn.Parameter]:
        """The tensors of experts that the optimiser steps although a training step did not pick them."""
        mixed = [(i, i.parts.mixture) for i in self._items if i.parts.mixture is not None]
        return [tensor for item, mixture in mixed if mixture.unrouted == "zero_grad" for tensor in item.bank.tensors]
