"""`plane_rotation`: pairs of channels are rotated and stretched (RoAD: Liao & Monz 2024).

Shapes: N groups, G width of a group, D = N·G.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from unipet.calculus.functions.base import Params, Slots, TensorSpec, Widths
from unipet.calculus.functions.blocks import cut, must_divide
from unipet.calculus.functions.orthogonal import Turn
from unipet.calculus.options import option
from unipet.errors import not_allowed


@dataclass(frozen=True)
class PlaneRotation(Turn):
    """(a, c) -> (α cos θ · a - α sin θ · c, α sin θ · a + α cos θ · c) for every pair of channels.

    Slots `angles` (θ, start 0) and `gains` (α, start 1). `per_pair` says how many θ and α a pair has: 1 for all four
    coefficients, 2 one for each row, 4 one for each coefficient (Liao & Monz 2024, RoAD 1, 2 and 4); each slot is
    (per_pair · D/2,), group after group. `group_size` G says which channels are a pair: channel j of a group's first half
    and channel j of its second half; 2 pairs neighbours, as in the paper.
    """

    per_pair: int = option(1, low=1, high=4)
    group_size: int = option(2, low=2)

    def turn_slots(self, widths: Widths) -> Slots:
        if self.per_pair not in (1, 2, 4):
            raise not_allowed("function.per_pair", self.per_pair, "1, 2 or 4")
        must_divide("group_size", 2, group=self.group_size)
        must_divide("group_size", self.group_size, output=widths.h)
        shape = (self.per_pair * widths.h // 2,)
        return {
            "angles": {"": TensorSpec(shape, "table", "zeros")},
            "gains": {"": TensorSpec(shape, "table", "ones")},
        }

    def width(self, params: Params) -> int:
        return 2 * len(params["angles"]) // self.per_pair

    def turned(self, u: Tensor, params: Params) -> Tensor:
        own_ND, cross_ND = self._coefficients(params)
        first, second = cut(u, -1, 2, self.group_size // 2).unbind(-2)
        other = torch.stack([-second, first], dim=-2).flatten(-3)
        return u * own_ND + other * cross_ND

    def _coefficients(self, params: Params) -> tuple[Tensor, Tensor]:
        """What multiplies a channel itself, and what its partner, each (D,)."""
        half = self.group_size // 2
        if self.per_pair == 4:
            angles, gains = (params[slot].view(-1, 2, self.group_size) for slot in ("angles", "gains"))
            return (gains[:, 0] * angles[:, 0].cos()).flatten(), (gains[:, 1] * angles[:, 1].sin()).flatten()
        angles, gains = params["angles"], params["gains"]
        if self.per_pair == 1:
            angles, gains = (tensor.view(-1, 1, half).expand(-1, 2, -1).flatten() for tensor in (angles, gains))
        return gains * angles.cos(), gains * angles.sin()

    @property
    def starts_at_identity(self) -> bool:
        return True
