"""What a gate may know of the tokens that it reads.

Shapes: B batch, T positions.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor


@dataclass(frozen=True, eq=False)
class Tokens:
    """Each token's share in a mean over the real tokens of its row (None: all are real), whether they may see later ones, and
    whether earlier ones are in a KV cache, out of sight."""

    share_BT1: Tensor | None = None
    causal: bool = False
    cached: bool = False

    @classmethod
    def of(
        cls, real_BT: Tensor, causal: bool = False, cached: bool = False, dtype: torch.dtype = torch.float32
    ) -> Self:
        """Of rows whose real tokens are known. A row without any has shares of 0."""
        real_BT1 = real_BT.unsqueeze(-1).to(dtype)
        return cls(real_BT1 / real_BT1.sum(1, keepdim=True).clamp(min=1), causal, cached)

    def mean(self, each_BT1: Tensor) -> Tensor:
        """The mean over each row's real tokens, (B, 1, 1), in the dtype of what it is of."""
        if self.share_BT1 is None:
            return each_BT1.mean(1, keepdim=True)
        return (each_BT1 * self.share_BT1).sum(1, keepdim=True).to(each_BT1.dtype)
