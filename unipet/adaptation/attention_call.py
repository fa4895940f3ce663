"""One attention call with columns in front of its keys and values: its mask, its position bias, and the limits of flash kernels.

Shapes: B batch, T queries, S keys, L prefix length, H query heads, G key/value heads, E head width, F widths of all
blocks.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from unipet.adaptation.prefix_kv import Columns, in_front
from unipet.adaptation.ready_prefix import begin_behind
from unipet.calculus.functions.base import Heads
from unipet.errors import UnipetError

if TYPE_CHECKING:
    from unipet.adaptation.attention import HeadsSite


@dataclass(frozen=True)
class InnerCall:
    """The arguments of one attention call."""

    inner: Callable[..., tuple[Tensor, Tensor | None]]
    implementation: str
    module: nn.Module
    heads: Heads
    key: Tensor
    value: Tensor
    mask: Tensor | None
    kwargs: dict[str, Any]
    site: HeadsSite

    def with_columns(self, columns: list[Columns]) -> tuple[Tensor, Tensor | None]:
        """The wrapped attention with these columns in front of its keys and values."""
        query, key, value, mask, kwargs = self.heads.q_BHTE, self.key, self.value, self.mask, self.kwargs
        if columns:
            if self.implementation.startswith("flash"):
                self._check_flash(columns)
            mask = self._widened(columns)
            if (bias := kwargs.get("position_bias")) is not None:
                kwargs = {**kwargs, "position_bias": self._bias(bias, sum(one.length for one in columns))}
            query, key, value = in_front(columns, query, key, value)
            if not self.implementation.startswith("flash"):
                begin_behind((key, value), self.site, self.module, self.key, self.value)
        h_BTHF, weights = self.inner(self.module, query, key, value, mask, **kwargs)
        gates = [one.gate_BT1 for one in columns if one.gate_BT1 is not None]
        if not gates:
            return h_BTHF.contiguous(), weights
        width = self.value.shape[-1]
        h_BTHE = h_BTHF[..., :width]
        for number, gate_BT1 in enumerate(gates):
            share_BTHE = h_BTHF[..., (number + 1) * width : (number + 2) * width]
            h_BTHE = h_BTHE + gate_BT1.unsqueeze(-1).to(h_BTHE.dtype) * share_BTHE
        return h_BTHE.contiguous(), weights

    def _widened(self, columns: list[Columns]) -> Tensor | None:
        """The mask (4-D, or 2-D of real tokens, or None) with the columns in front: visible to all queries, or to the
        selected ones."""
        mask, selective = self.mask, [one for one in columns if one.chosen_BT is not None]
        if not selective:
            length, masks = sum(one.length for one in columns), self.site.masks
            if mask is not None:
                return masks.of(mask, length)
            shape, key = (self.heads.q_BHTE.shape[2], self.key.shape[2]), self.key
            return masks.meant(self._explicit, length, *shape, key.device, key.dtype) if self._causal() else None
        mask = self._explicit() if mask is None else mask
        rows, _, queries, _ = self.heads.q_BHTE.shape
        front_BTL = torch.cat([one.visible(rows, queries) for one in reversed(columns)], -1)
        front = front_BTL[:, None].expand(-1, mask.shape[1], -1, -1)
        if mask.dtype != torch.bool:
            front = torch.zeros_like(front, dtype=mask.dtype).masked_fill(~front, torch.finfo(mask.dtype).min)
        return torch.cat([front, mask.expand(rows, -1, queries, -1)], -1)

    def _causal(self) -> bool:
        """Whether no mask means "causal, counted from the first key": sdpa's way, with more than one query. Flash kernels
        count from the last key, which columns in front do not change; eager shows all where there is no mask."""
        if self.implementation != "sdpa" or self.heads.q_BHTE.shape[2] <= 1:
            return False
        given = self.kwargs.get("is_causal")
        return bool(getattr(self.module, "is_causal", True) if given is None else given)

    def _explicit(self) -> Tensor:
        """The mask that is meant where none is given, written out: (1, 1, T, S)."""
        shape = (self.heads.q_BHTE.shape[2], self.key.shape[2])
        if self.implementation == "eager":
            return self.key.new_zeros(shape)[None, None]
        visible_TS = torch.ones(shape, dtype=torch.bool, device=self.key.device)
        return (visible_TS.tril() if self._causal() else visible_TS)[None, None]

    def _bias(self, bias_1HTS: Tensor, length: int) -> Tensor:
        """The relative position bias with columns in front: none for them, or that of keys `length` places further."""
        queries, keys = bias_1HTS.shape[-2:]
        biased = self.site.biased
        if biased is None:
            return F.pad(bias_1HTS, (length, 0))
        past = (keys - queries if biased.is_decoder else 0) + (length if self.site.behind else 0)
        shifted: Tensor = biased.compute_bias(queries, keys + length, bias_1HTS.device, past)
        return shifted

    def _check_flash(self, columns: list[Columns]) -> None:
        """Raise UnipetError for what a flash kernel, which takes no 4-D mask, cannot do with columns in front."""
        packed = self.kwargs.get("cu_seq_lens_k") is not None
        why = (
            "stand in front of a sliding window"
            if self.kwargs.get("sliding_window") is not None
            else "act on some tokens only"
            if any(one.chosen_BT is not None for one in columns)
            else "stand in front of each of several packed sequences"
            if packed or (self.mask is None and _starts_again(self.kwargs.get("position_ids")))
            else None
        )
        if why:
            raise UnipetError(
                f"A prefix cannot {why} inside a flash attention kernel. "
                "Load the base model with attn_implementation='sdpa' or 'eager'."
            )


def _starts_again(position_ids: Tensor | None) -> bool:
    """Whether one row holds several sequences, as flash kernels read it from the positions."""
    if position_ids is None or position_ids.shape[0] != 1:
        return False
    return bool((position_ids.diff(dim=-1) < 0).any())
