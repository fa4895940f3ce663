"""The compositions that work on each element of h: s·Δ is added to it, is a factor of it, or stands in its place.

Shapes: B batch, T positions, D width of h, I width of the linear map's input.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from unipet.calculus.composition.base import Composition
from unipet.calculus.composition.weights import Weights
from unipet.calculus.functions.base import Affine, LinearMap, Params
from unipet.calculus.functions.product import Delta, added, column, into, times, value_in
from unipet.calculus.options import option


@dataclass(frozen=True)
class Add(Composition):
    """h + sΔ."""

    changes_weight: ClassVar[bool] = True
    in_place: ClassVar[bool] = True

    def join(self, h_BTD: Tensor, delta: Delta, own: Params, at: Weights | None) -> Tensor:
        return added(h_BTD, delta)

    def join_into(self, h: Tensor, delta: Delta, own: Params) -> Tensor:
        return into(h, delta)

    def weight(self, W_DI: Tensor, function: LinearMap, params: Params, factor: Tensor | float) -> Tensor:
        scale = factor if type(factor) in (float, int) else column(factor)
        if (entries := function.entries(params)) is not None and scale is factor:
            values_K, places_K = entries  # these alone: no matrix of zeros is made, scaled and added
            return W_DI.flatten().index_add(0, places_K, times(factor, values_K)).view_as(W_DI)
        A_DI = function.matrix(params)
        if type(scale) in (float, int) and scale == 1:
            return W_DI + A_DI
        sum_DI = scale * A_DI
        sum_DI += W_DI  # in place: nobody else has sA
        return sum_DI

    def fold(self, W_DI: Tensor, b_D: Tensor, affine: Affine, own: Params, at: Weights | None) -> tuple[Tensor, Tensor]:
        return (
            W_DI if affine.A_DU is None else W_DI + affine.A_DU,
            b_D if affine.c_D is None else b_D + affine.c_D,
        )


@dataclass(frozen=True)
class Multiply(Composition):
    """h ⊙ (1 + sΔ); with `bias: false` the linear map's bias is left out of it."""

    constant_only: ClassVar[bool] = True
    shifts: ClassVar[bool] = False
    makes_of_bias: ClassVar[bool] = True
    bias: bool = option(True)

    @property
    def needs_weight(self) -> bool:
        return not self.bias

    def made(self, own: Params, at: Weights | None) -> Params:
        return own if at is None or at.bias_D is None else {"bias": at.bias_D}

    def join(self, h_BTD: Tensor, delta: Delta, own: Params, at: Weights | None) -> Tensor:
        delta_BTD = value_in(h_BTD.dtype, delta)
        if own:
            # Written so that Δ = 0 gives h bit for bit, which b + (h - b)(1 + Δ) does not.
            return h_BTD + ((h_BTD - own["bias"]) * delta_BTD).to(h_BTD.dtype)
        return h_BTD * (1 + delta_BTD)

    def fold(self, W_DI: Tensor, b_D: Tensor, affine: Affine, own: Params, at: Weights | None) -> tuple[Tensor, Tensor]:
        assert affine.A_DU is None and affine.c_D is not None
        kept_D = at.bias_D if at is not None and at.bias_D is not None else 0.0
        return W_DI * (1 + affine.c_D).unsqueeze(-1), kept_D + (b_D - kept_D) * (1 + affine.c_D)


@dataclass(frozen=True)
class Replace(Composition):
    """sΔ in the place of h."""

    keeps_h: ClassVar[bool] = False

    def join(self, h_BTD: Tensor, delta: Delta, own: Params, at: Weights | None) -> Tensor:
        return value_in(h_BTD.dtype, delta).expand_as(h_BTD)

    def fold(self, W_DI: Tensor, b_D: Tensor, affine: Affine, own: Params, at: Weights | None) -> tuple[Tensor, Tensor]:
        A_DU = torch.zeros_like(W_DI) if affine.A_DU is None else affine.A_DU
        return A_DU, torch.zeros_like(b_D) if affine.c_D is None else affine.c_D
