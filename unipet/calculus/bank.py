"""The tensors of one function: a copy of every slot, or M copies of the slots that a mixture mixes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from copy import copy
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from unipet.calculus.functions.base import Params, Slots
from unipet.calculus.functions.initialisers import initialise
from unipet.calculus.mixture import Mixture, Route
from unipet.calculus.named_tensors import NamedTensors


@dataclass(frozen=True)
class Contents:
    """What a function keeps at one site: its slots, the scheme that starts them, and what it freezes."""

    slots: Slots
    scheme: str
    frozen: Mapping[str, Tensor] = field(default_factory=dict)


class Bank:
    """The tensors of one function at one site: one copy per slot, or M copies of a mixed one. They live in `home`.

    Names are `<slot>[.<expert>][.<tensor>]`: `down`, `up.weight`, `down.3.weight`. Frozen tensors are the same for all
    copies. Where the experts of a mixture are functions of their own, `contents` has those of each: an expert then has its
    own slots, shapes and frozen tensors, under the same names.
    """

    def __init__(
        self,
        contents: Sequence[Contents],
        mixture: Mixture | None,
        dtype: torch.dtype,
        device: torch.device,
        home: NamedTensors | None = None,
        gate_width: int = 0,
    ):
        self.home = NamedTensors() if home is None else home
        self.differ = len(contents) > 1  # whether each expert has slots of its own
        self.mixture = mixture
        self.frozen_names: dict[tuple[str, int | None], str] = {}  # as `names`
        self.names: dict[tuple[str, int | None], str] = {}  # ("down.weight", expert) -> its name
        self.slot_of: dict[str, str] = {}  # "down.weight" -> "down"
        self.scores: dict[str, str] = {}  # slot -> the name of its experts' scores
        self.settled: dict[str, str] = {}  # slot or key -> the name of what data decide once training is over
        self.gate: str | None = None  # the name of a learned router's weight, (M, gate_width)
        self.given: Tensor | None = None  # (M,): weights of the experts that go before the reducer's, for comparisons
        for number, own in enumerate(contents):
            self._put_contents(own, number if self.differ else None, dtype, device)
        if mixture is not None:
            self._put_weights(mixture, gate_width, dtype, device)

    def _put_contents(self, own: Contents, of: int | None, dtype: torch.dtype, device: torch.device) -> None:
        """The tensors of one function: of the expert `of`, or of all of them (None)."""
        mixture = self.mixture
        for name, tensor in own.frozen.items():
            self.frozen_names[name, of] = name if of is None else f"{name}.{of}"
            made = tensor.to(device, dtype if tensor.is_floating_point() else None)
            self.home.put_buffer(self.frozen_names[name, of], made)
        for slot, tensors in own.slots.items():
            mixed = mixture is not None and slot not in mixture.share
            for name, spec in tensors.items():
                key = f"{slot}.{name}" if name else slot
                self.slot_of[key] = slot
                first: Tensor | None = None
                copies = range(mixture.experts) if mixture is not None and mixed and of is None else [of]
                for expert in copies:
                    tensor = torch.empty(spec.shape, dtype=dtype, device=device)
                    if mixture is not None and mixture.frozen:
                        tensor.zero_()  # until saved adapters are read
                    elif first is not None and mixture is not None and mixture.init == "cloned":
                        tensor.copy_(first)
                    elif tensor.device.type != "meta":
                        initialise(tensor, own.scheme, spec.part, spec.start)
                    first = tensor
                    name_of_it = key if expert is None else f"{slot}.{expert}{key[len(slot) :]}"
                    self.names[key, expert] = name_of_it
                    frozen_expert = mixture is not None and bool(mixture.frozen)
                    self.home.put_parameter(name_of_it, nn.Parameter(tensor, requires_grad=not frozen_expert))

    def _put_weights(self, mixture: Mixture, gate_width: int, dtype: torch.dtype, device: torch.device) -> None:
        """The tensors that weigh the experts."""
        start = torch.zeros(mixture.experts, dtype=dtype, device=device)
        if mixture.reducer == "weighted":
            self.scores = {slot: f"{slot}.scores" for slot in self.mixed_slots()}
            for own in self.scores.values():
                self.home.put_parameter(own, nn.Parameter(start.clone()))
        if mixture.gated:
            weight = torch.empty(mixture.experts, gate_width, dtype=dtype, device=device)
            if device.type != "meta":
                initialise(weight, "bert", "in", None)
            self.gate = "router.weight"
            self.home.put_parameter(self.gate, nn.Parameter(weight))
        if mixture.reducer == "greedy_soup":
            self.settled = {slot: f"{slot}.soup" for slot in self.mixed_slots()}
        if mixture.reducer == "fisher":
            self.settled = {
                key: f"{slot}.fisher{key[len(slot) :]}"
                for key, slot in self.slot_of.items()
                if slot not in mixture.share
            }
        for key, own in self.settled.items():  # equal weights until training is over
            copies = self._copies(key)
            shape = (mixture.experts, *copies[0].shape) if copies else (mixture.experts,)
            ones = torch.ones(shape, dtype=dtype, device=device)
            self.home.put_parameter(own, nn.Parameter(ones, requires_grad=False))

    def at(self, home: NamedTensors) -> Bank:
        """A bank of the same tensors, which are put into `home` as well."""
        other = copy(self)
        other.home = home
        for name, tensor in (*self.named_tensors(), *self.settled_tensors()):
            home.put_parameter(name, tensor)
        for name, frozen in self.frozen().items():
            home.put_buffer(name, frozen)
        return other

    @property
    def frozen_experts(self) -> bool:
        """Whether its experts come from saved adapters and do not train."""
        return self.mixture is not None and bool(self.mixture.frozen)

    @property
    def tensors(self) -> list[nn.Parameter]:
        """The tensors of its slots. The scores of a weighted mixture are not among them."""
        return [self.home.parameter(name) for name in self.names.values()]

    @property
    def count(self) -> int:
        """How many numbers it learns."""
        return sum(tensor.numel() for _, tensor in self.named_tensors())

    def named_tensors(self) -> Iterator[tuple[str, nn.Parameter]]:
        """Every tensor that trains, under the name that a saved adapter gives it."""
        slots = [] if self.frozen_experts else self.names.values()
        for name in (*slots, *self.scores.values(), *([self.gate] if self.gate else [])):
            yield name, self.home.parameter(name)

    def settled_tensors(self) -> Iterator[tuple[str, nn.Parameter]]:
        """Every tensor that training leaves alone and a saved adapter holds, likewise: what data decide afterwards, and
        experts that come from saved adapters."""
        for name in (*(self.names.values() if self.frozen_experts else ()), *self.settled.values()):
            yield name, self.home.parameter(name)

    def of_slot(self, slot: str) -> list[nn.Parameter]:
        """Every tensor of one slot: those of all experts, and their scores."""
        own = {} if self.frozen_experts else self.names
        names = [name for (key, _), name in own.items() if self.slot_of[key] == slot]
        return [self.home.parameter(name) for name in names + [own for of, own in self.scores.items() if of == slot]]

    def put(self, key: str, value: nn.Parameter) -> None:
        """Replace the tensor under this key. Its slot must not be mixed."""
        self.home.put_parameter(self.names[key, None], value)

    def frozen(self) -> dict[str, Tensor]:
        """The tensors that never train, by name."""
        return {name: self.home.buffer(name) for name in self.frozen_names.values()}

    def frozen_of(self, expert: int) -> dict[str, Tensor]:
        """Those of one expert, as its function calls them."""
        own = expert if self.differ else None
        return {key: self.home.buffer(name) for (key, of), name in self.frozen_names.items() if of == own}

    def copies(self) -> Iterator[Params]:
        """The tensors of each expert in turn (once where nothing is mixed), frozen ones included."""
        for expert in range(self.mixture.experts if self.mixture is not None else 1):
            yield self.routed(dict.fromkeys(self.mixed_slots(), expert))

    def mixed_slots(self) -> list[str]:
        """The slots that a router chooses for, in a fixed order."""
        return list(dict.fromkeys(self.slot_of[key] for key, expert in self.names if expert is not None))

    def routed(self, route: Route) -> Params:
        """The tensors of one route."""
        if self.differ:
            return self._of_expert(int(next(iter(route.values()))))
        own = {
            key: self.home.parameter(self.names[key, route.get(slot)])  # type: ignore[index]
            for key, slot in self.slot_of.items()
        }
        return {**own, **self.frozen()}

    def _of_expert(self, expert: int) -> Params:
        """The tensors of an expert that is a function of its own, as that function calls them."""
        own = {key: self.home.parameter(name) for (key, of), name in self.names.items() if of == expert}
        return {**own, **self.frozen_of(expert)}

    def reduced(self) -> Params:
        """The tensors that evaluation and merging use."""
        if self.mixture is None:
            return self.routed({})
        if self.mixture.reducer == "fixed" and self.given is None:
            return self.routed(dict.fromkeys(self.mixed_slots(), self.mixture.expert))
        assert not self.differ, "different functions have no common tensors"
        result: dict[str, Tensor] = {}
        for key in self.slot_of:
            copies = self._copies(key)
            result[key] = self._mean(torch.stack(copies), key) if copies else self.home.parameter(self.names[key, None])
        return {**result, **self.frozen()}

    def weighed(self, outputs_M: Tensor) -> Tensor:
        """The mean (...) of the experts' outputs (M, ...), with the weights of a comparison where there are some."""
        if self.given is None:
            return outputs_M.mean(0)
        mean: Tensor = torch.tensordot(self.given.to(outputs_M), outputs_M, dims=1)
        return mean

    def _copies(self, key: str) -> list[Tensor]:
        """The experts' copies of one tensor, in order; none where its slot is shared."""
        experts = range(self.mixture.experts if self.mixture is not None else 0)
        return [self.home.parameter(self.names[key, expert]) for expert in experts if (key, expert) in self.names]

    def _mean(self, copies: Tensor, key: str) -> Tensor:
        """The weighted mean of stacked copies (M, ...)."""
        slot = self.slot_of[key]
        if self.given is not None:
            weights = self.given.to(copies)
        elif slot in self.scores:
            weights = self.home.parameter(self.scores[slot]).softmax(0)
        elif slot in self.settled or key in self.settled:
            weights = self.home.parameter(self.settled.get(key, self.settled.get(slot, "")))
            weights = weights / weights.sum(0)
        else:
            return copies.mean(0)
        if weights.dim() == copies.dim():
            return (weights * copies).sum(0)
        mean: Tensor = torch.tensordot(weights, copies, dims=1)
        return mean


_EMPTY = Bank([Contents({}, "zeros")], None, torch.float32, torch.device("cpu"))


def plain_bank(slots: Slots, scheme: str, dtype: torch.dtype, device: torch.device, home: NamedTensors) -> Bank:
    """A bank without a mixture. Banks of no tensors, as most are, are one and the same."""
    return Bank([Contents(slots, scheme)], None, dtype, device, home) if slots else _EMPTY


@torch.no_grad()
def baked(params: Params) -> dict[str, nn.Parameter]:
    """Copies of already reduced tensors as ordinary parameters."""
    return {name: nn.Parameter(tensor.detach().clone()) for name, tensor in params.items()}
