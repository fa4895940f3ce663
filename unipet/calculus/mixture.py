"""A mixture: several copies of a function's slots, routed at random in training and averaged afterwards (AdaMix).

It wraps slots, not outputs, so one implementation serves every function: a *bank* holds M copies of each slot that is
not shared, a *router* picks one copy per slot for a training step, a *reducer* says what evaluation uses, and merging
bakes the bank into one ordinary set of slots (Wang et al., EMNLP 2022; see there §3).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import torch
from torch import Generator, Tensor, nn

from unipet.calculus.functions.base import Params, Slots
from unipet.calculus.functions.initialisers import initialise
from unipet.calculus.options import option
from unipet.errors import UnipetError, unknown

#: slot -> the expert's index, or one for each example (B,), or for each token (B, T); shared slots are absent.
Route = Mapping[str, "int | Tensor"]

#: How a training step picks experts.
ROUTERS: dict[str, str] = {
    "uniform": "one at random for each slot of each site, for a whole step and view",
    "round_robin": "all sites the same, each expert in turn: step n takes expert n mod M",
    "fixed": "always `expert`",
    "per_example": "one at random for each slot of each site and each example",
    "soft": "none: training uses what the reducer makes of all of them",
}
#: What evaluation uses.
REDUCERS: dict[str, str] = {
    "mean_of_weights": "the mean of each slot's copies",
    "weighted": "their mean weighted by softmax(scores), which train; the scores start at 0, the plain mean",
    "fixed": "`expert`",
    "mean_of_outputs": "the mean of the experts' outputs, expert i of every slot together",
    "random": "a route drawn for each call",
    "random_example": "a route for each example",
    "random_token": "a route for each token",
}
#: Reducers whose result is one ordinary set of slots, which merging can bake.
_OF_WEIGHTS = ("mean_of_weights", "weighted", "fixed")


@dataclass(frozen=True)
class Mixture:
    """`experts` copies M of every slot but those in `share`.

    `router: uniform` draws each slot of each site independently, once per optimiser step and view, from a random
    stream of its own (AdaMix §3.1). `init: independent` starts every copy on its own (AdaMix for NLU), `cloned` starts
    them equal (its NLG code). Experts that a step does not pick get no gradient and are left alone by the optimiser.
    ROUTERS and REDUCERS say what the others do; `expert` is the one that `fixed` means.
    """

    experts: int = option(4, low=2)
    share: list[str] = option([])
    router: str = option("uniform", choices=tuple(ROUTERS))
    reducer: str = option("mean_of_weights", choices=tuple(REDUCERS))
    init: str = option("independent", choices=("independent", "cloned"))
    expert: int = option(0, low=0)

    @property
    def bakes(self) -> bool:
        """Whether evaluation uses one ordinary set of slots."""
        return self.reducer in _OF_WEIGHTS

    @property
    def by_row(self) -> bool:
        """Whether examples, or tokens, of one call may take different experts, in training or in evaluation."""
        return self.router == "per_example" or self.reducer in ("random_example", "random_token", "mean_of_outputs")

    def grain(self, training: bool) -> str | None:
        """What takes a route of its own: a `call`, an `example` or a `token`; None where all experts are reduced."""
        if training:
            return {"soft": None, "per_example": "example"}.get(self.router, "call")
        return {"random": "call", "random_example": "example", "random_token": "token"}.get(self.reducer)

    def check(self, slots: Slots, where: str) -> None:
        """Raise UnipetError unless `share` names some, but not all, of the function's slots."""
        if self.expert >= self.experts:
            raise UnipetError(
                f"{where}.expert: {self.expert} is out of range, it must be between 0 and {self.experts - 1}."
            )
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
                    position = self.index[key, expert] = len(self.index)
                    self.register_parameter(f"tensor{position}", nn.Parameter(tensor))
        self.scores: dict[str, nn.Parameter] | nn.ParameterDict = {}
        if mixture is not None and mixture.reducer == "weighted":
            start = torch.zeros(mixture.experts, dtype=dtype, device=device)
            self.scores = nn.ParameterDict({slot: nn.Parameter(start.clone()) for slot in self.mixed_slots()})

    @property
    def tensors(self) -> list[nn.Parameter]:
        """All but the scores, in the order of `index`."""
        return list(self._parameters.values())  # type: ignore[arg-type]

    @property
    def count(self) -> int:
        """How many numbers it learns."""
        return sum(tensor.numel() for _, tensor in self.named_tensors())

    def named_tensors(self) -> Iterator[tuple[str, nn.Parameter]]:
        """Every tensor under the name that a saved adapter gives it."""
        tensors = self.tensors
        for (key, expert), position in self.index.items():
            slot = self.slot_of[key]
            name = key if expert is None else f"{slot}.{expert}{key[len(slot) :]}"
            yield name, tensors[position]
        for slot, scores in self.scores.items():
            yield f"{slot}.scores", scores

    def of_slot(self, slot: str) -> list[nn.Parameter]:
        """Every tensor of one slot, of all experts and with their scores."""
        tensors = self.tensors
        own = [tensors[position] for (key, _), position in self.index.items() if self.slot_of[key] == slot]
        return own + [scores for name, scores in self.scores.items() if name == slot]

    def put(self, key: str, value: nn.Parameter) -> None:
        """In place of the one tensor of this name, which is not mixed."""
        self.register_parameter(f"tensor{self.index[key, None]}", value)

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
        tensors = self.tensors
        own = {key: tensors[self.index[key, route.get(slot)]] for key, slot in self.slot_of.items()}  # type: ignore[index]
        return {**own, **self.frozen()}

    def reduced(self) -> Params:
        """The tensors that evaluation and merging use."""
        if self.mixture is None:
            return self.routed({})
        if self.mixture.reducer == "fixed":
            return self.routed(dict.fromkeys(self.mixed_slots(), self.mixture.expert))
        result: dict[str, Tensor] = {}
        tensors = self.tensors
        for key, slot in self.slot_of.items():
            copies: list[Tensor] = [tensors[at] for (name, _), at in self.index.items() if name == key]
            result[key] = copies[0] if len(copies) == 1 else self._mean(torch.stack(copies), slot)
        return {**result, **self.frozen()}

    def _mean(self, copies: Tensor, slot: str) -> Tensor:
        if slot not in self.scores:
            return copies.mean(0)
        mean: Tensor = torch.tensordot(self.scores[slot].softmax(0), copies, dims=1)
        return mean


