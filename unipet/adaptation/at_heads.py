"""One insertion inside one attention call: what it reads there, and the rows of the batch that it works on.

Shapes: B batch, T queries, H query heads, E head width, D width of all heads, U width of x.
"""

from __future__ import annotations

from dataclasses import replace

from torch import Tensor
from torch.nn import functional as F

from unipet.adaptation.prefix_kv import Columns, columns_of
from unipet.calculus.functions.base import Heads
from unipet.calculus.insertion import Insertion


def prepended(insertion: Insertion, heads: Heads, x: Tensor | None) -> Columns:
    """The columns that a `gated` insertion puts in front of this call's keys and values, for its own rows."""
    own = insertion.context.own
    if own is None:
        return columns_of(insertion, heads, x)
    picked = replace(heads, q_BHTE=own.pick(heads.q_BHTE))
    return columns_of(insertion, picked, None if x is None else own.pick(x)).among(own, heads.q_BHTE)


def changed(insertion: Insertion, h_BTD: Tensor, x: Tensor | None, heads: Heads) -> Tensor:
    """h' at the concatenated heads."""
    own = insertion.context.own
    if own is None:
        return _apply(insertion, h_BTD, x, heads)
    picked = replace(heads, q_BHTE=own.pick(heads.q_BHTE))
    return own.put(h_BTD, _apply(insertion, own.pick(h_BTD), None if x is None else own.pick(x), picked))


def _apply(insertion: Insertion, h_BTD: Tensor, x: Tensor | None, heads: Heads) -> Tensor:
    changed_BTD: Tensor = insertion(h_BTD, x, _with_x(heads, insertion, x))
    return changed_BTD


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
