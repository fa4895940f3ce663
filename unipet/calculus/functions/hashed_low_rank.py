"""`hashed_low_rank`: every entry of every low-rank map is one entry of one trained vector (Uni-LoRA: Li et al. 2025).

Shapes: R size, U in width, D out width.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Generator, Tensor

from unipet.calculus.functions.base import Params, Slots, TensorSpec, Widths
from unipet.calculus.functions.made_factors import MadeFactors
from unipet.calculus.options import option


@dataclass(frozen=True)
class HashedLowRank(MadeFactors):
    """up · down with all entries of all sites = θ[index] / √(how often that index occurs) (Li et al. 2025, §3.2).

    All sites share the one trained slot `theta` (length,). The index of each entry is drawn uniformly from `seed`, and
    the factors make the map from θ to all entries an isometry; both are frozen. `size` is the rank r. θ starts
    U(-0.02, 0.02), so Δ starts small, not at zero.
    """

    knob: ClassVar[str] = "length"

    size: int = option(4, low=1)
    length: int = option(23040, low=1)
    dropout: float = option(0.0, low=0.0, high=0.999)
    seed: int = option(0, low=0)

    def sizes(self, widths: Sequence[Widths]) -> Sequence[int]:
        return range(1, sum(self.size * (one.u + one.h) for one in widths) + 1)  # then every entry has one of its own

    def slots(self, widths: Widths) -> Slots:
        return {}

    def shared(self, widths: Sequence[Widths]) -> Slots:
        return {"theta": {"": TensorSpec((self.length,), "table", "uniform_002")}}

    def frozen_count(self, widths: Sequence[Widths]) -> int:
        return self.length + sum(self.size * (one.u + one.h) for one in widths)

    def shared_frozen(self, widths: Sequence[Widths], generator: Generator) -> Mapping[str, Tensor]:
        index = {
            f"index.{one.number}": torch.randint(self.length, (self.size * (one.u + one.h),), generator=generator)
            for one in widths
        }
        entries = torch.cat(list(index.values()))
        count = torch.zeros(self.length).index_add(0, entries, torch.ones(len(entries)))
        return {**index, "factor": count.clamp(min=1).rsqrt()}

    def generate(self, params: Params, shared: Params, widths: Widths) -> Params:
        entries = (shared["theta"] * shared["factor"])[shared[f"index.{widths.number}"]]
        split = self.size * widths.u
        return {**params, "down": entries[:split].view(self.size, -1), "up": entries[split:].view(-1, self.size)}
