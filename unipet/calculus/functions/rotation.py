"""`rotation`: blocks of the input are rotated by the Cayley transform of a skew-symmetric matrix (OFT: Qiu et al. 2023).

Shapes: N blocks, B width of a block (the size), D = N·B.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from unipet.calculus.functions.base import Params, Slots, TensorSpec, Widths
from unipet.calculus.functions.blocks import cut, divisors, must_divide
from unipet.calculus.functions.orthogonal import Turn, cayley, neumann, skew
from unipet.calculus.options import option


@dataclass(frozen=True)
class Rotation(Turn):
    """f(x) = x R with R = blockdiag(R₁, ..., R_N); slot `upper` (N, B(B-1)/2), the strict upper triangles of Q = U - Uᵀ.

    `size` is the width B of a block. `cayley: exact` is R = (I - Q)(I + Q)⁻¹, orthogonal; `neumann` is its cheap
    truncated series with `terms` terms, I + 2Q + ... + 2Qⁿ⁻² + Qⁿ⁻¹, which turns the other way and is orthogonal near
    Q = 0 only (Qiu et al. 2025, OFTv2). Signs and default as in peft. With `share_blocks` one block serves all positions.
    """

    size: int = option(32, low=2)
    cayley: str = option("neumann", choices=("neumann", "exact"))
    terms: int = option(5, low=3, high=1000)
    share_blocks: bool = option(False)

    def turn_slots(self, widths: Widths) -> Slots:
        must_divide("size", self.size, input=widths.h)
        blocks = 1 if self.share_blocks else widths.h // self.size
        return {"upper": {"": TensorSpec((blocks, self.size * (self.size - 1) // 2), "table", "zeros")}}

    def sizes(self, widths: Sequence[Widths]) -> Sequence[int]:
        return divisors((one.h for one in widths), least=2)

    def generate(self, params: Params, shared: Params, widths: Widths) -> Params:
        Q_NBB = skew(params["upper"], self.size)
        turn_NBB = cayley(Q_NBB) if self.cayley == "exact" else neumann(Q_NBB, self.terms)
        return {**params, "turn": turn_NBB, "blocks": params["upper"].expand(widths.h // self.size, -1)}

    def width(self, params: Params) -> int:
        return len(params["blocks"]) * self.size

    def turned(self, u: Tensor, params: Params) -> Tensor:
        turn_NBB, u_NB = params["turn"], cut(u, -1, self.size)
        whole = _exact(u)
        if whole:  # R itself: where R = I, the product is u bit for bit
            turn_NBB = turn_NBB + torch.eye(self.size, dtype=turn_NBB.dtype, device=turn_NBB.device)
        shared = self.share_blocks
        moved_NB = u_NB @ turn_NBB[0] if shared else torch.einsum("...nb,nbc->...nc", u_NB, turn_NBB)
        return (moved_NB if whole else u_NB + moved_NB).flatten(-2)

    @property
    def starts_at_identity(self) -> bool:
        return True


def _exact(u: Tensor) -> bool:
    """Whether a product reads u as it is: neither autocast nor TensorFloat-32 rounds it before."""
    tf32 = u.is_cuda and u.dtype == torch.float32 and torch.backends.cuda.matmul.allow_tf32
    return not tf32 and not torch.is_autocast_enabled(u.device.type)
