"""A mixture: several copies of a function's slots, routed at random in training and averaged afterwards (AdaMix).

It wraps slots, not outputs, so one implementation serves every function: a *bank* holds M copies of each slot that is
not shared, a *router* picks one copy per slot for a training step, a *reducer* says what evaluation uses, and merging
bakes the bank into one ordinary set of slots (Wang et al., EMNLP 2022; see there §3).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from unipet.calculus.functions.base import Slots
from unipet.calculus.options import option
from unipet.errors import UnipetError, not_allowed, unknown

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

    def check(self, slots: Slots, key: str) -> None:
        """Raise UnipetError unless `share` names some, but not all, of the function's slots."""
        if self.expert >= self.experts:
            raise not_allowed(f"{key}.expert", self.expert, f"a whole number from 0 to {self.experts - 1}")
        for slot in self.share:
            if slot not in slots:
                raise unknown(f"{key}.share", slot, slots)
        if set(self.share) == set(slots):
            raise UnipetError(
                f"{key}.share: sharing every slot ({', '.join(sorted(slots))}) leaves nothing to mix. "
                "Share fewer, or drop the mixture."
            )


def by_expert(route: Route) -> Iterator[tuple[dict[str, int], Tensor | None]]:
    """Split a route into routes of single experts, each with the rows that take it (None: all rows)."""
    if not any(isinstance(choice, Tensor) for choice in route.values()):
        yield {slot: int(choice) for slot, choice in route.items()}, None
        return
    chosen = torch.stack([torch.as_tensor(choice) for choice in route.values()])  # (slots, B) or (slots, B, T)
    for experts in torch.unique(chosen.flatten(1), dim=1).T:
        rows = (chosen == experts.view(-1, *[1] * (chosen.dim() - 1))).all(0)
        yield dict(zip(route, experts.tolist(), strict=True)), rows
