"""A mixture: several copies of a function's slots, routed at random in training and averaged afterwards (AdaMix).

It wraps slots, not outputs, so one implementation serves every function: a *bank* holds M copies of each slot that is
not shared, a *router* picks one copy per slot for a training step, a *reducer* says what evaluation uses, and merging
bakes the bank into one ordinary set of slots (Wang et al., EMNLP 2022; see there §3).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

import torch
from torch import Generator, Tensor, nn

from unipet.errors import UnipetError, unknown
from unipet.functions.base import Params, Slots
from unipet.functions.initialisers import initialise
from unipet.options import option

#: slot -> expert index; shared slots are absent.
Route = Mapping[str, int]


def _uniform(experts: int, generator: Generator) -> int:
    return int(torch.randint(experts, (1,), generator=generator))


def _mean_of_weights(copies: list[Tensor]) -> Tensor:
    return torch.stack(copies).mean(0)


#: How a training step picks an expert: (number of experts, random stream) -> index.
ROUTERS: dict[str, Callable[[int, Generator], int]] = {"uniform": _uniform}
#: How evaluation makes one slot of the copies.
REDUCERS: dict[str, Callable[[list[Tensor]], Tensor]] = {"mean_of_weights": _mean_of_weights}


@dataclass(frozen=True)
class Mixture:
    """`experts` copies M of every slot but those in `share`.

    `router: uniform` draws each slot of each site independently, once per optimiser step and view, from a random
    stream of its own (AdaMix §3.1). `init: independent` starts every copy on its own (AdaMix for NLU), `cloned` starts
    them equal (its NLG code). Experts that a step does not pick get no gradient and are left alone by the optimiser.
    """

    experts: int = option(4, low=2)
    share: list[str] = option([])
    router: str = option("uniform", choices=tuple(ROUTERS))
    reducer: str = option("mean_of_weights", choices=tuple(REDUCERS))
    init: str = option("independent", choices=("independent", "cloned"))

    def check(self, slots: Slots, where: str) -> None:
        """Raise UnipetError unless `share` names some, but not all, of the function's slots."""
        for slot in self.share:
            if slot not in slots:
                raise unknown(f"{where}.share", slot, slots)
        if set(self.share) == set(slots):
            raise UnipetError(
                f"{where}.share: sharing every slot ({', '.join(sorted(slots))}) leaves nothing to mix. "
                "Share fewer, or drop the mixture."
            )


class Bank(nn.Module):
    """The tensors of one function at one site: one copy per slot, or M copies of a mixed one.

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
    ):
        super().__init__()
        self.frozen_names = list(frozen or {})
        for number, tensor in enumerate((frozen or {}).values()):
            tensor = tensor.to(device, dtype if tensor.is_floating_point() else None)
            self.register_buffer(f"frozen{number}", tensor, persistent=False)
        self.mixture = mixture
        self.index: dict[tuple[str, int | None], int] = {}  # ("down.weight", expert) -> position in `tensors`
        self.slot_of: dict[str, str] = {}  # "down.weight" -> "down"
        self.tensors = nn.ParameterList()
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
                    self.index[key, expert] = len(self.tensors)
                    self.tensors.append(nn.Parameter(tensor))

    def named_tensors(self) -> Iterator[tuple[str, nn.Parameter]]:
        """Every tensor under the name that a saved adapter gives it."""
        for (key, expert), position in self.index.items():
            slot = self.slot_of[key]
            name = key if expert is None else f"{slot}.{expert}{key[len(slot) :]}"
            yield name, self.tensors[position]

    def frozen(self) -> dict[str, Tensor]:
        """What never trains, by name."""
        return {name: getattr(self, f"frozen{number}") for number, name in enumerate(self.frozen_names)}

    def copies(self) -> Iterator[Params]:
        """The tensors of each expert in turn (once where nothing is mixed), frozen ones included."""
        for expert in range(self.mixture.experts if self.mixture is not None else 1):
            yield self.routed(dict.fromkeys(self.mixed_slots(), expert))

    def mixed_slots(self) -> list[str]:
        """The slots that a router chooses for, in a fixed order."""
        return list(dict.fromkeys(self.slot_of[key] for key, expert in self.index if expert is not None))

    def draw(self, generator: Generator) -> Route:
        """One expert per mixed slot."""
        if self.mixture is None:
            return {}
        router = ROUTERS[self.mixture.router]
        return {slot: router(self.mixture.experts, generator) for slot in self.mixed_slots()}

    def routed(self, route: Route) -> Params:
        """The tensors of one route."""
        own = {key: self.tensors[self._at(key, route.get(self.slot_of[key]))] for key in self.slot_of}
        return {**own, **self.frozen()}

    def reduced(self) -> Params:
        """The tensors that evaluation and merging use."""
        if self.mixture is None:
            return self.routed({})
        reduce = REDUCERS[self.mixture.reducer]
        result: dict[str, Tensor] = {}
        for key in self.slot_of:
            copies = [self.tensors[at] for (name, _), at in self.index.items() if name == key]
            result[key] = copies[0] if len(copies) == 1 else reduce(copies)
        return {**result, **self.frozen()}

    def _at(self, key: str, expert: int | None) -> int:
        return self.index[key, expert]


@torch.no_grad()
def baked(params: Params) -> dict[str, nn.Parameter]:
    """Copies of already reduced tensors as ordinary parameters."""
    return {name: nn.Parameter(tensor.detach().clone()) for name, tensor in params.items()}
