"""`attn.heads`: the registered attention function that applies insertions inside attention.

transformers sends every attention call through its AttentionInterface. `unipet_<implementation>` wraps the user's
implementation (eager, sdpa, flash): it prepends the keys and values of `gated` prefixes, calls the wrapped function,
and lets the other insertions act on the concatenated heads. No modelling code is touched.

Shapes: B batch, T queries, S keys, L prefix length, H query heads, G key/value heads, E head width, F widths of all
blocks.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from unipet.adaptation.at_heads import changed, prepended
from unipet.adaptation.prefix_kv import Columns, in_front
from unipet.calculus.functions.base import Heads
from unipet.calculus.insertion import Insertion
from unipet.errors import UnipetError

PREFIX = "unipet_"
ATTRIBUTE = "_unipet_heads"


class HeadsSite:
    """The insertions of one attention module, in the method's order, and the x that each reads in the current call."""

    def __init__(self) -> None:
        self.insertions: list[Insertion] = []
        self.x: dict[str, Tensor] = {}  # path of the module that reads x -> x
        self.biased: Any = None  # the module that computes the stack's relative position bias, where columns shift it
        self.behind = False  # whether queries move with the keys: real tokens stand behind the columns
        self.watch: Callable[[Tensor, Tensor], None] | None = (
            None  # called with the keys and values of every attention call
        )


class Attention:
    """A registered attention function: the wrapped implementation with insertions. Called by transformers."""

    def __init__(self, implementation: str):
        self.implementation = implementation

    def _inner(self, module: nn.Module) -> Callable[..., tuple[Tensor, Tensor | None]]:
        if self.implementation == "eager":
            # Each modelling file brings its own eager attention; the interface only knows the others.
            inner: Callable[..., tuple[Tensor, Tensor | None]] = _namespace(module)["eager_attention_forward"]
            return inner
        from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

        return ALL_ATTENTION_FUNCTIONS[self.implementation]

    def __call__(
        self, module: nn.Module, query: Tensor, key: Tensor, value: Tensor, attention_mask: Tensor | None, **kwargs: Any
    ) -> tuple[Tensor, Tensor | None]:
        inner, seen = self._inner(module), module
        if self.implementation.startswith("flash"):
            # It loads its kernel by the name that it reads from the configuration.
            seen = _Seen(module, config=_Seen(module.config, _attn_implementation=self.implementation))  # type: ignore[assignment]
        site: HeadsSite | None = getattr(module, ATTRIBUTE, None)
        if site is not None and site.watch is not None:
            site.watch(key, value)
        if site is None or not site.insertions:
            return inner(seen, query, key, value, attention_mask, **kwargs)
        heads = Heads(query, kwargs.get("scaling") or query.shape[-1] ** -0.5, key.shape[1])
        kwargs["scaling"] = heads.factor
        call = _Inside(inner, self.implementation, seen, heads, key, value, attention_mask, kwargs, site)
        columns = [
            prepended(insertion, heads, site.x.get(insertion.site.x_path))
            for insertion in site.insertions
            if insertion.parts.composition.shares_softmax
        ]
        h, weights = call.with_columns(columns)
        for insertion in site.insertions:
            if not insertion.parts.composition.shares_softmax:
                h = changed(insertion, h.flatten(2), site.x.get(insertion.site.x_path), heads).view_as(h)
        site.x.clear()
        return h, weights


class _Seen:
    """An object seen as if some of its attributes had other values."""

    def __init__(self, of: Any, **attributes: Any):
        self._of = of
        for name, value in attributes.items():
            setattr(self, name, value)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._of, name)


