"""A prefix while text is generated token by token: made once, and put in front of the cached keys and values once.

A KV cache grows by copying itself. A prefix in front of it would be one more copy of all that for every token. So the cache's
layer holds both while its attention module computes, and afterwards a view that leaves the prefix out: whoever reads,
reorders, crops or copies the cache between two passes finds the base model's own, and only the very view that was left
there is taken for one that has the prefix before it.

Shapes: B batch, S cached tokens, L prefix length, G key/value heads, E head width.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from weakref import ref

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from unipet.adaptation.prefix_kv import columns_of, kept_columns
from unipet.calculus.functions.base import Heads
from unipet.calculus.insertion import Insertion
from unipet.calculus.scaling import Constant

if TYPE_CHECKING:
    from unipet.adaptation.attention import HeadsSite

_LENGTHS = {"get_seq_length", "get_mask_sizes"}  # a module that asks its cache for these must not find a prefix in it
_GROWING = "DynamicLayer"  # transformers' layer of a cache that does nothing but grow, and none of its subclasses
_CROSS = ("key_value_states", "encoder_hidden_states")

Pair = tuple[Tensor, Tensor]


@dataclass(frozen=True)
class Whole:
    """Keys and values behind the same `prefix` (each (G, L, E)): (B, G, L + S, E); `shown` are the keys that a cache holds."""

    prefix: Pair
    keys: Tensor
    values: Tensor
    shown: ref[Tensor]

    def before(self, keys: Tensor, values: Tensor) -> bool:
        """Whether these are its views without the prefix still, (B, G, S, E)."""
        if self.shown() is not keys:
            return False
        ahead = self.prefix[0].shape[1] * keys.element_size()
        if keys.data_ptr() != self.keys.data_ptr() + ahead * keys.shape[-1]:
            return False
        return values.data_ptr() == self.values.data_ptr() + ahead * values.shape[-1]


class CacheReader:
    """A pre-hook of an attention module: it finds the layer of the KV cache, and puts a known prefix in front of it."""

    def __init__(self, site: HeadsSite):
        self.site = site

    def __call__(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        if torch.compiler.is_compiling():
            return
        site = self.site
        site.cached = site.inside = None
        if torch.is_grad_enabled() or (layer := _layer(module, kwargs)) is None:
            return
        site.cached = layer
        whole = site.whole
        if whole is not None and whole.before(layer.keys, layer.values):
            layer.keys, layer.values, site.inside = whole.keys, whole.values, whole.prefix


def may_read_cache(module: nn.Module) -> bool:
    """Whether an attention module takes what its cache holds as it is."""
    forward: Any = inspect.unwrap(type(module).forward)
    return not _LENGTHS & set(forward.__code__.co_names)


def taken_out(site: HeadsSite, key: Tensor, value: Tensor) -> Pair:
    """An attention call's keys and values as the base model knows them, and the cache's layer likewise."""
    if site.inside is None:
        return key, value
    length = site.inside[0].shape[1]
    key, value = key[:, :, length:], value[:, :, length:]
    site.cached.keys, site.cached.values, site.inside = key, value, None
    return key, value


def with_ready_prefix(
    site: HeadsSite,
    inner: Callable[..., tuple[Tensor, Tensor | None]],
    module: Any,
    tensors: tuple[Tensor, Tensor, Tensor, Tensor | None],
    kwargs: dict[str, Any],
) -> tuple[Tensor, Tensor | None] | None:
    """The wrapped attention of one more token with a prefix in front; None where something depends on the call."""
    query, key, value, mask = tensors
    if query.shape[2] != 1 or len(site.insertions) != 1:
        return None
    if kwargs.get("position_bias") is not None or (prefix := _kept(site.insertions[0], key.shape[1])) is None:
        return None
    kwargs["scaling"] = kwargs.get("scaling") or query.shape[-1] ** -0.5
    layer, length = site.cached, prefix[0].shape[1]
    if site.inside is not prefix:  # the first such token, or the cache or the prefix was changed meanwhile
        if layer is None or layer.keys is not key or layer.values is not value:
            layer = None
        key, value = taken_out(site, key, value)
        made = columns_of(site.insertions[0], Heads(query, kwargs["scaling"], key.shape[1]), None)
        key = torch.cat((made.k_BGLE.to(key.dtype), key), 2)
        value = torch.cat((made.v_BGLE.to(value.dtype), value), 2)
    if layer is not None:
        layer.keys, layer.values, site.inside = key[:, :, length:], value[:, :, length:], None
        site.whole = Whole(prefix, key, value, ref(layer.keys, site.forget))
    if mask is not None:
        always = True if mask.dtype == torch.bool else 1 if mask.dim() == 2 else 0
        mask = F.pad(mask, (length, 0), value=always)
    h, weights = inner(module, query, key, value, mask, **kwargs)
    return h.contiguous(), weights


def _layer(module: nn.Module, kwargs: dict[str, Any]) -> Any:
    """The layer of the KV cache that an attention module's call fills or reads; None where it does more than grow."""
    cache, number = kwargs.get("past_key_values"), getattr(module, "layer_idx", None)
    if cache is None or number is None:
        return None
    if (own := getattr(cache, "self_attention_cache", None)) is not None:  # an encoder-decoder's has two
        cross = any(kwargs.get(name) is not None for name in _CROSS)
        cache = cache.cross_attention_cache if cross else own
    layers = getattr(cache, "layers", ())
    if number >= len(layers) or getattr(cache, "offloading", False):
        return None
    found = layers[number]
    return found if type(found).__name__ == _GROWING and found.is_initialized else None


def _kept(insertion: Insertion, kv_heads: int) -> Pair | None:
    """Keys and values (G, L, E), the very ones of the pass before if they are as they were; None where a call differs from
    others, or goes on with no KV cache."""
    parts, context = insertion.parts, insertion.current.context
    if insertion.training or torch.is_grad_enabled() or not context.cached.get(insertion.site.stack):
        return None
    if context.own is not None or parts.mixture is not None or parts.tokens is not None:
        return None
    if not parts.composition.shares_softmax or type(parts.scaling) is not Constant:
        return None
    return kept_columns(insertion, kv_heads)
