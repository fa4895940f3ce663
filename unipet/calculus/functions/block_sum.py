"""`block_sum`: the input's blocks are added up and mapped by one small matrix (MiSS: Kang & Yin 2025).

Shapes: R width of a block (the size), N = d_in/R and M = d_out/R blocks.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor
from torch.nn import functional as F

from unipet.calculus.functions.base import BASE, Heads, LinearMap, Params, Slots, TensorSpec, Widths
from unipet.calculus.functions.blocks import cut, divisors, must_divide
from unipet.calculus.options import option


@dataclass(frozen=True)
class BlockSum(LinearMap):
    """Δ = up · Σ of the input's blocks of `size` channels (the last one padded with zeros); slot `up` (d_out, r).

    With `of_weight` each R × R block of the base weight is changed in proportion to itself, Δ_mn = W_mn B_m + B_m, with one
    B_m for each row of blocks: slot `blocks` (d_out/r, r, r) (the variant that peft calls bat; Bone, Kang 2024).
    """

    size: int = option(64, low=1)
    of_weight: bool = option(False)

    @property
    def needs_weight(self) -> bool:
        return self.of_weight

    def slots(self, widths: Widths) -> Slots:
        if not self.of_weight:
            return {"up": {"": TensorSpec((widths.h, self.size), "out", "zeros")}}
        must_divide("size", self.size, input=widths.u, output=widths.h)
        return {"blocks": {"": TensorSpec((widths.h // self.size, self.size, self.size), "out", "zeros")}}

    def sizes(self, widths: Sequence[Widths]) -> Sequence[int]:
        if self.of_weight:
            return divisors(width for one in widths for width in (one.u, one.h))
        return range(1, min(one.u for one in widths) + 1)  # a wider block would sum nothing but padding

    def generate(self, params: Params, shared: Params, widths: Widths) -> Params:
        # How often `up` repeats along the input: an empty tensor, for its shape.
        return {**params, "input": next(iter(params.values())).new_empty(widths.u, 0)}

    def delta(self, u: Tensor | Heads | None, params: Params, training: bool) -> Tensor:
        assert isinstance(u, Tensor)
        if self.of_weight:
            return F.linear(u, self.matrix(params))
        missing = -u.shape[-1] % self.size
        padded = F.pad(u, (0, missing)) if missing else u  # padding with nothing would copy all
        return F.linear(cut(padded, -1, self.size).sum(-2), params["up"])

    def matrix(self, params: Params) -> Tensor:
        if not self.of_weight:
            width = len(params["input"])
            return params["up"].repeat(1, -(-width // self.size))[:, :width]
        B_MRR = params["blocks"]
        W_MNRR = params[BASE].reshape(len(B_MRR), self.size, -1, self.size).transpose(1, 2)
        delta_MNRR = W_MNRR @ B_MRR.unsqueeze(1) + B_MRR.unsqueeze(1)
        return delta_MNRR.transpose(1, 2).flatten(2).flatten(0, 1)

    @property
    def starts_at_zero(self) -> bool:
        return True
