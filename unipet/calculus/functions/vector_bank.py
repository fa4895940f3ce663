"""`vector_bank`: both halves of a low-rank map put together from one trained bank of vectors (VB-LoRA: Li et al. 2024).

Shapes: R size, N vectors in the bank, V their length, K how many are mixed, U in width, D out width.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from unipet.calculus.functions.base import Params, Slots, TensorSpec, Widths
from unipet.calculus.functions.made_factors import MadeFactors
from unipet.calculus.options import option
from unipet.errors import UnipetError

#: The length of the paper's vectors, taken where the option leaves it open.
_LONGEST = 256


@dataclass(frozen=True)
class VectorBank(MadeFactors):
    """up · down whose pieces of length v are Σ softmax(top-k logits) · bank (Li et al. 2024, eq. 5-6).

    Slots `down.logits` (r, d_in/v, n) and `up.logits` (d_out/v, r, n) per site; all sites share `bank` (n, v). `size` is
    the rank r, `vectors` n, `vector` v, `top` k. `vector: null` takes the greatest common divisor of 256 and the site's
    widths; a site with shorter pieces uses the first entries of the bank's vectors. Logits start N(0, 0.1), the bank
    U(-0.02, 0.02): Δ starts small, not at zero.
    """

    size: int = option(4, low=1)
    vectors: int = option(90, low=1)
    vector: int | None = option(None, low=1)
    top: int = option(2, low=1)
    dropout: float = option(0.0, low=0.0, high=0.999)

    def _length(self, widths: Widths) -> int:
        if self.vector is None:
            return math.gcd(_LONGEST, widths.u, widths.h)
        if widths.u % self.vector or widths.h % self.vector:
            raise UnipetError(
                f"function.vector: {self.vector} does not divide the widths {widths.u} -> {widths.h}; "
                f"allowed: a divisor of {math.gcd(widths.u, widths.h)}, or null."
            )
        return self.vector

    def slots(self, widths: Widths) -> Slots:
        if self.top > self.vectors:
            raise UnipetError(f"function.top: {self.top} of {self.vectors} vectors; allowed: at most {self.vectors}.")
        v = self._length(widths)
        return {
            "down": {"logits": TensorSpec((self.size, widths.u // v, self.vectors), "table", "normal_01")},
            "up": {"logits": TensorSpec((widths.h // v, self.size, self.vectors), "table", "normal_01")},
        }

    def shared(self, widths: Sequence[Widths]) -> Slots:
        longest = max((self._length(one) for one in widths), default=_LONGEST)
        return {"bank": {"": TensorSpec((self.vectors, longest), "table", "uniform_002")}}

    def generate(self, params: Params, shared: Params, widths: Widths) -> Params:
        bank_NV = shared["bank"][:, : self._length(widths)]
        down_RPV = self._mixed(params["down.logits"], bank_NV)
        up_PRV = self._mixed(params["up.logits"], bank_NV)
        return {**params, "down": down_RPV.flatten(1), "up": up_PRV.transpose(1, 2).flatten(0, 1)}

    def _mixed(self, logits: Tensor, bank_NV: Tensor) -> Tensor:
        """Each piece as a mixture of the vectors with the highest logits: (..., N) -> (..., V)."""
        top, which = logits.topk(self.top, dim=-1)
        return torch.einsum("...k,...kv->...v", top.softmax(-1), bank_NV[which])
