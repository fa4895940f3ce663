"""The tensors of one insertion: those it learns, those it freezes, and the base model's that it reads.
No forward pass changes them.

Shapes: B batch, T positions, D width of h, U width of x.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from unipet.calculus.bank import Bank, Contents, plain_bank
from unipet.calculus.functions.base import BASE, BASE_BIAS, Function, Params, Widths
from unipet.calculus.insertion_parts import InsertionParts, frozen_of
from unipet.calculus.mixture import Route
from unipet.calculus.mixture.expert_functions import functions_of
from unipet.calculus.named_tensors import NamedTensors
from unipet.calculus.places import Place
from unipet.calculus.sites import Site
from unipet.calculus.weights import BaseWeight, read_all
from unipet.errors import UnipetError

if TYPE_CHECKING:
    from unipet.calculus.direct import Direct


def _check_names(*owners: tuple[str, Iterable[str]]) -> None:
    """Raise UnipetError where two kinds of an insertion's tensors bear one name: one would take the other's place."""
    taken: dict[str, str] = {}
    for owner, names in owners:
        for name in names:
            if name in taken:
                raise UnipetError(
                    f"function: the name {name!r} is among the {taken[name]} and among the {owner}: their tensors would stand in "
                    "one place. Rename it in the one that is your own, or choose another function or scaling."
                )
            taken[name] = owner


@torch.no_grad()
def baked(params: Params) -> dict[str, nn.Parameter]:
    """Copies of already reduced tensors as ordinary parameters."""
    return {name: nn.Parameter(tensor.detach().clone()) for name, tensor in params.items()}


class InsertionTensors(nn.Module):
    """What one insertion is made of at one site."""

    def __init__(
        self,
        name: str,
        parts: InsertionParts,
        site: Site,
        widths: Widths,
        dtype: torch.dtype,
        device: torch.device,
        base: BaseWeight | None = None,
    ):
        super().__init__()
        self.name, self.parts, self.site, self.widths = name, parts, site, widths
        self.base = base  # a module of the base model, read only: not registered here
        self.query: BaseWeight | None = None  # the query projection, for a function that reads it
        self.projections: dict[str, BaseWeight] = {}  # keys and values, for a function that needs them
        scaling = parts.scaling
        own = [self._contents(one, number) for number, one in enumerate(functions_of(parts.function))]
        scale_widths = Widths(widths.u, widths.kv) if parts.composition.shares_softmax else widths
        scale_slots, own_slots = scaling.slots(scale_widths), parts.composition.slots(widths)
        router = ["router"] if parts.mixture is not None and parts.mixture.gated else []
        for one in own:
            _check_names(
                ("slots of the function", one.slots),
                ("frozen tensors of the function", one.frozen),
                ("slots of the scaling", scale_slots),
                ("slots of the composition", own_slots),
                ("tensors of the mixture's router", router),
            )
        self.tensors = NamedTensors()  # of all its banks, under the names that a saved adapter gives them
        self.bank = Bank(own, parts.mixture, dtype, device, self.tensors, scale_widths.u)
        self.scale = plain_bank(scale_slots, scaling.init, dtype, device, self.tensors)
        if (start := scaling.start_from()) is not None:
            for tensor in self.scale.tensors:
                nn.init.constant_(tensor, start)
        self.joint = plain_bank(own_slots, "zeros", dtype, device, self.tensors)
        self._shared: tuple[Bank | None] = (None,)  # in a tuple, because it is not registered here
        self._direct: Direct | None = None
        self._looked = False  # whether it has been looked at if there is one
        self._places: list[Place] | None = None  # of its bank and the shared one, once it is known
        if device.type != "meta":
            self._start()

    def _contents(self, function: Function, number: int) -> Contents:
        """What one function keeps here; `number` is the expert's, where each has a function of its own."""
        place = f"{self.name}/{self.site.name}{f'/{number}' if number else ''}"
        frozen = frozen_of(function, "frozen", self.widths, place)
        return Contents(function.slots(self.widths), getattr(function, "init", "torch"), frozen)

    @torch.no_grad()
    def _start(self) -> None:
        """Start the tensors that start from the base model's weight."""
        weight_DU = self.weight() if self.parts.needs_weight else None
        for expert, params in enumerate(self.bank.copies()):
            self.function_of(expert).start(params, weight_DU)
        if weight_DU is not None:
            self.parts.composition.start(self.joint.reduced(), weight_DU)

    def weight(self) -> Tensor:
        """The base model's weight at this site, in the dtype that this insertion computes with."""
        like = self._like()
        assert self.base is not None
        return self.base.weight().to(torch.float32 if like is None else like.dtype)

    @property
    def shared(self) -> Bank | None:
        """One bank for all sites of the insertion; the adaptation owns it."""
        return self._shared[0]

    def share(self, bank: Bank | None) -> None:
        self._shared, self._direct, self._looked, self._places = (bank,), None, False, None

    @property
    def banks(self) -> tuple[Bank, Bank, Bank]:
        """All that it learns at its own site."""
        return self.bank, self.scale, self.joint

    def function_of(self, expert: int) -> Function:
        """The function of one expert: that of all of them, unless each has one of its own."""
        functions = functions_of(self.parts.function)
        return functions[expert] if len(functions) > 1 else functions[0]

    def taken(self, route: Route) -> tuple[Function, Params]:
        """The function of a route, and the tensors that it computes with; an empty route stands for all experts, reduced."""
        if not route:
            return self.parts.evaluated, self.reduced()
        function = self.function_of(int(next(iter(route.values()))))
        return function, self.generated(self.bank.routed(route), function)

    def experts(self) -> list[tuple[Function, Params]]:
        """The function of every expert, and the tensors that it computes with."""
        copies = enumerate(self.bank.copies())
        return [(own, self.generated(params, own)) for k, params in copies for own in (self.function_of(k),)]

    def reduced(self) -> Params:
        """The tensors that evaluation, merging and exports use, whatever mode the model is in."""
        return self.generated(self.bank.reduced(), self.parts.evaluated)

    def generated(self, params: Params, function: Function) -> Params:
        """What a function computes with: these tensors of its bank, what its sites share, and what it reads of the base."""
        if function.needs_projections:
            like = next(iter(params.values()))
            params = {**params, **{name: tensor.to(like.dtype) for name, tensor in read_all(self.projections).items()}}
        made = function.generate(params, self.shared.reduced() if self.shared else {}, self.widths)
        if function.needs_weight:
            made = {**made, BASE: self.weight()}
        if function.needs_bias:
            bias = self.base.bias() if self.base is not None else None
            assert bias is not None
            made = {**made, BASE_BIAS: bias.to(next(iter(made.values())).dtype)}
        return made

    def cast(self, u: Tensor | None) -> Tensor | None:
        """u in the dtype that this insertion computes with."""
        # Half-precision base models keep float32 insertions; autocast, where it is on, chooses by itself.
        like = self._like()
        if u is None or like is None or u.dtype == like.dtype or not u.is_floating_point():
            return u
        return u if torch.is_autocast_enabled(u.device.type) else u.to(like.dtype)

    def _like(self) -> Tensor | None:
        """One of the tensors it computes with: their dtype and device are all the same."""
        for bank in (*self.banks, self.shared):
            if bank is not None and bank.names:
                return bank.first
        return None

    def bake(self) -> Callable[[], None]:
        """Turn the bank and any reparametrisation into one ordinary function, in place. Returns a call that undoes it."""
        before = self.parts, self.shared, self.tensors, self.banks
        if self.parts.mixture is not None and not self.parts.mixture.bakes:
            return partial(self._become, *before)
        function, like = self.parts.evaluated.plain(), self._like()
        assert like is not None
        home, values = NamedTensors(), baked(self.reduced())
        frozen = self.bank.frozen_of(self.parts.mixture.expert if self.parts.mixture is not None else 0)
        plain = Bank([Contents(function.slots(self.widths), "zeros", frozen)], None, like.dtype, like.device, home)
        for key in plain.slot_of:
            plain.put(key, values[key])
        parts = replace(self.parts, function=function, mixture=None)
        shared = self.shared if function is self.parts.evaluated else None
        self._become(parts, shared, home, (plain, self.scale.at(home), self.joint.at(home)))
        return partial(self._become, *before)

    def _become(
        self, parts: InsertionParts, shared: Bank | None, tensors: NamedTensors, banks: tuple[Bank, Bank, Bank]
    ) -> None:
        self.parts, self.tensors = parts, tensors
        self.bank, self.scale, self.joint = banks
        self.share(shared)
