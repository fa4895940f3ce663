"""A mixture: several copies of a function's slots, routed in training and reduced for evaluation (AdaMix).

It wraps slots, not outputs, so one implementation serves every function: a *bank* holds M copies of each slot that is
not shared, a *router* picks one copy per slot for a training step, a *reducer* says what evaluation uses, and merging
bakes the bank into one ordinary set of slots (Wang et al., EMNLP 2022; see there §3).
"""

from __future__ import annotations

from dataclasses import dataclass

from unipet.calculus.functions.base import Slots
from unipet.calculus.mixture.reducers import REDUCERS
from unipet.calculus.mixture.routers import ROUTERS
from unipet.calculus.options import option, remove_hint
from unipet.errors import UnipetError, not_allowed, unknown

#: Options that some routers and reducers read, and others do not.
_PARTICULAR = ("expert", "grain", "slots", "ranks", "top_k", "noise", "pool")


@dataclass(frozen=True)
class Mixture:
    """`experts` copies M of every slot but those in `share`. ROUTERS and REDUCERS say what their names mean.

    `router: uniform` draws once per optimiser step and view, from a random stream that has nothing to do with dropout's
    (AdaMix §3.1). `init: independent` starts every copy on its own (AdaMix for NLU), `cloned` starts them equal (its NLG
    code). Where experts are drawn or hashed, `grain` says who shares a draw: each `site` has its own, all sites of a `layer`
    have one, or all of the `model`; and `slots` whether each slot has its own (`independent`, AdaMix) or all take the same
    expert (`joint`; the default of `hash`, and the only one of `learned`). Under `ranks: different`, the
    processes of a training on several devices draw different experts of the same step.

    `learned`: p = softmax(W u + noise · ε) of the function's input u, for each token or, with `pool: sequence`, of its mean
    over the real tokens; ε ~ N(0, 1) in training alone (Shazeer et al. 2017, eq. 4, with a fixed deviation). Δ is Σ wᵢ Δᵢ over
    the `top_k` experts: w = p for the one of `top_k: 1` (Fedus et al. 2022, Switch, eq. 2), and p divided by its sum over the
    chosen ones for more (Lepikhin et al. 2021, GShard). `hash` is the random hash of Hash layers (Roller et al. 2021, §3.2).

    Experts that a step does not pick get no gradient: `unrouted: skip` leaves them alone (torch 2), `zero_grad` has the
    optimiser step with zeros for those that had a gradient before, so momentum and weight decay go on (torch 1.9, and with it
    AdaMix's runs).

    `experts: [DIRECTORY, ...]` takes the experts from saved adapters, an insertion of the same choices in each. They do not
    train; the router's gate, or the scores of `reducer: weighted`, do. `adapters` then holds the directories and `frozen` the
    checksums of what is in them; a saved adapter of the mixture has no directories, and carries the experts.

    `experts: {NAME: FUNCTION, ...}` gives each expert a function of its own, of another size or kind, in place of the one of
    the insertion. Their outputs add: a route takes whole experts (`slots: joint`), nothing is shared, and evaluation uses one of
    them, what a router picks, or the mean of their outputs, which is their default reducer.

    `reducer: null` is `routed` for `learned` and `hash`, and `mean_of_weights` for all others.
    """

    experts: int = option(4, low=2, high=4096)
    share: list[str] = option([])
    router: str = option("uniform", choices=tuple(ROUTERS))
    reducer: str | None = option(None, choices=tuple(REDUCERS), null="for what suits the router")
    init: str = option("independent", choices=("independent", "cloned"))
    expert: int = option(0, low=0)
    grain: str = option("site", choices=("site", "layer", "model"))
    slots: str | None = option(None, choices=("independent", "joint"), null="for what suits the router")
    ranks: str = option("same", choices=("same", "different"))
    unrouted: str = option("skip", choices=("skip", "zero_grad"))
    top_k: int = option(1, low=1)
    noise: float = option(0.0, low=0.0)
    pool: str = option("token", choices=("token", "sequence"))
    adapters: list[str] = option([])
    frozen: list[str] = option([])

    def __post_init__(self) -> None:
        of_input = self.router in ROUTERS and ROUTERS[self.router].of_input
        if self.reducer is None:
            object.__setattr__(self, "reducer", "routed" if of_input else "mean_of_weights")
        if self.slots is None:
            object.__setattr__(self, "slots", "joint" if of_input else "independent")

    @property
    def reduces(self) -> str:
        """The reducer's name."""
        assert self.reducer is not None
        return self.reducer

    @property
    def bakes(self) -> bool:
        """Whether evaluation uses one ordinary set of slots."""
        return REDUCERS[self.reduces].bakes

    @property
    def averages_outputs(self) -> bool:
        """Whether evaluation takes the mean of the experts' outputs; merging, of their maps, where all are linear."""
        return self.reducer == "mean_of_outputs"

    @property
    def gated(self) -> bool:
        """Whether a trained gate weighs the experts."""
        return self.router == "learned"

    @property
    def by_row(self) -> bool:
        """Whether examples, or tokens, of one call may take different experts, in training or in evaluation."""
        grains = (ROUTERS[self.router].grain, REDUCERS[self.reduces].grain)
        return any(grain in ("example", "token") for grain in grains) or self.averages_outputs

    @property
    def by_token(self) -> bool:
        """Whether tokens may take different experts, or the gate averages over them."""
        return "token" in (ROUTERS[self.router].grain, REDUCERS[self.reduces].grain)

    def weights(self, slots: Slots, width: int) -> int:
        """How many numbers it trains at one site to weigh its experts; `width` is that of the function's input."""
        scores = len(set(slots) - set(self.share)) if self.reducer == "weighted" else 0
        return self.experts * (scores + (width if self.gated else 0))

    def grain_of(self, training: bool) -> str | None:
        """What takes a route of its own: a `call`, an `example` or a `token`; None where all experts are reduced."""
        if training or self.reducer == "routed":
            return ROUTERS[self.router].grain
        return REDUCERS[self.reduces].grain

    @property
    def draws_in_evaluation(self) -> bool:
        """Whether two evaluations of the same input may differ, or passes of one evaluation do."""
        return self.reducer != "routed" and self.grain_of(False) is not None

    def routes_by(self, training: bool) -> str:
        """How a route comes about: `drawn`, `gate` or `hash`."""
        if training or self.reducer == "routed":
            return {"learned": "gate", "hash": "hash"}.get(self.router, "drawn")
        return "drawn"

    def check(self, slots: Slots, key: str, differ: bool = False) -> None:
        """Raise UnipetError unless `share` names some, but not all, of the function's slots, and every option is read. With
        `differ`, each expert is a function of its own."""
        if self.expert >= self.experts:
            raise not_allowed(f"{key}.expert", self.expert, f"a whole number from 0 to {self.experts - 1}")
        if self.top_k > self.experts:
            raise not_allowed(
                f"{key}.top_k", self.top_k, f"a whole number from 1 to {self.experts}, the number of experts"
            )
        for slot in self.share:
            if slot not in slots:
                raise unknown(f"{key}.share", slot, slots)
        if set(self.share) == set(slots):
            raise UnipetError(
                f"{key}.share: sharing every slot ({', '.join(sorted(slots))}) leaves nothing to mix. "
                "Share fewer, or drop the mixture."
            )
        if self.frozen and (self.share or len(self.frozen) != self.experts or self.init != "independent"):
            raise UnipetError(
                f"{key}: experts of saved adapters are whole functions: share and init do not go with them, and `frozen` and "
                f"`adapters` are written by unipet. Give experts: [DIRECTORY, ...] alone."
            )
        if self.reducer == "routed" and not ROUTERS[self.router].of_input:
            able = ", ".join(name for name, router in ROUTERS.items() if router.of_input)
            raise UnipetError(
                f"{key}.reducer: 'routed' does not go with router {self.router!r}, which does not look at the input. Routers "
                f"that do: {able}. Use reducer: mean_of_weights, or random for a route drawn at each call."
            )
        self._check_read(key, differ)

    def check_differing(self, key: str) -> None:
        """Raise UnipetError for what needs experts of one function, where each has its own."""
        if self.share or self.init != "independent":
            raise UnipetError(
                f"{key}: share and init are about copies of one function's slots, and these experts are functions of their "
                "own, each with an init of its own. Leave both out."
            )
        if self.slots != "joint":
            raise not_allowed(f"{key}.slots", self.slots, "joint: an expert is a whole function here")
        if REDUCERS[self.reduces].of_copies:
            able = ", ".join(name for name, reducer in REDUCERS.items() if not reducer.of_copies)
            raise UnipetError(
                f"{key}.reducer: {self.reducer!r} averages the copies of each tensor, and functions of their own have no common "
                f"shapes. Reducers that do not: {able}. Use mean_of_outputs; where every expert is linear, merging makes "
                "of it the mean of their weight deltas, exactly."
            )

    def _check_read(self, key: str, differ: bool) -> None:
        """Raise UnipetError for an option that neither the router nor the reducer reads."""
        read = {*ROUTERS[self.router].options, *REDUCERS[self.reduces].options}
        usual = Mixture(router=self.router, slots="joint" if differ else None)
        for name in _PARTICULAR:
            if name in read or getattr(self, name) == getattr(usual, name):
                continue
            readers = [f"router {n}" for n, router in ROUTERS.items() if name in router.options]
            readers += [f"reducer {n}" for n, reducer in REDUCERS.items() if name in reducer.options]
            raise UnipetError(
                f"{key}.{name}: neither router {self.router!r} nor reducer {self.reducer!r} reads it. It is an option of "
                f"{', '.join(readers)}. {remove_hint(f'{key}.{name}')}"
            )
