"""`bottleneck`: f(u) = up · φ(down · u + b) + b', the adapter's two layers (Houlsby et al. 2019; He et al. 2022, §2.2)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.nn import functional as F

from unipet.calculus.functions.activations import ACTIVATIONS
from unipet.calculus.functions.base import Function, Heads, Params, Slots, Widths
from unipet.calculus.functions.beginnings import BeginsLinearly, Linear
from unipet.calculus.functions.initialisers import SCHEMES, starts_output_at_zero
from unipet.calculus.functions.product import Delta, Product, scaled, value
from unipet.calculus.functions.slot_layers import layer_norm, linear
from unipet.calculus.options import option


@dataclass(frozen=True)
class Bottleneck(Function, BeginsLinearly):
    """Down to `size` dimensions, a non-linearity, and up again; slots `down` and `up`, each weight and bias.

    `size` is the bottleneck dimension r. `dropout` acts after the non-linearity (He et al.'s Adapter_Layer). In
    training `drop_path` leaves Δ out of that share of the examples and scales the others up (stochastic depth; Steitz &
    Roth 2024, §3.1). `norm: in` puts a LayerNorm of its own (slot `norm`, with `eps`) before the down-projection, `out`
    one after the up-projection, as He et al.'s code can. The residual is not part of the function: composition `add` is
    what adds h.
    """

    nonlinear: ClassVar[str | None] = "a bottleneck is not linear"

    size: int = option(64, low=1)
    activation: str = option("relu", choices=tuple(ACTIVATIONS))
    bias: bool = option(True)
    dropout: float = option(0.0, low=0.0, high=0.999)
    drop_path: float = option(0.0, low=0.0, high=0.999)
    init: str = option("bert", choices=tuple(name for name in SCHEMES if name not in ("zeros", "ones")))
    norm: str = option("none", choices=("none", "in", "out"))
    eps: float = option(1e-5, low=0.0)

    def slots(self, widths: Widths) -> Slots:
        return {
            **linear("down", self.size, widths.u, "in", self.bias),
            **linear("up", widths.h, self.size, "out", self.bias),
            **self._norm_slot(widths),
        }

    def _norm_slot(self, widths: Widths) -> Slots:
        return {} if self.norm == "none" else layer_norm("norm", widths.u if self.norm == "in" else widths.h)

    def delta(self, u: Tensor | Heads | None, params: Params, training: bool) -> Tensor:
        return value(self._delta(u, params, training))

    def unjoined(self, u: Tensor | Heads | None, params: Params, training: bool) -> Delta:
        if type(self).delta is not Bottleneck.delta:
            return self.delta(u, params, training)
        return self._delta(u, params, training)

    def _delta(self, u: Any, params: Params, training: bool) -> Delta:
        u = self._normed(u, params) if self.norm == "in" else u
        return self.rest(F.linear(u, params["down.weight"], params.get("down.bias")), params, training)

    def first(self, params: Params, training: bool) -> Linear | None:
        return None if self.norm == "in" else (params["down.weight"], params.get("down.bias"))

    def rest(self, z: Tensor, params: Params, training: bool) -> Delta:
        z_BTR = F.dropout(ACTIVATIONS[self.activation](z), self.dropout, training)
        delta: Delta = Product(z_BTR, params["up.weight"], b_D=params.get("up.bias"))
        if self.norm == "out":
            delta = self._normed(value(delta), params)
        if training and self.drop_path:
            keep = 1 - self.drop_path
            rows = torch.full((len(z), *[1] * (z.dim() - 1)), keep, dtype=z_BTR.dtype, device=z.device)
            delta = scaled(scaled(delta, 1 / keep), rows.bernoulli())
        return delta

    def _normed(self, z: Tensor, params: Params) -> Tensor:
        return F.layer_norm(z, z.shape[-1:], params["norm.weight"], params["norm.bias"], self.eps)

    @property
    def starts_at_zero(self) -> bool:
        return starts_output_at_zero(self.init)
