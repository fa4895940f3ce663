"""`projected_prefix`: attention over `size` learned tokens that the base model's own key and value projections read
(LLaMA-Adapter: Zhang et al. 2024, eq. 3-6).

Shapes: L number of tokens (the size), D width of the block's input, K width of all keys.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor
from torch.nn import functional as F

from unipet.calculus.functions.base import Function, Heads, Params, Slots, TensorSpec, Widths
from unipet.calculus.functions.prefix import Prefix
from unipet.calculus.options import option


@dataclass(frozen=True)
class ProjectedPrefix(Function):
    """Δ = softmax(q (P W_kᵀ)ᵀ/√E) (P W_vᵀ) per head; slot `tokens` P (l, d), in the width of the block's input.

    W_k and W_v are the base model's frozen projections (their biases included); rotary positions and norms of keys are
    left out, as in the paper's code. With composition `add` and a learned scaling that starts at 0 it is the paper's
    zero-initialised attention; `gated` puts the tokens into the attention's own softmax.
    """

    reads: ClassVar[str] = "heads"
    nonlinear: ClassVar[str | None] = Prefix.nonlinear
    shares_softmax: ClassVar[bool] = True
    needs_projections: ClassVar[bool] = True

    size: int = option(10, low=1)
    init: str = option("bert", choices=("bert", "torch"))
    dropout: float = option(0.0, low=0.0, high=0.999)
    scale_keys: bool = option(False)

    def slots(self, widths: Widths) -> Slots:
        return {"tokens": {"": TensorSpec((self.size, widths.u), "table")}}

    def generate(self, params: Params, shared: Params, widths: Widths) -> Params:
        """Adds the keys and values (L, K) that the projections in `params` make of the tokens."""
        tokens_LD = params["tokens"]
        made = {
            slot: F.linear(tokens_LD, params[f"base.{slot}.weight"], params.get(f"base.{slot}.bias"))
            for slot in ("keys", "values")
        }
        return {"tokens": tokens_LD, **made}

    @property
    def _prefix(self) -> Prefix:
        return Prefix(size=self.size, dropout=self.dropout)

    def columns(self, params: Params, kv_heads: int, training: bool) -> tuple[Tensor, Tensor]:
        """Keys and values per head, as a prefix has them."""
        return self._prefix.columns(params, kv_heads, training)

    def delta(self, u: Tensor | Heads | None, params: Params, training: bool) -> Tensor:
        """Δ over the concatenated heads, (B, T, H·E)."""
        return self._prefix.delta(u, params, training)

    @property
    def starts_at_zero(self) -> bool:
        return False
