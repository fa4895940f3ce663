"""`low_rank`: f(u) = up · down · u, a linear map through `size` dimensions (LoRA: Hu et al. 2022, eq. 3)."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor
from torch.nn import functional as F

from unipet.functions.base import Heads, LinearMap, Params, Slots, TensorSpec, Widths
from unipet.options import option


@dataclass(frozen=True)
class LowRank(LinearMap):
    """A linear map of rank `size`; slots `down` (r, d_in) and `up` (d_out, r).

    `size` is the rank r of LoRA (its A is our `down`, its B our `up`). `dropout` acts on the input, as in loralib.
    The factor α/r belongs to `scaling`, not here.
    """

    size: int = option(8, low=1)
    dropout: float = option(0.0, low=0.0, high=0.999)
    init: str = option("lora", choices=("lora", "bert", "houlsby", "torch"))

    def slots(self, widths: Widths) -> Slots:
        return {
            "down": {"": TensorSpec((self.size, widths.u), "in")},
            "up": {"": TensorSpec((widths.h, self.size), "out")},
        }

    def delta(self, u: Tensor | Heads | None, params: Params, training: bool) -> Tensor:
        assert isinstance(u, Tensor)
        u_BTU = F.dropout(u, self.dropout, training)
        return F.linear(F.linear(u_BTU, params["down"]), params["up"])

    def matrix(self, params: Params) -> Tensor:
        return params["up"] @ params["down"]

    @property
    def starts_at_zero(self) -> bool:
        return self.init == "lora"
