"""`hadamard_product`: f(u) = ((up1 down1) ⊙ (up2 down2)) u, an update of rank up to r² (LoHa: Hyeon-Woo et al. 2022)."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from unipet.calculus.functions.base import LinearMap, Params, Slots, TensorSpec, Widths
from unipet.calculus.options import option


@dataclass(frozen=True)
class HadamardProduct(LinearMap):
    """The entrywise product of two rank-`size` matrices; slots `down1`, `down2` (r, d_in), `up1`, `up2` (d_out, r).

    up2 starts at zero, up1 at N(0, 0.1), the others at N(0, 1) (Hyeon-Woo et al. 2022, FedPara; the starts are those of
    LyCORIS).
    """

    size: int = option(8, low=1)

    def slots(self, widths: Widths) -> Slots:
        down, up = (self.size, widths.u), (widths.h, self.size)
        return {
            "down1": {"": TensorSpec(down, "in", "normal")},
            "up1": {"": TensorSpec(up, "out", "normal_01")},
            "down2": {"": TensorSpec(down, "in", "normal")},
            "up2": {"": TensorSpec(up, "out", "zeros")},
        }

    def matrix(self, params: Params) -> Tensor:
        return (params["up1"] @ params["down1"]) * (params["up2"] @ params["down2"])

    @property
    def starts_at_zero(self) -> bool:
        return True
