"""Routes: which expert each slot takes, for a whole call or for each of its examples or tokens.

Shapes: B batch, T positions, M experts.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import torch
from torch import Tensor

from unipet.calculus.mixture.choices import Mixture
from unipet.calculus.mixture.counter import choice, choices, place, places

#: slot -> the expert's index, or one for each example (B,), or for each token (B, T); shared slots are absent.
Route = Mapping[str, "int | Tensor"]

_HASHED = place("hash")  # of the words of a vocabulary: the same in every run


def call_route(mixture: Mixture, slots: Sequence[str], number: int, bits: int) -> Route:
    """The route of a whole call: the `number`-th step, with the random number `bits`."""
    if mixture.router == "round_robin":
        return dict.fromkeys(slots, number % mixture.experts)
    if mixture.router == "fixed":
        return dict.fromkeys(slots, mixture.expert)
    return drawn_route(mixture, slots, bits)


def drawn_route(mixture: Mixture, slots: Sequence[str], bits: int) -> Route:
    """One expert at random for each slot, or for all of them together."""
    if mixture.slots == "joint":
        return dict.fromkeys(slots, choice(bits, mixture.experts))
    return {slot: choice(place(bits, slot), mixture.experts) for slot in slots}


def drawn_routes(mixture: Mixture, slots: Sequence[str], bits: Tensor) -> Route:
    """As `drawn_route`, for every element of `bits`."""
    if mixture.slots == "joint":
        return dict.fromkeys(slots, choices(bits, mixture.experts))
    return {slot: choices(places(bits, place(slot)), mixture.experts) for slot in slots}


def rows_at(bits: int, first: int, count: int, device: torch.device) -> Tensor:
    """The numbers (B,) of `count` rows of a batch from the row `first` on."""
    return places(torch.arange(first, first + count, device=device), bits)


def hashed_routes(mixture: Mixture, slots: Sequence[str], ids_BT: Tensor, group: int) -> Route:
    """The experts of tokens by their ids: a fixed random one for each word of the vocabulary (Roller et al. 2021, §3.2)."""
    return drawn_routes(mixture, slots, places(ids_BT.long(), place(_HASHED, group)))


def by_expert(route: Route) -> Iterator[tuple[dict[str, int], Tensor | None]]:
    """Split a route into routes of single experts, each with the rows that take it (None: all rows)."""
    if not any(isinstance(each, Tensor) for each in route.values()):
        yield {slot: int(each) for slot, each in route.items()}, None
        return
    chosen = torch.stack([torch.as_tensor(each) for each in route.values()])  # (slots, B) or (slots, B, T)
    for experts in torch.unique(chosen.flatten(1), dim=1).T:
        rows = (chosen == experts.view(-1, *[1] * (chosen.dim() - 1))).all(0)
        yield dict(zip(route, experts.tolist(), strict=True)), rows


def shares_of(route: Route, experts: int, real: Tensor | None = None) -> Tensor:
    """The share (M,) of the slots, and of the `real` tokens of a call (None: all its rows), that each expert takes."""
    taken = []
    for each in route.values():
        index = torch.as_tensor(each)
        hits = (index.unsqueeze(-1) == torch.arange(experts, device=index.device)).float().reshape(-1, experts)
        weight = torch.ones_like(hits[:, :1]) if real is None else real.flatten().unsqueeze(-1).float()
        taken.append((hits * weight).sum(0) / weight.sum().clamp(min=1))
    return torch.stack(taken).mean(0)
