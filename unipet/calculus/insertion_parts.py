"""What an insertion is made of before any site is known."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from unipet.calculus.composition import Composition, Replace
from unipet.calculus.functions.base import Function, Heads
from unipet.calculus.mixture import Mixture
from unipet.calculus.mixture.expert_functions import ExpertFunctions
from unipet.calculus.scaling import Constant, Scaling
from unipet.errors import UnipetError


@dataclass(frozen=True)
class InsertionParts:
    """The four choices of an insertion and its optional mixture, before any site is known."""

    function: Function
    form: str
    composition: Composition
    scaling: Scaling
    mixture: Mixture | None = None
    tokens: tuple[str, int] | None = None

    @property
    def evaluated(self) -> Function:
        """The function that evaluation uses: where each expert has one of its own and one expert is used, that expert's."""
        if self.mixture is None or self.mixture.reducer != "fixed" or not isinstance(self.function, ExpertFunctions):
            return self.function
        return self.function.experts[self.mixture.expert]

    @property
    def needs_weight(self) -> bool:
        """Whether it reads the base model's weight, at the start or at each call."""
        return self.function.starts_from_weight or self.function.needs_bias or self.composition.needs_weight

    @property
    def reads_x(self) -> bool:
        """Whether it computes with x at a site inside attention, where most functions read the heads alone."""
        gated = self.scaling.dynamic is not None or (self.mixture is not None and self.mixture.gated)
        return gated or self.function.reads == "u" or self.function.reads_x

    @property
    def identity_at_start(self) -> bool:
        """Whether h' = h before training."""
        if isinstance(self.composition, Replace):
            return self.form == "sequential" and self.scaling == Constant() and self.function.starts_at_identity
        return self.composition.keeps_h and (self.function.starts_at_zero or self.scaling.start_from() == 0)


def inside(key: str, error: UnipetError, place: str = "") -> UnipetError:
    """The error of a value inside the insertion at `key`. A value begins its errors with its own key (`function.size`)."""
    joint = "." if str(error).startswith(("function", "composition", "scaling")) else ": "
    return UnipetError(f"{key}{joint}{error}{place}")


def seeded(seed: int, name: str) -> torch.Generator:
    """A random stream for one name, the same on every machine and device."""
    digest = hashlib.sha256(f"{seed}/{name}".encode()).digest()
    return torch.Generator("cpu").manual_seed(int.from_bytes(digest[:7], "big"))


def frozen_of(function: Function, maker: str, widths: Any, name: str) -> Mapping[str, Tensor]:
    """The tensors that a function freezes, drawn from the random stream of `name`.

    `maker` is the function's method that makes them: `frozen` for one site, `shared_frozen` for all.
    """
    make = getattr(function, maker)
    if make.__func__ is getattr(Function, maker):
        return {}  # as most functions: no stream needed
    with torch.device("cpu"):  # from a seed, and so the same whatever device is the default
        made: Mapping[str, Tensor] = make(widths, seeded(getattr(function, "seed", 0), name))
    return made


def split_views(source: Tensor | Heads | None, views: int) -> list[Tensor | Heads | None]:
    if isinstance(source, Tensor):
        return list(source.chunk(views))
    if isinstance(source, Heads):
        xs = [None] * views if source.x_BTU is None else source.x_BTU.chunk(views)
        return [replace(source, q_BHTE=q, x_BTU=x) for q, x in zip(source.q_BHTE.chunk(views), xs, strict=True)]
    return [None] * views


def rows_of(delta: Tensor, rows: int, h: Tensor) -> Tensor:
    """Δ with one row for each of `rows` examples, also where it is the same for all of them."""
    if delta.dim() == h.dim():
        return delta.expand(rows, *delta.shape[1:])
    return delta.expand(rows, *([1] * (h.dim() - 2)), delta.shape[-1])
