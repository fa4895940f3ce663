"""The tensors of one function: a copy of every slot, or M copies of the slots that a mixture mixes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from copy import copy

import torch
from torch import Generator, Tensor, nn

from unipet.calculus.functions.base import Params, Slots
from unipet.calculus.functions.initialisers import initialise
from unipet.calculus.mixture import Mixture, Route
from unipet.calculus.named_tensors import NamedTensors


class Bank:
    """The tensors of one function at one site: one copy per slot, or M copies of a mixed one. They live in `home`.

    Names are `<slot>[.<expert>][.<tensor>]`: `down`, `up.weight`, `down.3.weight`. Frozen tensors are the same for all
    copies.
    """

    def __init__(
        self,
        slots: Slots,
        scheme: str,
        mixture: Mixture | None,
        dtype: torch.dtype,
        device: torch.device,
        frozen: Mapping[str, Tensor] | None = None,
        home: NamedTensors | None = None,
    ):
        self.home = NamedTensors() if home is None else home
        self.frozen_names = list(frozen or {})
        for name, tensor in (frozen or {}).items():
            self.home.put_buffer(name, tensor.to(device, dtype if tensor.is_floating_point() else None))
        self.mixture = mixture
        self.names: dict[tuple[str, int | None], str] = {}  # ("down.weight", expert) -> its name
        self.slot_of: dict[str, str] = {}  # "down.weight" -> "down"
        self.scores: dict[str, str] = {}  # slot -> the name of its experts' scores
        for slot, tensors in slots.items():
            mixed = mixture is not None and slot not in mixture.share
            for name, spec in tensors.items():
                key = f"{slot}.{name}" if name else slot
                self.slot_of[key] = slot
                first: Tensor | None = None
                for expert in range(mixture.experts) if mixture is not None and mixed else [None]:
                    tensor = torch.empty(spec.shape, dtype=dtype, device=device)
                    if first is not None and mixture is not None and mixture.init == "cloned":
                        tensor.copy_(first)
                    elif tensor.device.type != "meta":
                        initialise(tensor, scheme, spec.part, spec.start)
                    first = tensor
                    own = key if expert is None else f"{slot}.{expert}{key[len(slot) :]}"
                    self.names[key, expert] = own
                    self.home.put_parameter(own, nn.Parameter(tensor))
        if mixture is not None and mixture.reducer == "weighted":
            start = torch.zeros(mixture.experts, dtype=dtype, device=device)
            self.scores = {slot: f"{slot}.scores" for slot in self.mixed_slots()}
            for own in self.scores.values():
                self.home.put_parameter(own, nn.Parameter(start.clone()))

    def at(self, home: NamedTensors) -> Bank:
        """A bank of the same tensors, which are put into `home` as well."""
        other = copy(self)
        other.home = home
        for name, tensor in self.named_tensors():
            home.put_parameter(name, tensor)
        for name, frozen in self.frozen().items():
            home.put_buffer(name, frozen)
        return other

    @property
    def tensors(self) -> list[nn.Parameter]:
        """The tensors of its slots. The scores of a weighted mixture are not among them."""
        return [self.home.parameter(name) for name in self.names.values()]

    @property
    def count(self) -> int:
        """How many numbers it learns."""
        return sum(tensor.numel() for _, tensor in self.named_tensors())

    def named_tensors(self) -> Iterator[tuple[str, nn.Parameter]]:
        """Every tensor under the name that a saved adapter gives it."""
        for name in (*self.names.values(), *self.scores.values()):
            yield name, self.home.parameter(name)

    def of_slot(self, slot: str) -> list[nn.Parameter]:
        """Every tensor of one slot: those of all experts, and their scores."""
        names = [name for (key, _), name in self.names.items() if self.slot_of[key] == slot]
        return [self.home.parameter(name) for name in names + [own for of, own in self.scores.items() if of == slot]]

    def put(self, key: str, value: nn.Parameter) -> None:
        """Replace the tensor under this key. Its slot must not be mixed."""
        self.home.put_parameter(self.names[key, None], value)

    def frozen(self) -> dict[str, Tensor]:
        """The tensors that never train, by name."""
        return {name: self.home.buffer(name) for name in self.frozen_names}

    def copies(self) -> Iterator[Params]:
        """The tensors of each expert in turn (once where nothing is mixed), frozen ones included."""
        for expert in range(self.mixture.experts if self.mixture is not None else 1):
            yield self.routed(dict.fromkeys(self.mixed_slots(), expert))

    def mixed_slots(self) -> list[str]:
        """The slots that a router chooses for, in a fixed order."""
        return list(dict.fromkeys(self.slot_of[key] for key, expert in self.names if expert is not None))

    def draw(self, generator: Generator, number: int = 0, shape: tuple[int, ...] = (), training: bool = True) -> Route:
        """One expert per mixed slot, or one for each element of `shape`, for the `number`-th step."""
        if self.mixture is None:
            return {}
        count, router = self.mixture.experts, self.mixture.router
        if training and router in ("round_robin", "fixed"):
            return dict.fromkeys(self.mixed_slots(), number % count if router == "round_robin" else self.mixture.expert)
        slots = self.mixed_slots()
        drawn = torch.randint(
            count, (*shape, len(slots)), generator=generator
        )  # row by row: batches may be cut anywhere
        return {slot: drawn[..., i] if shape else int(drawn[i]) for i, slot in enumerate(slots)}

    def routed(self, route: Route) -> Params:
        """The tensors of one route."""
        own = {
            key: self.home.parameter(self.names[key, route.get(slot)])  # type: ignore[index]
            for key, slot in self.slot_of.items()
        }
        return {**own, **self.frozen()}

    def reduced(self) -> Params:
        """The tensors that evaluation and merging use."""
        if self.mixture is None:
            return self.routed({})
        if self.mixture.reducer == "fixed":
            return self.routed(dict.fromkeys(self.mixed_slots(), self.mixture.expert))
        result: dict[str, Tensor] = {}
        for key, slot in self.slot_of.items():
            copies: list[Tensor] = [self.home.parameter(own) for (name, _), own in self.names.items() if name == key]
            result[key] = copies[0] if len(copies) == 1 else self._mean(torch.stack(copies), slot)
        return {**result, **self.frozen()}

    def _mean(self, copies: Tensor, slot: str) -> Tensor:
        if slot not in self.scores:
            return copies.mean(0)
        mean: Tensor = torch.tensordot(self.home.parameter(self.scores[slot]).softmax(0), copies, dims=1)
        return mean


_EMPTY = Bank({}, "zeros", None, torch.float32, torch.device("cpu"))


def plain_bank(slots: Slots, scheme: str, dtype: torch.dtype, device: torch.device, home: NamedTensors) -> Bank:
    """A bank without a mixture. Banks of no tensors, as most are, are one and the same."""
    return Bank(slots, scheme, None, dtype, device, home=home) if slots else _EMPTY


@torch.no_grad()
def baked(params: Params) -> dict[str, nn.Parameter]:
    """Copies of already reduced tensors as ordinary parameters."""
    return {name: nn.Parameter(tensor.detach().clone()) for name, tensor in params.items()}