_EMPTY = Bank({}, "zeros", None, torch.float32, torch.device("cpu"))


def plain_bank(slots: Slots, scheme: str, dtype: torch.dtype, device: torch.device) -> Bank:
    """A bank without a mixture; all that learn nothing, as most do, are one."""
    return Bank(slots, scheme, None, dtype, device) if slots else _EMPTY


def by_expert(route: Route) -> Iterator[tuple[dict[str, int], Tensor | None]]:
    """The routes of single experts that a route is made of, each with the rows that take it (None: all)."""
    if not any(isinstance(choice, Tensor) for choice in route.values()):
        yield {slot: int(choice) for slot, choice in route.items()}, None
        return
    chosen = torch.stack([torch.as_tensor(choice) for choice in route.values()])  # (slots, B) or (slots, B, T)
    for experts in torch.unique(chosen.flatten(1), dim=1).T:
        rows = (chosen == experts.view(-1, *[1] * (chosen.dim() - 1))).all(0)
        yield dict(zip(route, experts.tolist(), strict=True)), rows


@torch.no_grad()
def baked(params: Params) -> dict[str, nn.Parameter]:
    """Copies of already reduced tensors as ordinary parameters."""
    return {name: nn.Parameter(tensor.detach().clone()) for name, tensor in params.items()}
