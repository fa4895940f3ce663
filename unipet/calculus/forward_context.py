"""What one forward pass of the base model tells its insertions, and which pass they are in.

Shapes: B batch, T positions of this pass, S tokens of the whole sequence, D width of h.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any, Self

import torch
from torch import Tensor

from unipet.calculus.mixture import Route
from unipet.calculus.own_rows import OwnRows
from unipet.calculus.router_use import RouterUse
from unipet.calculus.scaling import Tokens
from unipet.errors import UnipetError


@dataclass
class ForwardContext:
    """What one forward pass tells its insertions. It changes while that pass begins, and never afterwards.

    Per stack: its batch size and, where an insertion needs them (`masked`), the real tokens of the whole sequence (those in the
    KV cache included; None: all are real) and how many the cache holds. For all: how many views are stacked in the batch,
    each view's routes, what learned routers did, and the rows that the insertions work on (None: all); the real tokens
    are those of these rows.

    Routes of examples and tokens are functions of a random number for each view (`seeds`), of the row's place in its step's
    batch (`first_row` is that of the first one) and, for hash routers, of the token `ids`. Mixtures report back, under their
    number and the view: what each expert takes (`shares`).
    """

    rows: dict[str, int] = field(default_factory=dict)
    masked: frozenset[str] = frozenset()
    masks_BS: dict[str, Tensor | None] = field(default_factory=dict)
    past: dict[str, int] = field(default_factory=dict)
    cached: dict[str, int | None] = field(default_factory=dict)  # tokens in a stack's KV cache; None: none, or unknown
    views: int = 1
    routes: list[dict[int, Route]] = field(default_factory=list)  # per view: insertion number -> route
    evaluation: dict[int, Route] = field(default_factory=dict)  # the same, of reducers that draw
    seeds: list[int] = field(default_factory=list)
    evaluation_seeds: list[int] = field(default_factory=list)
    first_row: int = 0
    ids: dict[str, Tensor] = field(default_factory=dict)  # per stack
    shares: dict[tuple[int, int], Tensor] = field(default_factory=dict)
    own: OwnRows | None = None
    uses: list[RouterUse] = field(default_factory=list)  # what the learned routers of this pass did
    made: dict[tuple[str, bool], tuple[Tensor, Any, Tokens]] = field(default_factory=dict)  # of which mask, for what

    @classmethod
    def of_stacks(cls, stacks: Iterable[str]) -> Self:
        """The context of a pass through `stacks` that has not begun."""
        # Every key is there from the start, or torch.compile would see another context on the second pass.
        found = cls(dict.fromkeys(stacks, 0))
        found.masks_BS, found.past, found.cached = (
            dict.fromkeys(stacks),
            dict.fromkeys(stacks, 0),
            dict.fromkeys(stacks),
        )
        return found

    def copy(self) -> Self:
        """A copy that can change without changing this one; both have the same reports, which are of one pass."""
        return replace(
            self,
            rows={**self.rows},
            masks_BS={**self.masks_BS},
            past={**self.past},
            cached={**self.cached},
            routes=[{**route} for route in self.routes],
            evaluation={**self.evaluation},
            ids={**self.ids},
            uses=[*self.uses],
        )

    def note_cache(self, stack: str, cache: Any) -> None:
        """Note how many tokens the KV cache of one stack holds, where it says so without waiting for the device."""
        held = None if cache is None else cache.get_seq_length()
        self.cached[stack] = held if isinstance(held, int) else None

    def note_tokens(self, stack: str, mask: Any, cache: Any) -> None:
        """Note the real tokens and the KV cache of one stack. Raises UnipetError for a mask that does not tell them."""
        if mask is not None and not (isinstance(mask, Tensor) and mask.dim() == 2):
            shown = f"one of shape {tuple(mask.shape)}" if isinstance(mask, Tensor) else f"a {type(mask).__name__}"
            raise UnipetError(
                f"Pooled gates and `tokens` need to know the real tokens: give a 2-D attention_mask, not {shown}. "
                "generate() makes such masks for a static cache; use its default cache."
            )
        real_BS = None if mask is None else mask.bool()
        self.masks_BS[stack] = real_BS if real_BS is None or self.own is None else self.own.pick(real_BS)
        self.past[stack] = int(cache.get_seq_length()) if cache is not None else 0

    def note_added(
        self, stack: str, mask_BS: Tensor, fresh: bool, grow: Callable[[Tensor, OwnRows | None], Tensor]
    ) -> None:
        """Note that a stack's sequence grows by tokens that are not real; `mask_BS` is that of the whole batch before.

        `fresh` says that what was noted before is not of this pass. `grow` makes a mask of the own rows longer.
        """
        mask_BS = (mask_BS if self.own is None else self.own.pick(mask_BS)).bool()
        known_BS = self.masks_BS.get(stack)
        if fresh or known_BS is None or known_BS.shape != mask_BS.shape:
            known_BS = mask_BS
        self.masks_BS[stack] = grow(known_BS, self.own)

    def real_tokens(self, stack: str, h_BTD: Tensor, place: str) -> Tensor:
        """Which tokens are real, those in the KV cache included: (B, S), h's own tokens being the last T.

        Raises UnipetError where the mask that the model was called with is about other tokens.
        """
        rows, length = h_BTD.shape[0], h_BTD.shape[1] + self.past.get(stack, 0)
        mask_BS = self.masks_BS.get(stack)
        if mask_BS is None:
            return torch.ones(rows, length, device=h_BTD.device, dtype=torch.bool)
        if mask_BS.shape != (rows, length):
            raise UnipetError(
                f"{place}: the attention mask of this call is {tuple(mask_BS.shape)} but the hidden states are "
                f"{(rows, length)}. Call the model with a 2-D attention_mask."
            )
        return mask_BS

    def tokens(self, stack: str, h_BTD: Tensor, causal: bool, place: str) -> Tokens:
        """What a gate may know of the tokens of h, made once for all gates that ask in this pass."""
        mask_BS, past = self.masks_BS.get(stack), self.past.get(stack, 0)
        if mask_BS is None:
            return Tokens(None, causal, past > 0)
        asked = (past, h_BTD.shape[:2], torch.promote_types(h_BTD.dtype, torch.float32))
        known = None if torch.compiler.is_compiling() else self.made.get((stack, causal))
        if known is not None and known[0] is mask_BS and known[1] == asked:
            return known[2]
        real_BT = self.real_tokens(stack, h_BTD, place)[:, -h_BTD.shape[1] :]
        tokens = Tokens.of(real_BT, causal, past > 0, asked[-1])
        if not torch.compiler.is_compiling():
            self.made[stack, causal] = mask_BS, asked, tokens
        return tokens

    def chosen(self, stack: str, h_BTD: Tensor, which: str, count: int, place: str) -> Tensor:
        """The token positions of h that are among the `which` ("first" or "last") `count` real ones of their row, (B, T)."""
        if which == "last" and self.past.get(stack, 0) > 0:
            # The last tokens of the prompt; what is generated after it is not among them.
            return torch.zeros(h_BTD.shape[:2], dtype=torch.bool, device=h_BTD.device)
        real_BS = self.real_tokens(stack, h_BTD, place)
        ahead_BS = real_BS.cumsum(1) if which == "first" else real_BS.flip(1).cumsum(1).flip(1)
        return (real_BS & (ahead_BS <= count))[:, -h_BTD.shape[1] :]


class CurrentPass:
    """The forward pass that the insertions of one adapted model are in: all of them hold this, and one writes it."""

    def __init__(self, context: ForwardContext) -> None:
        self.context = context
        self.beside: list[CurrentPass] = []  # of all adaptations that share a batch, this one included
        self.reading: Any = None  # the KV cache that this pass fills, where some insertion asks for it

    @contextmanager
    def again(self, context: ForwardContext) -> Iterator[None]:
        """Inside the block, the insertions are in the pass that `context` belongs to."""
        now, self.context = self.context, context
        try:
            yield
        finally:
            self.context = now
