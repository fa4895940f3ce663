"""`bottleneck`: f(u) = up · φ(down · u + b) + b', the adapter's two layers (Houlsby et al. 2019; He et al. 2022, §2.2)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor
from torch.nn import functional as F

from unipet.functions.activations import ACTIVATIONS
from unipet.functions.base import Function, Heads, Params, Slots, Widths, linear
from unipet.functions.initialisers import SCHEMES
from unipet.options import option


@dataclass(frozen=True)
class Bottleneck(Function):
    """Down to `size` dimensions, a non-linearity, and up again; slots `down` and `up`, each weight and bias.

    `size` is the bottleneck dimension r. `dropout` acts after the non-linearity (He et al.'s Adapter_Layer). The
    residual is not part of the function: composition `add` is what adds h.
    """

    nonlinear: ClassVar[str | None] = "a bottleneck is not linear"

    size: int = option(64, low=1)
    activation: str = option("relu", choices=tuple(ACTIVATIONS))
    bias: bool = option(True)
    dropout: float = option(0.0, low=0.0, high=0.999)
    init: str = option("bert", choices=tuple(name for name in SCHEMES if name not in ("zeros", "ones")))

    def slots(self, widths: Widths) -> Slots:
        return {
            **linear("down", self.size, widths.u, "in", self.bias),
            **linear("up", widths.h, self.size, "out", self.bias),
        }

    def delta(self, u: Tensor | Heads | None, params: Params, training: bool) -> Tensor:
        assert isinstance(u, Tensor)
        z_BTR = ACTIVATIONS[self.activation](F.linear(u, params["down.weight"], params.get("down.bias")))
        z_BTR = F.dropout(z_BTR, self.dropout, training)
        return F.linear(z_BTR, params["up.weight"], params.get("up.bias"))

    @property
    def starts_at_zero(self) -> bool:
        return self.init == "lora"
