"""The composition that makes the sequence longer: Δ is tokens of its own.

Shapes: B batch, T positions, D width of h.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from unipet.calculus.composition.base import TOKENS_NEED, Composition
from unipet.calculus.composition.weights import Weights
from unipet.calculus.functions import FUNCTIONS
from unipet.calculus.functions.base import Function, Params
from unipet.calculus.functions.product import Delta, value
from unipet.calculus.options import option


@dataclass(frozen=True)
class Concat(Composition):
    """Δ as tokens of its own in the sequence: in front of it, or `after: first` behind its first token.

    `auto` is `first` where heads read the first token: in a stack that is not causal and that no decoder reads.
    `keep_outputs` leaves the outputs at these tokens in what the base model returns (peft); else they are taken out.
    """

    foldable: ClassVar[bool] = False
    keeps_h: ClassVar[bool] = False
    lengthens: ClassVar[bool] = True

    after: str = option("auto", choices=("auto", "start", "first"))
    keep_outputs: bool = option(False)

    def refuses_function(self, function: Function) -> str | None:
        if function.makes_tokens:
            return None
        makers = ", ".join(name for name, cls in FUNCTIONS.items() if cls.makes_tokens)
        return f"{TOKENS_NEED} Use function {makers}."

    def refuses_sites(self, sites: list[str]) -> str | None:
        return (
            None if sites == ["embed"] else "tokens are put into the embedded input. Use site: embed and nothing else."
        )

    def refuses_side(self, side: str) -> str | None:
        return None if side == "output" else "tokens are put into the embedded input. Use side: output."

    def refuses_tokens(self, tokens: str) -> str | None:
        return (
            None
            if tokens == "all"
            else ("tokens are put into the embedded input. Use site: embed and nothing else, which is tokens: all.")
        )

    def refuses_scaling(self, dynamic: str | None) -> str | None:
        return dynamic and "a gate has nothing to read where tokens are added. Use a constant, or learned."

    def join(self, h_BTD: Tensor, delta: Delta, own: Params, at: Weights | None) -> Tensor:
        return torch.cat([value(delta).to(h_BTD.dtype).expand(len(h_BTD), -1, -1), h_BTD], dim=1)
