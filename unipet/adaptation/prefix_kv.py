"""Keys and values that a `gated` prefix puts in front of an attention call's own, and the one softmax over all of them.

Shapes: B batch, T queries, S keys, L prefix length, H query heads, G key/value heads, E head width.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from unipet.calculus.functions.base import Heads
from unipet.calculus.insertion import Insertion
from unipet.calculus.own_rows import OwnRows
from unipet.calculus.scaling import Constant


@dataclass(frozen=True, eq=False)
class Columns:
    """One insertion's keys and values for every example.

    `chosen_BT` are the queries that see them (None: all). `gate_BT1` is a scaling that differs by query, which acts on
    the values' share of h, and with `gate_keys` on the logits.
    """

    k_BGLE: Tensor
    v_BGLE: Tensor
    chosen_BT: Tensor | None = None
    gate_BT1: Tensor | None = None
    gate_keys: bool = False

    @property
    def length(self) -> int:
        return self.k_BGLE.shape[2]

    def visible(self, rows: int, queries: int) -> Tensor:
        """(B, T, L): which queries see the columns."""
        if self.chosen_BT is None:
            return torch.ones(1, 1, 1, dtype=torch.bool, device=self.k_BGLE.device).expand(rows, queries, self.length)
        return self.chosen_BT.unsqueeze(-1).expand(rows, queries, self.length)

    def among(self, own: OwnRows, q_BHTE: Tensor) -> Columns:
        """The same for a whole batch, of which these are the columns of the own rows: no other row sees them."""
        count, _, queries, _ = q_BHTE.shape

        def spread(part: Tensor) -> Tensor:
            return own.put(part.new_zeros(count, *part.shape[1:]), part)

        rows = len(own.index(q_BHTE))
        seen_BT = q_BHTE.new_ones(rows, queries, dtype=torch.bool) if self.chosen_BT is None else self.chosen_BT
        gate_BT1 = None if self.gate_BT1 is None else spread(self.gate_BT1)
        return Columns(spread(self.k_BGLE), spread(self.v_BGLE), spread(seen_BT), gate_BT1, self.gate_keys)


def columns_of(insertion: Insertion, heads: Heads, x: Tensor | None) -> Columns:
    """The columns of a `gated` insertion in this call; x is what its scaling reads."""
    parts = insertion.parts
    function: Any = parts.function  # shares_softmax promises columns() and scale_keys
    rows = heads.q_BHTE.shape[0]
    views = insertion.views if insertion.training else 1

    if views == 1:
        k_GLE, v_GLE = kept_columns(insertion, heads.kv_heads)
        k_BGLE, v_BGLE = k_GLE.expand(rows, *k_GLE.shape), v_GLE.expand(rows, *v_GLE.shape)
    else:
        every = [_made(insertion, heads.kv_heads, view) for view in range(views)]
        k_BGLE, v_BGLE = (torch.cat([part[i].expand(rows // views, *part[i].shape) for part in every]) for i in (0, 1))
    chosen_BT = None if parts.tokens is None else insertion.chosen(heads.q_BHTE.transpose(1, 2))
    if type(parts.scaling) is Constant and not insertion.bank.differ:  # as most: without a look-up
        factor: Tensor | float = parts.scaling.value
    else:
        factor = insertion.factor(x, x)
    if isinstance(factor, Tensor):
        if insertion.parts.scaling.per_token(insertion.site.causal):
            return Columns(k_BGLE, v_BGLE, chosen_BT, factor, function.scale_keys)
        shape = (1, heads.kv_heads, 1, -1) if factor.dim() == 1 and factor.numel() > 1 else (-1, 1, 1, 1)
        factor = factor.view(shape)
    elif factor == 1:
        return Columns(k_BGLE, v_BGLE, chosen_BT)
    return Columns(k_BGLE * factor if function.scale_keys else k_BGLE, v_BGLE * factor, chosen_BT)


def kept_columns(insertion: Insertion, kv_heads: int) -> tuple[Tensor, Tensor]:
    """Keys and values of every example, (G, L, E); while a KV cache is filled, the same two tensors."""
    return insertion.kept("columns", partial(_made, insertion, kv_heads, 0))


def _made(insertion: Insertion, kv_heads: int, view: int) -> tuple[Tensor, Tensor]:
    function: Any = insertion.parts.function
    with insertion.draws:
        columns: tuple[Tensor, Tensor] = function.columns(insertion.params(view), kv_heads, insertion.training)
    return columns


def in_front(columns: list[Columns], q_BHTE: Tensor, k_BGSE: Tensor, v_BGSE: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Queries, keys and values of one softmax over all columns and the sequence; the last columns stand in front.

    Columns whose scaling differs by query get E dimensions of their own: their logits are (s·q)·k there, and their
    share of the values comes out apart, to be scaled by s afterwards. All else lives in the first E dimensions.
    """
    blocks = 1 + len([one for one in columns if one.gate_BT1 is not None])
    if blocks == 1:
        dtypes, ahead = (k_BGSE.dtype, v_BGSE.dtype), columns[::-1]
        keys = [one.k_BGLE if one.k_BGLE.dtype == dtypes[0] else one.k_BGLE.to(dtypes[0]) for one in ahead]
        values = [one.v_BGLE if one.v_BGLE.dtype == dtypes[1] else one.v_BGLE.to(dtypes[1]) for one in ahead]
        return q_BHTE, torch.cat([*keys, k_BGSE], 2), torch.cat([*values, v_BGSE], 2)
    queries, keys, values = [q_BHTE], [_in_block(k_BGSE, 0, blocks)], [_in_block(v_BGSE, 0, blocks)]
    for one in columns:
        block = 0
        if one.gate_BT1 is not None:
            block = len(queries)
            queries.append(q_BHTE * one.gate_BT1.unsqueeze(1).to(q_BHTE.dtype) if one.gate_keys else q_BHTE)
        keys.insert(0, _in_block(one.k_BGLE.to(k_BGSE.dtype), block, blocks))
        values.insert(0, _in_block(one.v_BGLE.to(v_BGSE.dtype), block, blocks))
    return torch.cat(queries, -1), torch.cat(keys, 2), torch.cat(values, 2)


def _in_block(tensor: Tensor, block: int, blocks: int) -> Tensor:
    """`tensor` in one of `blocks` equal blocks of the last dimension, zeros in the others."""
    width = tensor.shape[-1]
    return F.pad(tensor, (block * width, (blocks - 1 - block) * width))
