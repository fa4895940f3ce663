"""Which experts one insertion uses in a forward pass: all reduced, one for the whole call, or others for other tokens.

Shapes: B batch, T positions, D width of h, U width of what the function reads, M experts.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Self, TypeVar

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensor

from unipet.calculus.bank import Bank
from unipet.calculus.forward_context import CurrentPass, ForwardContext
from unipet.calculus.functions.base import Function, Params
from unipet.calculus.insertion_tensors import InsertionTensors
from unipet.calculus.kept import Kept
from unipet.calculus.mixture import Route, by_expert
from unipet.calculus.mixture.counter import place, places
from unipet.calculus.mixture.gate import gate
from unipet.calculus.mixture.routes import drawn_routes, hashed_routes, rows_at, shares_of
from unipet.calculus.places import places as living
from unipet.calculus.router_use import RouterUse
from unipet.errors import UnipetError

#: Experts of a part of a mixture's slots, and the rows or tokens that take them: all (None), a mask, or their weights.
Part = tuple[Route, Tensor | None]
T = TypeVar("T")
#: So many numbers are kept for a KV cache wherever they are.
FEW = 2**16


class RoutedInsertion(InsertionTensors):
    """An insertion's tensors, and the routes by which a pass uses them."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.number = -1  # among the adaptation's insertions: routes are drawn by it
        self.current = CurrentPass(ForwardContext())  # replaced by the adaptation's own
        self.memory = Kept(max(FEW, self.widths.u * self.widths.h))  # less than the base model's weight at this site

    @property
    def context(self) -> ForwardContext:
        """What the current forward pass tells this insertion."""
        return self.current.context

    def share(self, bank: Bank | None) -> None:
        super().share(bank)
        self.memory.forget()  # what was made with other parts

    def train(self, mode: bool = True) -> Self:
        self.memory.forget()  # training may change tensors without counting a version
        return super().train(mode)

    def kept(self, name: str, make: Callable[[], T]) -> T:
        """What `make` makes of this insertion's tensors alone, made once for all passes that fill one KV cache."""
        if self.training or self.parts.mixture is not None or torch.compiler.is_compiling():
            return make()
        if self._places is None:
            self._places = [*living(self.bank), *living(self.shared)]
        tensors = [tensors[own] for _, tensors, own in self._places]
        return self.memory.get(name, self.current.context.cached.get(self.site.stack), tensors, make)

    def still_kept(self, name: str) -> Any:
        """What `kept` keeps under this name, if its tensors are as they were; else None."""
        return None if self._places is None else self.memory.still(name, self._places)

    def taken(self, route: Route) -> tuple[Function, Params]:
        """As of its tensors; what the function makes of them is kept while a KV cache is filled."""
        if route or type(self.parts.evaluated).generate is Function.generate:
            return super().taken(route)
        return self.parts.evaluated, self.kept("params", self.reduced)

    @property
    def group(self) -> int:
        """The number that the sites which share its draws have in common."""
        assert self.parts.mixture is not None
        grain, site = self.parts.mixture.grain, self.site
        if grain == "model":
            return place(grain)
        if grain == "layer" and site.layer is not None:
            return place(grain, site.stack, site.layer)
        return place("site", self.name, site.name)

    def _known(self, view: int) -> Route | None:
        """The route that was drawn for this pass before it began, if there is one."""
        context = self.context
        if not self.training:
            return context.evaluation.get(self.number)
        return context.routes[view].get(self.number) if context.routes else None

    @property
    def averages_outputs(self) -> bool:
        """Whether this pass takes the mean of all experts' outputs: in training too, where no router picks any."""
        mixture = self.parts.mixture
        return (
            mixture is not None and mixture.averages_outputs and (not self.training or mixture.grain_of(True) is None)
        )

    def chosen_parts(self, view: int, h_BTD: Tensor, u_BTU: Any) -> list[Part]:
        """The parts of one view whose deltas add up; an empty route stands for all experts, reduced."""
        mixture = self.parts.mixture
        grain = None if mixture is None else mixture.grain_of(self.training)
        if mixture is None or grain is None:
            return [({}, None)]
        if (known := self._known(view)) is not None:
            return list(by_expert(known))
        by = mixture.routes_by(self.training)
        if by == "gate":
            return self._gated(view, h_BTD, u_BTU)
        if by == "hash":
            route = hashed_routes(mixture, self.bank.mixed_slots(), self._ids(view, h_BTD), self.group)
        elif (bits := self._bits(view, h_BTD, grain)) is not None:
            route = drawn_routes(mixture, self.bank.mixed_slots(), bits)
        else:
            return [({}, None)]  # outside a pass of the model
        if self.training:
            real_BT = self._real(view, h_BTD) if grain == "token" else None
            self.context.shares[self.number, view] = shares_of(route, mixture.experts, real_BT)
        return list(by_expert(route))

    def _gated(self, view: int, h_BTD: Tensor, u_BTU: Tensor) -> list[Part]:
        mixture, bank = self.parts.mixture, self.bank
        assert mixture is not None and bank.gate is not None
        grain = "token" if mixture.pool == "token" else "example"
        if grain == "example" and self.context.past.get(self.site.tokens_of, 0) > 0:
            raise UnipetError(
                f"{self._where}: mixture.pool=sequence averages over all tokens, and some are in the KV cache, out of its sight. "
                "Generate with use_cache=False, or train with mixture.pool=token."
            )
        noisy = self.training and mixture.noise > 0
        bits = self._bits(view, h_BTD, grain) if noisy else None
        if bits is not None and bits.dim() == 1:
            bits = bits.unsqueeze(1)
        gated = gate(mixture, bank.home.parameter(bank.gate), u_BTU, self._real(view, h_BTD), bits)
        used = [True] * mixture.experts
        if self.training:
            p_NM, chosen_NM = gated.probabilities_BTM[gated.real_BT], gated.chosen_BTM[gated.real_BT]
            use = RouterUse(f"{self.name}/{self.site.name}", p_NM, chosen_NM)
            self.context.uses.append(use)
            self.context.shares[self.number, view] = use.counts()[:-1] / (mixture.top_k * max(len(use.chosen_NM), 1))
            used = _taken(gated.weights_BTM)
        slots = bank.mixed_slots()
        return [
            (dict.fromkeys(slots, expert), gated.weights_BTM[..., expert].to(u_BTU.dtype))
            for expert, taken in enumerate(used)
            if taken
        ]

    def _bits(self, view: int, h_BTD: Tensor, grain: str) -> Tensor | None:
        """The random numbers of the examples (B,), or of their tokens (B, T), of one view."""
        context = self.context
        seeds = context.seeds if self.training else context.evaluation_seeds
        if not seeds:
            return None
        bits_B = rows_at(place(seeds[view], self.group), context.first_row, len(h_BTD), h_BTD.device)
        if grain == "example":
            return bits_B
        # Real tokens are counted, so that padding, on whichever side, changes no draw.
        position_BS = self._view(self._tokens(h_BTD), view).cumsum(1)
        return places(bits_B.unsqueeze(1), position_BS[:, -h_BTD.shape[1] :])

    def _tokens(self, h_BTD: Tensor) -> Tensor:
        """Which tokens of the whole sequence are real, for the rows of all views."""
        whole = h_BTD if self.views == 1 else torch.cat([h_BTD] * self.views)
        return self.context.real_tokens(self.site.tokens_of, whole, self._where)

    def _real(self, view: int, h_BTD: Tensor) -> Tensor:
        """Which tokens of one view are real, (B, T)."""
        return self._view(self._tokens(h_BTD), view)[:, -h_BTD.shape[1] :]

    def _view(self, stacked: Tensor, view: int) -> Tensor:
        return stacked.chunk(self.views)[view]

    def _ids(self, view: int, h_BTD: Tensor) -> Tensor:
        ids = self.context.ids.get(self.site.tokens_of)
        own = None if ids is None else self._view(ids, view)
        if own is None or own.shape != h_BTD.shape[:2]:
            reason = "was called without input_ids" if own is None else f"has ids for {tuple(own.shape)} tokens"
            raise UnipetError(
                f"{self._where}: mixture.router=hash chooses by token ids, and the stack of its {tuple(h_BTD.shape[:2])} hidden "
                f"states {reason}. Use it on texts, without virtual tokens, or take router: per_token."
            )
        return own

    @property
    def views(self) -> int:
        """How many views are stacked in its batch: only a mixture in training tells them apart."""
        return self.context.views if self.training and self.parts.mixture is not None else 1

    @property
    def _where(self) -> str:
        return f"{self.name} at {self.site.path}"


def _taken(weights_BTM: Tensor) -> list[bool]:
    """Which experts some token takes. Where shapes alone are known, as in a prediction of memory: as if all were."""
    if isinstance(weights_BTM, FakeTensor):
        return [True] * weights_BTM.shape[-1]
    found: list[bool] = (weights_BTM > 0).flatten(0, 1).any(0).tolist()
    return found