@dataclass(frozen=True)
class _Inside:
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
        h_BTHF, weights = self.inner(self.module, query, key, value, mask, **kwargs)
        if all(one.gate_BT1 is None for one in columns):
            return h_BTHF.contiguous(), weights
        width = self.value.shape[-1]
        h_BTHE = h_BTHF[..., :width]
        for number, gate_BT1 in enumerate(one.gate_BT1 for one in columns if one.gate_BT1 is not None):
            share_BTHE = h_BTHF[..., (number + 1) * width : (number + 2) * width]
            h_BTHE = h_BTHE + gate_BT1.unsqueeze(-1).to(h_BTHE.dtype) * share_BTHE
        return h_BTHE.contiguous(), weights

    def _widened(self, columns: list[Columns]) -> Tensor | None:
        """The mask (4-D, or 2-D of real tokens, or None) with the columns in front: visible to all queries, or to the
        selected ones."""
        mask, selective = self.mask, any(one.chosen_BT is not None for one in columns)
        if mask is None and (selective or self._causal()):
            mask = self._explicit()
        if mask is None:
            return None
        if not selective:
            length = sum(one.length for one in columns)
            return F.pad(mask, (length, 0), value=True if mask.dtype == torch.bool else 1 if mask.dim() == 2 else 0)
        rows, _, queries, _ = self.heads.q_BHTE.shape
        front_BTL = torch.cat([one.visible(rows, queries) for one in reversed(columns)], -1)
        front = front_BTL[:, None].expand(-1, mask.shape[1], -1, -1)
        if mask.dtype != torch.bool:
            front = torch.zeros_like(front, dtype=mask.dtype).masked_fill(~front, torch.finfo(mask.dtype).min)
        return torch.cat([front, mask.expand(rows, -1, queries, -1)], -1)

    def _causal(self) -> bool:
        """Whether no mask means "causal, counted from the first key": sdpa's way, with more than one query. Flash kernels
        count from the last key, which columns in front do not change; eager shows all where there is no mask."""
        given = self.kwargs.get("is_causal")
        causal = getattr(self.module, "is_causal", True) if given is None else given
        return self.implementation == "sdpa" and bool(causal) and self.heads.q_BHTE.shape[2] > 1

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


def wrap_implementation(module: nn.Module, path: str) -> str:
    """Register the wrapper of a module's attention implementation (once per process) and return its name.

    Raises UnipetError where the module's attention cannot be wrapped; `path` is its path.
    """
    from transformers import AttentionInterface
    from transformers.masking_utils import ALL_MASK_ATTENTION_FUNCTIONS, AttentionMaskInterface

    config: Any = getattr(module, "config", None)
    implementation = getattr(config, "_attn_implementation", None) or "eager"
    if implementation.startswith(PREFIX):
        return implementation
    known = implementation in ALL_MASK_ATTENTION_FUNCTIONS and implementation.startswith(("eager", "sdpa", "flash"))
    if not known:
        raise UnipetError(
            f"attn.heads cannot wrap the attention implementation {implementation!r} of {type(config).__name__}. "
            "Load the base model with attn_implementation='sdpa' or 'eager'."
        )
    needed = ["ALL_ATTENTION_FUNCTIONS"] + ["eager_attention_forward"] * (implementation == "eager")
    if any(name not in _namespace(module) for name in needed):
        raise UnipetError(
            f"{path} ({type(module).__name__}) computes its attention by itself, not through transformers' "
            "AttentionInterface, so nothing can act on its heads. Choose another site."
        )
    wrapped = PREFIX + implementation
    AttentionInterface.register(wrapped, Attention(implementation))
    AttentionMaskInterface.register(wrapped, ALL_MASK_ATTENTION_FUNCTIONS[implementation])
    return wrapped


def is_flash(module: nn.Module) -> bool:
    """Whether a module's attention runs in a flash kernel, wrapped or not."""
    implementation = str(getattr(module.config, "_attn_implementation", None))
    return implementation.removeprefix(PREFIX).startswith("flash")


def _namespace(module: nn.Module) -> dict[str, Any]:
    """The names that a module's forward sees: its modelling file's."""
    forward: Any = inspect.unwrap(type(module).forward)
    found: dict[str, Any] = forward.__globals__
    return found
