"""Room for tokens of an insertion's own in sequences and masks: where they go in each row, and rows that do not see them.

Shapes: B batch, T the user's tokens of this pass, S those of the KV cache included, L added tokens.
"""

from __future__ import annotations

import torch
from torch import Tensor

from unipet.calculus.forward_context import CurrentPass
from unipet.calculus.insertion import Insertion
from unipet.calculus.own_rows import OwnRows


def places(mask_BT: Tensor | None, after: int, rows: int, device: torch.device) -> Tensor:
    """Where the tokens go in each row, (B,): at its first real token, or `after` that many of them."""
    if mask_BT is None:
        return torch.full((rows,), after, device=device)
    return mask_BT.bool().int().argmax(1) + after


def among(user: Tensor, own: Tensor, place_B: Tensor) -> Tensor:
    """`own` (B, L, ...) put into `user` (B, T, ...), from column `place_B` on: (B, T + L, ...)."""
    return moved(torch.cat([own.to(user.dtype), user], dim=1), own.shape[1], place_B)


def moved(longer: Tensor, size: int, place_B: Tensor) -> Tensor:
    """`longer` (B, L + T, ...) with its first `size` columns from column `place_B` on."""
    column = torch.arange(longer.shape[1], device=longer.device)
    own_here = column - place_B.unsqueeze(1)
    source = torch.where(own_here < 0, column + size, torch.where(own_here < size, own_here, column))
    return _gathered(longer, source)


def without(longer: Tensor, size: int, place_B: Tensor) -> Tensor:
    """The inverse of `among`: `longer` without the `size` columns from `place_B` on."""
    column = torch.arange(longer.shape[1] - size, device=longer.device)
    return _gathered(longer, torch.where(column < place_B.unsqueeze(1), column, column + size))


def _gathered(tensor: Tensor, column: Tensor) -> Tensor:
    # Not by `gather`, which keeps the whole tensor for the backward pass to tell its size.
    rows, length = tensor.shape[:2]
    place = column + length * torch.arange(rows, device=column.device).unsqueeze(1)
    return tensor.flatten(0, 1).index_select(0, place.flatten()).view(rows, -1, *tensor.shape[2:])


def visible(mask_BS: Tensor, size: int, own_B: Tensor | None) -> Tensor:
    """The mask of `size` added tokens, (B, L): seen by the rows that have them."""
    ones_BL = mask_BS.new_ones(len(mask_BS), size)
    return ones_BL if own_B is None else ones_BL * own_B.unsqueeze(1).to(mask_BS.dtype)


def note(insertion: Insertion, stack: str, mask_BS: Tensor, fresh: bool, size: int, place_B: Tensor) -> None:
    """Tell every adaptation that shares the batch of tokens that were added to a stack, which are not real. `fresh` as for
    `ForwardContext.note_added`, of the adaptation that adds them."""

    def grow(known_BS: Tensor, own: OwnRows | None) -> Tensor:
        return among(known_BS, known_BS.new_zeros(len(known_BS), size), place_B if own is None else own.pick(place_B))

    for current in noting(insertion, stack):
        current.context.note_added(stack, mask_BS, fresh and current is insertion.current, grow)


def noting(insertion: Insertion, stack: str) -> list[CurrentPass]:
    """The adaptations that share the batch and need to know a stack's real tokens."""
    return [one for one in insertion.current.beside or [insertion.current] if stack in one.context.masked]
