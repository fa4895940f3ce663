"""`weight_network`: a small network reads the base weight and yields its update (PEANuT: Zhong et al. 2024).

Shapes: D out width, U in width, R size.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor
from torch.nn import functional as F

from unipet.calculus.functions.activations import ACTIVATIONS
from unipet.calculus.functions.base import BASE, LinearMap, Params, Slots, TensorSpec, Widths
from unipet.calculus.options import option


@dataclass(frozen=True)
class WeightNetwork(LinearMap):
    """Δᵀ = up(z), z = φ(Wᵀ downᵀ) passed through `depth` encoders and as many decoders; slots `down` (r, d_out), `up` (d_out, r).

    Each encoder and decoder (slots `encoder0`, `decoder0`, ..., (r, r)) is followed by φ, and each decoder adds what entered
    the encoder opposite to it. It is linear in the model's input, and folds. `size` is the hidden width r.
    """

    size: int = option(32, low=1)
    depth: int = option(0, low=0, high=64)
    activation: str = option("relu", choices=tuple(ACTIVATIONS))

    @property
    def needs_weight(self) -> bool:
        return True

    def slots(self, widths: Widths) -> Slots:
        middle = TensorSpec((self.size, self.size), "in", "kaiming")
        return {
            "down": {"": TensorSpec((self.size, widths.h), "in", "kaiming")},
            **{f"{kind}{layer}": {"": middle} for kind in ("encoder", "decoder") for layer in range(self.depth)},
            "up": {"": TensorSpec((widths.h, self.size), "out", "zeros")},
        }

    def matrix(self, params: Params) -> Tensor:
        activate = ACTIVATIONS[self.activation]
        z_UR = activate(params[BASE].T @ params["down"].T)
        entered: list[Tensor] = []
        for layer in range(self.depth):
            entered.append(z_UR)
            z_UR = activate(F.linear(z_UR, params[f"encoder{layer}"]))
        for layer in range(self.depth):
            z_UR = activate(F.linear(z_UR, params[f"decoder{layer}"])) + entered.pop()
        return params["up"] @ z_UR.T

    @property
    def starts_at_zero(self) -> bool:
        return True
