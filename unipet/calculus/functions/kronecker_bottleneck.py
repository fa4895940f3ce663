"""`kronecker_bottleneck`: a bottleneck whose matrices are sums of Kronecker products (Karimi Mahabadi et al. 2021).

Shapes: N terms, K rank of a term's factor, U in width, D out width, R size.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from unipet.calculus.functions.base import UNBOUNDED, Params, Slots, TensorSpec, Widths
from unipet.calculus.functions.bottleneck import Bottleneck
from unipet.calculus.options import option
from unipet.errors import UnipetError


@dataclass(frozen=True)
class KroneckerBottleneck(Bottleneck):
    """`bottleneck` with down and up = (Σᵢ ruleᵢ ⊗ (leftᵢ rightᵢ))ᵀ, the rule shared (Compacter, eq. 5-6).

    Slots `down` and `up`, each `left` (n, in/n, k), `right` (n, k, out/n) and `bias`; all sites share `rule` (n, n, n).
    `terms` is n and must divide the widths and the size, `rank` is k. Factors start Glorot-uniform and the rule
    N(0, 0.01), as the released code does unless told otherwise. `init` concerns nothing but the biases' zeros.
    """

    size: int = option(24, low=1)
    activation: str = option("gelu", choices=("relu", "gelu", "gelu_tanh", "silu", "tanh", "identity"))
    terms: int = option(4, low=1)
    rank: int = option(1, low=1)

    def slots(self, widths: Widths) -> Slots:
        return {
            **self._map("down", widths.u, self.size),
            **self._map("up", self.size, widths.h),
            **self._norm_slot(widths),
        }

    def sizes(self, widths: Sequence[Widths]) -> Sequence[int]:
        return range(self.terms, UNBOUNDED, self.terms)

    def _map(self, slot: str, in_width: int, out_width: int) -> Slots:
        n = self.terms
        if in_width % n or out_width % n:
            raise UnipetError(
                f"function.terms: {n} does not divide both widths of {slot}, {in_width} and {out_width}. "
                f"Choose terms that divide the size and the base model's width."
            )
        tensors = {
            "left": TensorSpec((n, in_width // n, self.rank), "in", "glorot"),
            "right": TensorSpec((n, self.rank, out_width // n), "in", "glorot"),
        }
        if self.bias:
            tensors["bias"] = TensorSpec((out_width,), "bias")
        return {slot: tensors}

    def shared(self, widths: Sequence[Widths]) -> Slots:
        return {"rule": {"": TensorSpec((self.terms, self.terms, self.terms), "table", "normal_001")}}

    def generate(self, params: Params, shared: Params, widths: Widths) -> Params:
        made = {
            f"{slot}.weight": _sum_of_products(shared["rule"], params[f"{slot}.left"] @ params[f"{slot}.right"]).T
            for slot in ("down", "up")
        }
        return {**params, **made}

    @property
    def starts_at_zero(self) -> bool:
        return False


def _sum_of_products(rule_NAB: Tensor, factor_NPQ: Tensor) -> Tensor:
    """Σₙ ruleₙ ⊗ factorₙ, (A·P, B·Q)."""
    return torch.einsum("nab,npq->apbq", rule_NAB, factor_NPQ).flatten(2).flatten(0, 1)
