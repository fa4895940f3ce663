"""`rows`: a vector of its own for each of a few tokens, added wherever the token embedding's row is used.

Shapes: B batch, T positions, N chosen tokens, D width of the embedding, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor
from torch.nn import functional as F

from unipet.calculus.functions.base import Function, Heads, Params, Slots, TensorSpec, Widths
from unipet.calculus.options import option
from unipet.errors import UnipetError, not_allowed


@dataclass(frozen=True)
class Rows(Function):
    """Δ = rows[i] where a token is ids[i], else 0; one slot `rows` (n, d) for all sites, which starts at zero.

    At `embed.tokens` it adds to the embedded token (times what the base model multiplies its rows by); at `head.tokens`,
    the output layer tied to that embedding, x · rows[i] to the score of ids[i]. Together they are a trained row of
    the tied weight; at `embed.tokens` alone the scores keep the base model's rows.
    """

    reads: ClassVar[str] = "ids"
    nonlinear: ClassVar[str | None] = "it changes a few rows of an embedding, which is no linear map"

    ids: list[int] = option([], low=0)
    init: str = option("zeros", choices=("zeros", "bert"))

    def slots(self, widths: Widths) -> Slots:
        return {}

    def shared(self, widths: Sequence[Widths]) -> Slots:
        """`widths` are (V, D) at the token embedding, which comes first, and (D, V) at the output layer."""
        if not self.ids or len(set(self.ids)) != len(self.ids):
            raise not_allowed("function.ids", self.ids, "token ids, each once")
        if not widths:
            return {}
        if max(self.ids) >= widths[0].u:
            raise UnipetError(
                f"function.ids: {max(self.ids)} is no token, the vocabulary has 0-{widths[0].u - 1}. "
                "For new tokens call model.resize_token_embeddings first."
            )
        return {"rows": {"": TensorSpec((len(self.ids), widths[0].h), "table")}}

    def generate(self, params: Params, shared: Params, widths: Widths) -> Params:
        return {"rows": shared["rows"] * widths.scale, "width": shared["rows"].new_empty(widths.h, 0)}

    def delta(self, u: Tensor | Heads | None, params: Params, training: bool) -> Tensor:
        """From token ids (B, T): (B, T, D). From what the output layer reads, (B, T, D): (B, T, V)."""
        assert isinstance(u, Tensor)
        rows_ND, ids_N = params["rows"], torch.tensor(self.ids, device=u.device)
        if not u.is_floating_point():
            return (u.unsqueeze(-1) == ids_N).to(rows_ND.dtype) @ rows_ND
        delta_BTV = u.new_zeros(*u.shape[:-1], len(params["width"]))
        return delta_BTV.index_add(-1, ids_N, F.linear(u, rows_ND.to(u.dtype)))

    @property
    def starts_at_zero(self) -> bool:
        return self.init == "zeros"
