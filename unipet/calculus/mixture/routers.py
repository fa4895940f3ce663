"""How a training step picks experts."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Router:
    """A router in words. `grain` is what takes a route of its own: a `call`, an `example` or a `token`; None where no route
    is taken at all. `of_input` says that the input alone decides, so that evaluation may route as well; `options` are those
    of a mixture that it reads and not every router does."""

    words: str
    grain: str | None
    of_input: bool = False
    options: tuple[str, ...] = ()


_DRAWN = ("grain", "slots")
ROUTERS: dict[str, Router] = {
    "uniform": Router(
        "one at random for each slot of each site, for a whole step and view", "call", options=(*_DRAWN, "ranks")
    ),
    "round_robin": Router("all sites the same, each expert in turn: step n takes expert n mod M", "call"),
    "fixed": Router("always `expert`", "call", options=("expert",)),
    "per_example": Router("one at random for each slot of each site and each example", "example", options=_DRAWN),
    "per_token": Router("one at random for each slot of each site and each token", "token", options=_DRAWN),
    "learned": Router(
        "the `top_k` with the highest probability of a linear gate over the token, or over the mean of its sequence",
        "token",
        of_input=True,
        options=("top_k", "noise", "pool"),
    ),
    "hash": Router("a fixed random expert for each word of the vocabulary", "token", of_input=True, options=_DRAWN),
    "soft": Router("none: training uses what the reducer makes of all of them", None),
}
