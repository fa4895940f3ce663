"""`attn.heads`: the registered attention function that applies insertions inside attention.

transformers sends every attention call through its AttentionInterface. `unipet_<implementation>` wraps the user's
implementation (eager, sdpa, flash): it prepends the keys and values of `gated` prefixes, calls the wrapped function,
and lets the other insertions act on the concatenated heads. No modelling code is touched.

Shapes: B batch, T queries, S keys, L prefix length, H query heads, G key/value heads, E head width.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from unipet.errors import UnipetError
from unipet.functions.base import Heads
from unipet.insertion import Insertion

PREFIX = "unipet_"
ATTRIBUTE = "_unipet_heads"


class HeadsSite:
    """The insertions of one attention module, in the method's order, and the x that its current call received."""

    def __init__(self) -> None:
        self.insertions: list[Insertion] = []
        self.x: Tensor | None = None

    def take_x(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """A pre-hook: keep the attention block's input until the attention function runs."""
        self.x = args[0] if args else kwargs.get("hidden_states")


class Attention:
    """One wrapped implementation, callable as transformers calls an attention function."""

    def __init__(self, implementation: str):
        self.implementation = implementation

    def _inner(self, module: nn.Module) -> Callable[..., tuple[Tensor, Tensor | None]]:
        if self.implementation == "eager":
            # Each modelling file brings its own eager attention; the interface only knows the others.
            return sys.modules[type(module).__module__].eager_attention_forward
        from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

        return ALL_ATTENTION_FUNCTIONS[self.implementation]

    def __call__(
        self, module: nn.Module, query: Tensor, key: Tensor, value: Tensor, attention_mask: Tensor | None, **kwargs: Any
    ) -> tuple[Tensor, Tensor | None]:
        inner = self._inner(module)
        site: HeadsSite | None = getattr(module, ATTRIBUTE, None)
        if site is None or not site.insertions:
            return inner(module, query, key, value, attention_mask, **kwargs)
        x, site.x = site.x, None
        factor = kwargs.get("scaling") or query.shape[-1] ** -0.5
        heads = Heads(query, factor, key.shape[1])
        everywhere = [i for i in site.insertions if i.parts.rule.needs_mass and i.parts.tokens is None]
        h, weights = self._with_columns(everywhere, inner, module, heads, key, value, attention_mask, x, kwargs)
        for insertion in site.insertions:
            if insertion.parts.rule.needs_mass:
                if insertion.parts.tokens is not None:
                    columns = [*everywhere, insertion]
                    joined, _ = self._with_columns(columns, inner, module, heads, key, value, attention_mask, x, kwargs)
                    h = insertion.at_tokens(h.flatten(2), joined.flatten(2)).view_as(h)
            else:
                h = insertion(h.flatten(2), x, heads).view_as(h)
        return h, weights

    def _with_columns(
        self,
        insertions: list[Insertion],
        inner: Callable[..., tuple[Tensor, Tensor | None]],
        module: nn.Module,
        heads: Heads,
        key: Tensor,
        value: Tensor,
        mask: Tensor | None,
        x: Tensor | None,
        kwargs: dict[str, Any],
    ) -> tuple[Tensor, Tensor | None]:
        """The wrapped attention with the insertions' columns in front of its keys and values."""
        for insertion in insertions:
            k_BGLE, v_BGLE = _columns(insertion, heads, x)
            mask = _widen(mask, k_BGLE.shape[2], module, heads.q_BHTE, key, kwargs)
            key = torch.cat([k_BGLE.to(key.dtype), key], dim=2)
            value = torch.cat([v_BGLE.to(value.dtype), value], dim=2)
        h, weights = inner(module, heads.q_BHTE, key, value, mask, **kwargs)
        return h.contiguous(), weights


def _columns(insertion: Insertion, heads: Heads, x: Tensor | None) -> tuple[Tensor, Tensor]:
    """One insertion's keys and values for every example, (B, G, L, E) each, scaled."""
    function: Any = insertion.parts.function  # has_mass promises columns() and scale_keys
    rows = heads.q_BHTE.shape[0]
    views = insertion.call_record.views if insertion.training and insertion.parts.mixture is not None else 1
    parts = [function.columns(insertion.params(view), heads.kv_heads, insertion.training) for view in range(views)]
    k_BGLE, v_BGLE = (torch.cat([part[i].expand(rows // views, *part[i].shape) for part in parts]) for i in (0, 1))
    factor = insertion.factor(x, x) if x is not None else 1.0
    if isinstance(factor, Tensor):
        shape = (1, heads.kv_heads, 1, -1) if factor.dim() == 1 and factor.numel() > 1 else (-1, 1, 1, 1)
        factor = factor.view(shape)
    return (k_BGLE * factor if function.scale_keys else k_BGLE), v_BGLE * factor


def _widen(
    mask: Tensor | None, length: int, module: nn.Module, query: Tensor, key: Tensor, kwargs: dict[str, Any]
) -> Tensor | None:
    """The attention mask with `length` always visible columns in front."""
    if mask is not None:
        return F.pad(mask, (length, 0), value=True if mask.dtype == torch.bool else 0)
    causal = kwargs.get("is_causal")
    causal = getattr(module, "is_causal", False) if causal is None else causal
    queries, keys = query.shape[2], key.shape[2]
    if not causal or queries == 1:
        return None
    # No mask means "causal by position" to the kernels, which would count the new columns as positions.
    visible = torch.ones(queries, keys, dtype=torch.bool, device=query.device).tril(keys - queries)
    return F.pad(visible, (length, 0), value=True)[None, None]


def wrap_implementation(model_config: Any, name: str | None) -> str:
    """Register the wrapper of an attention implementation (once per process) and return its name."""
    from transformers import AttentionInterface
    from transformers.masking_utils import ALL_MASK_ATTENTION_FUNCTIONS, AttentionMaskInterface

    implementation = name or "eager"
    if implementation.startswith(PREFIX):
        return implementation
    if implementation not in ALL_MASK_ATTENTION_FUNCTIONS:
        raise UnipetError(
            f"attn.heads cannot wrap the attention implementation {implementation!r} of {type(model_config).__name__}. "
            "Load the base model with attn_implementation='sdpa' or 'eager'."
        )
    wrapped = PREFIX + implementation
    AttentionInterface.register(wrapped, Attention(implementation))
    AttentionMaskInterface.register(wrapped, ALL_MASK_ATTENTION_FUNCTIONS[implementation])
    return wrapped
