"""How much a training uses each expert: the share of slots, and of examples or tokens, that its router gives them over time."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import nn

from unipet.adaptation.adapted import adaptation
from unipet.adaptation.reducing import mixtures
from unipet.calculus.mixture.routes import shares_of
from unipet.training.loop import Callback
from unipet.training.resume_point import State

#: Intervals of a training whose shares are told apart.
INTERVALS = 20
#: The share of tokens from which on a learned router has collapsed: that of its `top_k` most used experts together.
COLLAPSED = 0.95


class ExpertUse(Callback):
    """Adds up the shares of every expert at every site, interval by interval. Of a step that is cut into micro-batches, the last
    one counts for routers that look at examples or tokens."""

    def __init__(self, model: nn.Module) -> None:
        self._adaptation, self._mixtures = adaptation(model), mixtures(model)
        self._sums: list[dict[int, torch.Tensor]] = []  # per interval: insertion number -> (M,)
        self._ends: list[int] = []  # the last step of each interval

    def on_step_end(self, args: Any, state: Any, control: Any) -> None:
        if not self._mixtures:
            return
        every = math.ceil(state.max_steps / INTERVALS)
        if (state.global_step - 1) // every >= len(self._sums):
            self._sums.append({})
            self._ends.append(0)
        self._ends[-1] = state.global_step
        context, sums = self._adaptation.context, self._sums[-1]
        for item, mixture in self._mixtures:
            shares = [share for (number, _), share in context.shares.items() if number == item.number]
            routes = [view[item.number] for view in context.routes[: context.views] if item.number in view]
            for share in shares or [shares_of(route, mixture.experts) for route in routes]:
                sums[item.number] = sums[item.number] + share.detach() if item.number in sums else share.detach()

    def state(self) -> State:
        """The sums so far."""
        tensors = {f"{at}.{n}": each for at, sums in enumerate(self._sums) for n, each in sums.items()}
        return State({"ends": self._ends}, tensors)

    def resume(self, state: State) -> None:
        """Add to those."""
        self._ends = list(state.values["ends"])
        self._sums = [{} for _ in self._ends]
        for name, tensor in state.tensors.items():
            at, number = name.split(".")
            self._sums[int(at)][int(number)] = tensor

    def report(self) -> dict[str, Any]:
        """Plain data: the last step of each interval, for each insertion the shares of its experts in each interval, as means
        over its sites, and where a learned router has collapsed. Empty without a mixture."""
        if not self._mixtures:
            return {}
        use: dict[str, list[list[float]]] = {}
        for sums in self._sums:
            for name in dict.fromkeys(item.name for item, _ in self._mixtures):
                own = [self._shares(sums[i.number]) for i, _ in self._mixtures if i.name == name and i.number in sums]
                if own:
                    use.setdefault(name, []).append([sum(each) / len(own) for each in zip(*own, strict=True)])
        return {"use_steps": self._ends if use else [], "use": use, "collapsed": self._collapsed()}

    def _collapsed(self) -> dict[str, list[str]]:
        """Insertion -> the sites where its learned router, in the last interval, sent nearly all tokens to as few experts as it
        may."""
        found: dict[str, list[str]] = {}
        for item, mixture in self._mixtures:
            if mixture.gated and mixture.top_k < mixture.experts and self._sums and item.number in self._sums[-1]:
                most = sorted(self._shares(self._sums[-1][item.number]))[-mixture.top_k :]
                if sum(most) >= COLLAPSED:
                    found.setdefault(item.name, []).append(item.site.name)
        return found

    @staticmethod
    def _shares(sums: torch.Tensor) -> list[float]:
        return [float(each) for each in (sums / sums.sum().clamp(min=1e-12)).tolist()]
