"""One insertion inside one attention call: what it reads there, and the rows of the batch that it works on.

Shapes: B batch, T queries, H query heads, E head width, D width of all heads, U width of x.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from torch import Tensor
from torch.nn import functional as F

from unipet.adaptation.prefix_kv import Columns, columns_of
from unipet.calculus.functions.base import Heads
from unipet.calculus.insertion import Insertion
from unipet.calculus.own_rows import Cut, OwnBlock


def blocks_of(insertions: list[Insertion], query: Tensor) -> tuple[Cut, list[list[Insertion]]] | None:
    """How adaptations cut a batch, and the insertions of each block; None where rows do not stand in blocks."""
    if insertions[0].current.context.own is None:
        return None
    cut: Cut | None = None
    inside: dict[int, list[Insertion]] = {}
    for insertion in insertions:
        own = insertion.context.own
        if not isinstance(own, OwnBlock) or own.cut.total != len(query):
            return None
        cut = own.cut
        inside.setdefault(own.number, []).append(insertion)
    return None if cut is None else (cut, [inside.get(number, []) for number in range(len(cut.sizes))])


def narrowed(
    tensors: tuple[Tensor, Tensor, Tensor, Tensor | None], kwargs: dict[str, Any], cut: Cut, number: int
) -> tuple[tuple[Tensor, Tensor, Tensor, Tensor | None], dict[str, Any]]:
    """The arguments of an attention call over a batch, for one block of it. What is the same for all rows stays."""

    def part(value: Any) -> Any:
        by_row = isinstance(value, Tensor) and value.dim() > 1 and value.shape[0] == cut.total
        return cut.pieces(value)[number] if by_row else value

    query, key, value, mask = tensors
    return (part(query), part(key), part(value), part(mask)), {name: part(each) for name, each in kwargs.items()}


def prepended(insertion: Insertion, heads: Heads, x: Tensor | None, apart: bool = False) -> Columns:
    """The columns that a `gated` insertion puts in front of this call's keys and values, for its own rows; `apart`: the call
    has no other rows."""
    own = None if apart else insertion.current.context.own
    if own is None:
        return columns_of(insertion, heads, x)
    picked = replace(heads, q_BHTE=own.pick(heads.q_BHTE))
    return columns_of(insertion, picked, None if x is None else own.pick(x)).among(own, heads.q_BHTE)


def changed(insertion: Insertion, h_BTD: Tensor, x: Tensor | None, heads: Heads, apart: bool = False) -> Tensor:
    """h' at the concatenated heads; `apart` as above."""
    own = None if apart else insertion.context.own
    if own is None:
        return _apply(insertion, h_BTD, x, heads)
    picked = replace(heads, q_BHTE=own.pick(heads.q_BHTE))
    return own.put(h_BTD, _apply(insertion, own.pick(h_BTD), None if x is None else own.pick(x), picked))


def _apply(insertion: Insertion, h_BTD: Tensor, x: Tensor | None, heads: Heads) -> Tensor:
    return insertion(h_BTD, x, _with_x(heads, insertion, x))


def _with_x(heads: Heads, insertion: Insertion, x: Tensor | None) -> Heads:
    """The heads with x and its query projection, where the function reads them."""
    query = insertion.query
    if query is None or x is None:
        return heads
    width = heads.q_BHTE.shape[-1]

    def project(x_BTU: Tensor) -> Tensor:
        weight, bias = query.weight().to(x_BTU.dtype), query.bias()
        q_BTD = F.linear(x_BTU, weight, None if bias is None else bias.to(x_BTU.dtype))
        return q_BTD.unflatten(-1, (-1, width)).transpose(1, 2)

    return replace(heads, x_BTU=insertion.cast(x), project=project)
