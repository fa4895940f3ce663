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
from dataclasses import dataclass, replace
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
    """The insertions of one attention module, in the method's order, and the x that each reads in the current call."""

    def __init__(self) -> None:
        self.insertions: list[Insertion] = []
        self.x: dict[str, Tensor] = {}  # path of the module that reads x -> x
        self.biased: Any = None  # the module that computes the stack's relative position bias, where columns shift it


class Attention:
    """A registered attention function: the wrapped implementation with insertions. Called by transformers."""

    def __init__(self, implementation: str):
        self.implementation = implementation

    def _inner(self, module: nn.Module) -> Callable[..., tuple[Tensor, Tensor | None]]:
        if self.implementation == "eager":
            # Each modelling file brings its own eager attention; the interface only knows the others.
            forward: Any = inspect.unwrap(type(module).forward)
            inner: Callable[..., tuple[Tensor, Tensor | None]] = forward.__globals__["eager_attention_forward"]
            return inner
        from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

        return ALL_ATTENTION_FUNCTIONS[self.implementation]

    def __call__(
        self, module: nn.Module, query: Tensor, key: Tensor, value: Tensor, attention_mask: Tensor | None, **kwargs: Any
    ) -> tuple[Tensor, Tensor | None]:
        inner = self._inner(module)
        site: HeadsSite | None = getattr(module, ATTRIBUTE, None)
        if site is None or not site.insertions:
            return inner(module, query, key, value, attention_mask, **kwargs)
        heads = Heads(query, kwargs.get("scaling") or query.shape[-1] ** -0.5, key.shape[1])
        flash = self.implementation.startswith("flash")
        kwargs["scaling"] = heads.factor
        call = _Inside(inner, module, heads, key, value, attention_mask, kwargs, flash, site.biased)
        everywhere = [
            (i, site.x.get(i.site.x_path)) for i in site.insertions if i.parts.rule.needs_mass and not i.parts.tokens
        ]
        h, weights = call.with_columns(everywhere)
        for insertion in site.insertions:
            x = site.x.get(insertion.site.x_path)
            if insertion.parts.rule.needs_mass:
                if insertion.parts.tokens is not None:
                    joined, _ = call.with_columns([*everywhere, (insertion, x)])
                    h = insertion.at_tokens(h.flatten(2), joined.flatten(2)).view_as(h)
            else:
                h = insertion(h.flatten(2), x, _with_x(heads, insertion, x)).view_as(h)
        site.x.clear()
        return h, weights


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


@dataclass(frozen=True)
class _Inside:
    """The arguments of one attention call."""

    inner: Callable[..., tuple[Tensor, Tensor | None]]
    module: nn.Module
    heads: Heads
    key: Tensor
    value: Tensor
    mask: Tensor | None
    kwargs: dict[str, Any]
    flash: bool
    biased: Any = None

    def _bias(self, bias_1HTS: Tensor, length: int) -> Tensor:
        """The relative position bias with columns in front: none for them, or that of keys `length` places further."""
        queries, keys = bias_1HTS.shape[-2:]
        if self.biased is None:
            return F.pad(bias_1HTS, (length, 0))
        past = keys - queries if self.biased.is_decoder else 0
        shifted: Tensor = self.biased.compute_bias(queries, keys + length, bias_1HTS.device, past)
        return shifted

    def _causal(self) -> bool:
        """Whether no mask means "causal by position". Flash kernels then count from the end, which columns in front
        do not change; the others count from the start."""
        causal = self.kwargs.get("is_causal")
        return not self.flash and bool(getattr(self.module, "is_causal", False) if causal is None else causal)

    def with_columns(self, insertions: list[tuple[Insertion, Tensor | None]]) -> tuple[Tensor, Tensor | None]:
        """The wrapped attention with the insertions' columns in front of its keys and values."""
        if not insertions:
            h, weights = self.inner(self.module, self.heads.q_BHTE, self.key, self.value, self.mask, **self.kwargs)
            return h.contiguous(), weights
        columns = [_columns(insertion, self.heads, x) for insertion, x in insertions]
        length = sum(one.k_BGLE.shape[2] for one in columns)
        kwargs = {**self.kwargs}
        if (bias := kwargs.get("position_bias")) is not None:
            kwargs["position_bias"] = self._bias(bias, length)
        if self.flash and kwargs.get("sliding_window") is not None:
            raise UnipetError(
                "A prefix cannot stand in front of a sliding window inside a flash attention kernel. "
                "Load the base model with attn_implementation='sdpa' or 'eager'."
            )
        mask = widen(self.mask, length, self._causal(), self.heads.q_BHTE.shape[2], self.key)
        query, key, value = _blocks(columns, self.heads.q_BHTE, self.key, self.value)
        h_BTHF, weights = self.inner(self.module, query, key, value, mask, **kwargs)
        width = self.value.shape[-1]
        h_BTHE = h_BTHF[..., :width]
        for number, one in enumerate(one for one in columns if one.gate_BT1 is not None):
            gate_BT11 = one.gate_BT1.unsqueeze(-1).to(h_BTHE.dtype)  # type: ignore[union-attr]
            h_BTHE = h_BTHE + gate_BT11 * h_BTHF[..., (number + 1) * width : (number + 2) * width]
        return h_BTHE.contiguous(), weights


