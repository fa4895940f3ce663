"""Experts that are functions of their own, of different sizes or kinds: their outputs add, their tensors do not."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Self

from torch import Tensor

from unipet.calculus.functions.base import Function, Heads, Params, Slots, Widths
from unipet.errors import UnipetError, not_allowed


@dataclass(frozen=True)
class ExpertFunctions(Function):
    """The functions f₁ ... f_M of a mixture, in place of the one function of an insertion. `names` are those of the experts.

    It answers for all of them what a site must provide: the base model's weight, its bias, its projections.
    """

    names: tuple[str, ...]
    experts: tuple[Function, ...]

    @property
    def reads(self) -> str:  # type: ignore[override]
        """Whether any reads the queries, token ids or u."""
        kinds = {one.reads for one in self.experts}
        return next(kind for kind in ("heads", "ids", "u", "nothing") if kind in kinds)

    @property
    def nonlinear(self) -> str | None:  # type: ignore[override]
        """Why one of them cannot fold into a weight, which then keeps all from it."""
        stuck = zip(self.names, self.experts, strict=True)
        return next((f"expert {name!r}: {one.nonlinear}" for name, one in stuck if one.nonlinear), None)

    @property
    def needs_projections(self) -> bool:  # type: ignore[override]
        return any(one.needs_projections for one in self.experts)

    @property
    def needs_weight(self) -> bool:
        return any(one.needs_weight for one in self.experts)

    @property
    def needs_bias(self) -> bool:
        return any(one.needs_bias for one in self.experts)

    @property
    def reads_x(self) -> bool:
        return any(one.reads_x for one in self.experts)

    @property
    def starts_from_weight(self) -> bool:
        return any(one.starts_from_weight for one in self.experts)

    @property
    def starts_at_zero(self) -> bool:
        return all(one.starts_at_zero for one in self.experts)

    @property
    def has_offset(self) -> bool:
        return any(one.has_offset for one in self.experts)

    def plain(self) -> Self:
        return replace(self, experts=tuple(one.plain() for one in self.experts))

    def slots(self, widths: Widths) -> Slots:
        """Those of every expert, `down.0` of the first."""
        return {
            f"{slot}.{number}": tensors
            for number, one in enumerate(self.experts)
            for slot, tensors in one.slots(widths).items()
        }

    def frozen_count(self, widths: Sequence[Widths]) -> int:
        return sum(one.frozen_count(widths) for one in self.experts)

    def delta(self, u: Tensor | Heads | None, params: Params, training: bool) -> Tensor:
        raise AssertionError("each expert has a delta of its own")

    def refuses(self) -> str | None:
        """Why one of them cannot be an expert beside others, or None. Which choices go with a position or a composition is
        asked of each function by itself."""
        for name, one in zip(self.names, self.experts, strict=True):
            if one.starts_from_text:
                return (
                    f"expert {name!r} starts from a text that the base model reads, which is done for single functions."
                )
            if one.shared([Widths(1, 1, 1, 1, 1)]) or type(one).shared_frozen is not Function.shared_frozen:
                return f"expert {name!r} has tensors that all sites share, and here each site's tensors are its own."
        return None


def functions_of(function: Function) -> tuple[Function, ...]:
    """The functions of a mixture's experts where they differ, or the one function."""
    return function.experts if isinstance(function, ExpertFunctions) else (function,)


def listed(mixture: Any, key: str) -> dict[str, Any] | None:
    """The functions that a mixture's mapping lists as its experts, by name, not yet parsed; None where it lists none. Those of
    a list are called by their numbers. Raises UnipetError for fewer than two, and for a name that cannot be a key."""
    experts = mixture.get("experts") if isinstance(mixture, Mapping) else None
    if isinstance(experts, list | tuple) and any(isinstance(one, Mapping) for one in experts):
        experts = {str(number): one for number, one in enumerate(experts)}
    if not isinstance(experts, Mapping):
        return None
    experts = {str(name): choice for name, choice in experts.items() if choice is not None}  # null takes one out
    if len(experts) < 2:
        raise not_allowed(f"{key}.experts", experts, "two or more functions, each under a name of its own")
    for name in experts:
        if not name.replace("_", "").replace("-", "").isalnum():
            raise UnipetError(
                f"{key}.experts: an expert may not be called {name!r}; allowed: letters, digits, '_' and '-'."
            )
    return experts
