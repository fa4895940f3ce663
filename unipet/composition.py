"""How it joins: the rules that put s·Δ and h together, each beside its fold into a linear map.

Shapes: B batch, T positions, D width of h, I width of the linear map's input.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from unipet.functions.base import Affine


@dataclass(frozen=True)
class Rule:
    """One composition: `join(h, sΔ)` on activations, `fold(W, b, affine)` on the map that produced h (None: cannot).

    `constant_only` says that the fold needs a Δ that is the same for every input. `keeps_h` says that Δ = 0 leaves h
    as it was. `needs_mass` marks the rule that shares h's own softmax.
    """

    join: Callable[[Tensor, Tensor], Tensor]
    fold: Callable[[Tensor, Tensor, Affine], tuple[Tensor, Tensor]] | None
    constant_only: bool = False
    keeps_h: bool = True
    needs_mass: bool = False


def _add(h_BTD: Tensor, delta_BTD: Tensor) -> Tensor:
    return h_BTD + delta_BTD


def _fold_add(W_DI: Tensor, b_D: Tensor, affine: Affine) -> tuple[Tensor, Tensor]:
    return (
        W_DI if affine.A_DU is None else W_DI + affine.A_DU,
        b_D if affine.c_D is None else b_D + affine.c_D,
    )


def _multiply(h_BTD: Tensor, delta_BTD: Tensor) -> Tensor:
    return h_BTD * (1 + delta_BTD)


def _fold_multiply(W_DI: Tensor, b_D: Tensor, affine: Affine) -> tuple[Tensor, Tensor]:
    assert affine.A_DU is None and affine.c_D is not None
    return W_DI * (1 + affine.c_D).unsqueeze(-1), b_D * (1 + affine.c_D)


def _replace(h_BTD: Tensor, delta_BTD: Tensor) -> Tensor:
    return delta_BTD.expand_as(h_BTD)


def _fold_replace(W_DI: Tensor, b_D: Tensor, affine: Affine) -> tuple[Tensor, Tensor]:
    return (
        torch.zeros_like(W_DI) if affine.A_DU is None else affine.A_DU,
        torch.zeros_like(b_D) if affine.c_D is None else affine.c_D,
    )


def gated(h_BHTE: Tensor, delta_BHTE: Tensor, log_mass_h_BHT: Tensor, log_mass_delta_BHT: Tensor) -> Tensor:
    """(1-λ)h + λΔ with λ the share of Δ's softmax mass (He et al. 2022, eq. 7-10).

    Reference form. Inside attention the same number comes from prepending keys and values (`attention.py`), which needs
    one softmax instead of two; a test holds the two together.
    """
    lam_BHT1 = torch.sigmoid(log_mass_delta_BHT - log_mass_h_BHT).unsqueeze(-1)
    return (1 - lam_BHT1) * h_BHTE + lam_BHT1 * delta_BHTE


def _never(h: Tensor, delta: Tensor) -> Tensor:
    raise AssertionError("`gated` is computed inside attention (attention.py)")


COMPOSITIONS: dict[str, Rule] = {
    "add": Rule(_add, _fold_add),
    "multiply": Rule(_multiply, _fold_multiply, constant_only=True),
    "replace": Rule(_replace, _fold_replace, keeps_h=False),
    "gated": Rule(_never, None, keeps_h=False, needs_mass=True),
}
