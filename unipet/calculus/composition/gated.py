"""The composition that shares the attention's own softmax."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from unipet.calculus.composition.base import Composition
from unipet.calculus.composition.weights import Weights
from unipet.calculus.functions import FUNCTIONS
from unipet.calculus.functions.base import Function, Params
from unipet.calculus.functions.product import Delta
from unipet.calculus.options import option

#: The options with which a function's Δ is the softmax's own.
_NEEDED = {"activation": "softmax", "norm": "none", "scaled": True}


@dataclass(frozen=True)
class Gated(Composition):
    """(1-λ)h + λΔ, λ the softmax mass that the prefix takes (He et al. 2022, eq. 5-10); computed inside attention.

    Real tokens keep their positions. `shift_positions` moves them behind the prefix, as peft's past_key_values do (T5's
    relative position bias then counts it); `shift_bias` moves keys but not queries there, as the adapters library does.
    """

    foldable: ClassVar[bool] = False
    keeps_h: ClassVar[bool] = False
    shares_softmax: ClassVar[bool] = True

    shift_positions: bool = option(False)
    shift_bias: bool = option(False)

    def refuses_function(self, function: Function) -> str | None:
        if function.shares_softmax:
            return None
        able = ", ".join(name for name, cls in FUNCTIONS.items() if cls.shares_softmax)
        return (
            "it shares the attention's softmax, which that function takes no part in. "
            f"Use function {able}, or another composition (add, multiply, replace)."
        )

    def refuses_options(self, function: Function) -> str | None:
        for option_name, needed in _NEEDED.items():
            if getattr(function, option_name, needed) != needed:
                return f"that needs function.{option_name}: {str(needed).lower()}."
        return None

    def join(self, h_BTD: Tensor, delta: Delta, own: Params, at: Weights | None) -> Tensor:
        raise AssertionError("`gated` is computed inside attention (attention.py)")