@dataclass(frozen=True, eq=False)
class _Columns:
    """One insertion's keys and values for every example; `gate_BT1` is a scaling that differs by query, which acts on
    the values' share of h, and with `gate_keys` on the logits."""

    k_BGLE: Tensor
    v_BGLE: Tensor
    gate_BT1: Tensor | None = None
    gate_keys: bool = False


def _columns(insertion: Insertion, heads: Heads, x: Tensor | None) -> _Columns:
    function: Any = insertion.parts.function  # has_mass promises columns() and scale_keys
    rows = heads.q_BHTE.shape[0]
    views = insertion.call_record.views if insertion.training and insertion.parts.mixture is not None else 1
    parts = [function.columns(insertion.params(view), heads.kv_heads, insertion.training) for view in range(views)]
    k_BGLE, v_BGLE = (torch.cat([part[i].expand(rows // views, *part[i].shape) for part in parts]) for i in (0, 1))
    factor = insertion.factor(x, x) if x is not None else 1.0
    if isinstance(factor, Tensor):
        if insertion.parts.scaling.per_token(insertion.site.causal):
            return _Columns(k_BGLE, v_BGLE, factor, function.scale_keys)
        shape = (1, heads.kv_heads, 1, -1) if factor.dim() == 1 and factor.numel() > 1 else (-1, 1, 1, 1)
        factor = factor.view(shape)
    return _Columns(k_BGLE * factor if function.scale_keys else k_BGLE, v_BGLE * factor)


def _blocks(columns: list[_Columns], q_BHTE: Tensor, k_BGSE: Tensor, v_BGSE: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Queries, keys and values of one softmax over all columns and the sequence.

    A column whose scaling differs by query gets E dimensions of its own: its logit is (s·q)·k there, and its share of
    the values comes out apart, to be scaled by s afterwards. All else lives in the first E dimensions.
    """
    gated = [one for one in columns if one.gate_BT1 is not None]
    queries = [q_BHTE] + [
        q_BHTE * one.gate_BT1.unsqueeze(1).to(q_BHTE.dtype) if one.gate_keys else q_BHTE  # type: ignore[union-attr]
        for one in gated
    ]
    keys, values = [], []
    for one in [*reversed(columns), None]:
        k, v = (one.k_BGLE.to(k_BGSE.dtype), one.v_BGLE.to(v_BGSE.dtype)) if one else (k_BGSE, v_BGSE)
        block = gated.index(one) + 1 if one in gated else 0
        keys.append(_in_block(k, block, len(gated) + 1))
        values.append(_in_block(v, block, len(gated) + 1))
    return torch.cat(queries, -1), torch.cat(keys, 2), torch.cat(values, 2)


def _in_block(tensor: Tensor, block: int, blocks: int) -> Tensor:
    """`tensor` in one of `blocks` equal blocks of the last dimension, zeros in the others."""
    width = tensor.shape[-1]
    return F.pad(tensor, (block * width, (blocks - 1 - block) * width)) if blocks > 1 else tensor


def widen(mask: Tensor | None, length: int, causal: bool, queries: int, key: Tensor) -> Tensor | None:
    """An attention mask (4-D, or 2-D of real tokens, or None) with `length` always visible columns in front."""
    if mask is not None:
        visible = True if mask.dtype == torch.bool else 1 if mask.dim() == 2 else 0
        return F.pad(mask, (length, 0), value=visible)
    if not causal or queries == 1:
        return None
    keys = key.shape[2]
    visible_TS = torch.ones(queries, keys, dtype=torch.bool, device=key.device).tril(keys - queries)
    return F.pad(visible_TS, (length, 0), value=True)[None, None]


def wrap_implementation(model_config: Any, name: str | None) -> str:
    """Register the wrapper of an attention implementation (once per process) and return its name."""
    from transformers import AttentionInterface
    from transformers.masking_utils import ALL_MASK_ATTENTION_FUNCTIONS, AttentionMaskInterface

    implementation = name or "eager"
    if implementation.startswith(PREFIX):
        return implementation
    known = implementation in ALL_MASK_ATTENTION_FUNCTIONS and implementation.startswith(("eager", "sdpa", "flash"))
    if not known:
        raise UnipetError(
            f"attn.heads cannot wrap the attention implementation {implementation!r} of {type(model_config).__name__}. "
            "Load the base model with attn_implementation='sdpa' or 'eager'."
        )
    wrapped = PREFIX + implementation
    AttentionInterface.register(wrapped, Attention(implementation))
    AttentionMaskInterface.register(wrapped, ALL_MASK_ATTENTION_FUNCTIONS[implementation])
    return wrapped
