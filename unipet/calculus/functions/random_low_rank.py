"""`random_low_rank`: one frozen random pair for all sites, two trained vectors per site (VeRA: Kopiczko et al. 2024, eq. 2).

Shapes: R size, U in width, D out width.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

from torch import Generator, Tensor
from torch.nn import functional as F

from unipet.calculus.functions.base import Heads, LinearMap, Params, Slots, TensorSpec, Widths
from unipet.calculus.functions.beginnings import BeginsLinearly, Linear
from unipet.calculus.functions.factors import seeded_kaiming
from unipet.calculus.options import option


@dataclass(frozen=True)
class RandomLowRank(LinearMap, BeginsLinearly):
    """f(u) = outer ⊙ B (inner ⊙ A u); slots `inner` (r,) and `outer` (d_out,), vectors, never matrices.

    A (r, widest in) and B (widest out, r) are random, frozen, made from `seed`, shared by all sites of the insertion; a
    narrower site takes the first columns of A and the first rows of B. `inner` starts at `start_at` (the paper's
    d_initial), `outer` at zero, so Δ starts at zero. `size` is the rank r. `dropout` acts on the input.
    """

    first_is_shared: ClassVar[bool] = True

    size: int = option(256, low=1)
    dropout: float = option(0.0, low=0.0, high=0.999)
    start_at: float = option(0.1, low=-1e6, high=1e6)
    seed: int = option(0, low=0)

    def slots(self, widths: Widths) -> Slots:
        return {
            "inner": {"": TensorSpec((self.size,), "table", "ones")},
            "outer": {"": TensorSpec((widths.h,), "table", "zeros")},
        }

    def frozen_count(self, widths: Sequence[Widths]) -> int:
        return self.size * (max(one.u for one in widths) + max(one.h for one in widths))

    def shared_frozen(self, widths: Sequence[Widths], generator: Generator) -> Mapping[str, Tensor]:
        return {
            "down": seeded_kaiming((self.size, max(one.u for one in widths)), generator),
            "up": seeded_kaiming((max(one.h for one in widths), self.size), generator),
        }

    def start(self, params: Params, weight_DU: Tensor | None) -> None:
        params["inner"].fill_(self.start_at)

    def generate(self, params: Params, shared: Params, widths: Widths) -> Params:
        return {**params, "down": shared["down"][:, : widths.u], "up": shared["up"][: widths.h]}

    def delta(self, u: Tensor | Heads | None, params: Params, training: bool) -> Tensor:
        assert isinstance(u, Tensor)
        u = F.dropout(u, self.dropout) if training and self.dropout else u
        return self.rest(F.linear(u, params["down"]), params, training)

    def first(self, params: Params, training: bool) -> Linear | None:
        return None if training and self.dropout else (params["down"], None)

    def rest(self, z: Tensor, params: Params, training: bool) -> Tensor:
        return F.linear(z * params["inner"], params["up"]) * params["outer"]

    def cheaper_as_matrix(self, tokens: int, widths: Widths, training: bool) -> bool:
        whole, both = widths.h * widths.u, widths.h + widths.u
        if not training:
            return self.size * whole < tokens * self.size * both
        # Multiplications: x and the gradient of h' through A and B; or the gradient of the weight, and the matrix
        # twice with the gradients of its two factors. Half as much again is for the operators on each of its entries.
        return not self.dropout and 1.5 * (tokens + 4 * self.size) * whole < 2 * tokens * self.size * both

    def matrix(self, params: Params) -> Tensor:
        return (params["outer"].unsqueeze(1) * params["up"]) @ (params["inner"].unsqueeze(1) * params["down"])

    @property
    def starts_at_zero(self) -> bool:
        return True
