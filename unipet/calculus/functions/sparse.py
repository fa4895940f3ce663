"""Functions with few trained numbers at fixed places of a matrix: `sparse` (SHiRA, SuperTuning) and what others share.

Shapes: D out width, U in width, K number of trained entries.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Generator, Tensor

from unipet.calculus.functions.base import LinearMap, Params, Slots, TensorSpec, Widths
from unipet.calculus.options import option


def places(total: int, count: int, generator: Generator) -> Tensor:
    """`count` different numbers below `total`, in rising order."""
    if 4 * count > total:
        return torch.randperm(total, generator=generator, device="cpu")[:count].sort().values
    found = torch.empty(0, dtype=torch.long, device="cpu")
    while len(found) < count:  # once, almost always: sorting a few draws is cheaper than shuffling a whole weight
        found = torch.unique(torch.randint(total, (2 * count,), generator=generator, device="cpu"))
    return found[torch.randperm(len(found), generator=generator, device="cpu")[:count]].sort().values


def first_places(total: int, count: int, seed: int) -> Tensor:
    """The first `count` numbers below `total` in the order that a seed gives, as they come out."""
    stream = Generator("cpu").manual_seed(seed % 2**63)
    return torch.randperm(total, generator=stream, device="cpu")[
        :count
    ].clone()  # not a view, which would keep all of them


@dataclass(frozen=True)
class Scattered(LinearMap):
    """A map whose K trained numbers, slot `values` (K,), sit at frozen `places` (K,) of a d_out × d_in grid, row by row.

    What the grid means is the subclass's. The places are drawn from `seed`, for every site others or, with `draw: shape`, the
    same for all weights of one shape, as FourierFT's code and peft do. A grid with fewer than K entries trains all.
    """

    linear_in_tensors: ClassVar[bool] = True

    init: str = option("zeros", choices=("zeros", "torch"))
    draw: str = option("site", choices=("site", "shape"), later=True)
    seed: int = option(777, low=0)

    @abstractmethod
    def count(self, widths: Widths) -> int:
        """K, before it is cut to the size of the grid."""

    def _count(self, widths: Widths) -> int:
        return max(1, min(self.count(widths), widths.h * widths.u))

    def slots(self, widths: Widths) -> Slots:
        return {"values": {"": TensorSpec((self._count(widths),), "table")}}

    def frozen(self, widths: Widths, generator: Generator) -> Mapping[str, Tensor]:
        total, count = widths.h * widths.u, self._count(widths)
        if self.draw == "shape":
            return {"places": first_places(total, count, self.seed)}
        return {"places": places(total, count, generator)}

    def generate(self, params: Params, shared: Params, widths: Widths) -> Params:
        return {
            **params,
            "shape": params["places"][:1].expand(widths.h, widths.u),
        }  # one number, seen as the grid's many

    @staticmethod
    def grid(params: Params) -> Tensor:
        """The trained numbers at their places, zeros elsewhere."""
        values_K, (rows, columns) = params["values"], params["shape"].shape
        return values_K.new_zeros(rows * columns).scatter_(0, params["places"], values_K).view(rows, columns)

    @property
    def starts_at_zero(self) -> bool:
        return self.init == "zeros"


@dataclass(frozen=True)
class Sparse(Scattered):
    """Δ is zero but for K entries (SHiRA: Bhardwaj et al. 2024; SuperTuning trains the largest entries of the weight).

    K is r(d_out + d_in), as many as a low-rank map of `size` r has, or the share `density` of all entries where that is
    given. `mask: random` draws them, `largest` and `smallest` take those of |W|.
    """

    size: int = option(8, low=1)
    density: float | None = option(None, low=0.0, high=1.0)
    mask: str = option("random", choices=("random", "largest", "smallest"))

    def count(self, widths: Widths) -> int:
        if self.density is not None:
            return int(self.density * widths.h * widths.u)
        return self.size * (widths.h + widths.u)

    def sizes(self, widths: Sequence[Widths]) -> Sequence[int]:
        if self.density is not None:
            return ()
        full = max(math.ceil(one.h * one.u / (one.h + one.u)) for one in widths)
        return range(1, full + 1)

    @property
    def starts_from_weight(self) -> bool:
        return self.mask != "random"

    def frozen(self, widths: Widths, generator: Generator) -> Mapping[str, Tensor]:
        if self.mask == "random":
            return super().frozen(widths, generator)
        return {"places": torch.arange(self._count(widths))}  # `start` finds them

    def start(self, params: Params, weight_DU: Tensor | None) -> None:
        if self.mask != "random":
            assert weight_DU is not None
            order = weight_DU.abs().flatten().sort(descending=self.mask == "largest", stable=True).indices
            params["places"].copy_(order[: len(params["places"])].sort().values)

    def matrix(self, params: Params) -> Tensor:
        return self.grid(params)

    def entries(self, params: Params) -> tuple[Tensor, Tensor]:
        return params["values"], params["places"]
