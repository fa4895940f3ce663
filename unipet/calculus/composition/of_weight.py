"""The compositions that change the weight itself: f's matrix scales its entries, or is added before its rows are rescaled.

Shapes: B batch, T positions, D width of h, I width of the linear map's input.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from unipet.calculus.composition.base import Composition
from unipet.calculus.composition.weights import Weights
from unipet.calculus.functions.base import Affine, Function, LinearMap, Params, Slots, TensorSpec, Widths
from unipet.calculus.functions.product import Delta, Product, added, column, into, scaled, times
from unipet.calculus.options import option


@dataclass(frozen=True)
class OfWeight(Composition):
    """W' made of W and f's matrix: f must be one, in parallel form, and the bias is no part of it."""

    of_weight: ClassVar[bool] = True

    def refuses_function(self, function: Function) -> str | None:
        if isinstance(function, LinearMap):
            return None
        return "it changes the weight itself, which needs a function that is a matrix (low_rank, ...)."

    def refuses_form(self, form: str) -> str | None:
        return None if form == "parallel" else "it changes the weight itself, a map of x. Use form: parallel."

    def refuses_options(self, function: Function) -> str | None:
        return "that is about the weight alone. Use function.bias: false." if getattr(function, "bias", False) else None


@dataclass(frozen=True)
class Hadamard(OfWeight):
    """W' = W ⊙ (1 + sA): f's matrix A scales every entry of the weight (HiRA: Huang et al. 2025, eq. 3)."""

    changes_weight: ClassVar[bool] = True

    def join(self, h_BTD: Tensor, delta: Delta, own: Params, at: Weights | None) -> Tensor:
        assert at is not None and at.x is not None
        return added(h_BTD, Product(at.x, at.weight_DI * at.scaled_DI))

    def weight(self, W_DI: Tensor, function: LinearMap, params: Params, factor: Tensor | float) -> Tensor:
        return torch.addcmul(W_DI, W_DI, times(column(factor), function.matrix(params)))

    def fold(self, W_DI: Tensor, b_D: Tensor, affine: Affine, own: Params, at: Weights | None) -> tuple[Tensor, Tensor]:
        assert at is not None
        return W_DI + at.weight_DI * at.scaled_DI, b_D


@dataclass(frozen=True)
class Normalise(OfWeight):
    """W' = m ⊙ (W + sA) / ‖W + sA‖, rows normalised and rescaled by `magnitude` (d_out,) (DoRA: Liu et al. 2024, eq. 5).

    m starts at W's row norms, so Δ = 0 keeps h. `detach` treats the norm as a constant in the backward pass (§4.3).
    With `bias` the bias is rescaled, too, and with `scaled: false` the norm is that of W + A without s (both as in the
    adapters library, which departs from the paper there).
    """

    in_place: ClassVar[bool] = True

    detach: bool = option(True)
    bias: bool = option(False)
    scaled: bool = option(True)

    def slots(self, widths: Widths) -> Slots:
        return {"magnitude": {"": TensorSpec((widths.h,), "table", "ones")}}

    def start(self, own: Params, weight_DI: Tensor) -> None:
        own["magnitude"].copy_(weight_DI.norm(dim=1))

    def _gain(self, own: Params, at: Weights) -> Tensor:
        assert at.matrix_DI is not None
        norm_D: Tensor = (at.weight_DI + (at.scaled_DI if self.scaled else at.matrix_DI)).norm(dim=1)
        gain_D: Tensor = own["magnitude"] / (norm_D.detach() if self.detach else norm_D)
        return gain_D

    def _kept(self, at: Weights, like: Tensor) -> Tensor:
        return torch.zeros_like(like) if self.bias or at.bias_D is None else at.bias_D.to(like.dtype)

    def made(self, own: Params, at: Weights | None) -> Params:
        assert at is not None
        gain_D = self._gain(own, at)
        return {"gain": gain_D, "left": self._kept(at, gain_D), "more": gain_D - 1}

    def join(self, h_BTD: Tensor, delta: Delta, own: Params, at: Weights | None) -> Tensor:
        # h + (g-1)(h - b) + gΔ rather than b + g(h - b + Δ): at the start g = 1 and h comes out bit for bit.
        rescaled_BTD = torch.addcmul(h_BTD, h_BTD - own["left"], own["more"]).to(h_BTD.dtype)
        return added(rescaled_BTD, scaled(delta, own["gain"]))

    def join_into(self, h: Tensor, delta: Delta, own: Params) -> Tensor:
        apart = h - own["left"]
        # Of another precision, the sum is rounded once, from what is apart.
        h = (
            h.addcmul_(apart, own["more"])
            if apart.dtype == h.dtype
            else torch.addcmul(h, apart, own["more"]).to(h.dtype)
        )
        return into(h, scaled(delta, own["gain"]))

    def fold(self, W_DI: Tensor, b_D: Tensor, affine: Affine, own: Params, at: Weights | None) -> tuple[Tensor, Tensor]:
        assert at is not None
        gain_D = self._gain(own, at)
        kept_D = self._kept(at, gain_D)
        c_D = 0.0 if affine.c_D is None else affine.c_D
        return gain_D.unsqueeze(-1) * (W_DI + at.scaled_DI), kept_D + gain_D * (b_D - kept_D + c_D)
