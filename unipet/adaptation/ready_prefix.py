"""A prefix while text is generated token by token: made once, and put in front of the cached keys and values once.

A KV cache's layer then holds both (`prefixed_layer`). Keys and values of cross-attention do not grow: they are kept here, behind
the prefix.

Shapes: B batch, S cached tokens, L prefix length, G key/value heads, E head width.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import TYPE_CHECKING, Any
from weakref import ref

import torch
from torch import Tensor, nn

from unipet.adaptation.position_ids import named
from unipet.adaptation.prefix_kv import columns_of, kept_columns
from unipet.calculus.forward_context import CurrentPass
from unipet.calculus.functions.base import Heads
from unipet.calculus.insertion import Insertion
from unipet.calculus.scaling import Constant

if TYPE_CHECKING:
    from unipet.adaptation.attention import HeadsSite

_LENGTHS = {"get_seq_length", "get_mask_sizes"}  # a module that asks its cache for these must get no prefix from it
_GROWING = "DynamicLayer"  # transformers' layer of a cache that does nothing but grow, and none of its subclasses

Pair = tuple[Tensor, Tensor]


class CacheReading:
    """Two hooks around a stack: while it runs and records no gradients, its insertions know the KV cache that it fills."""

    def __init__(self, current: CurrentPass, sites: list[HeadsSite]) -> None:
        self.current, self.sites = current, sites

    def begin(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """What all layers need to know is looked up here at once: between two of them, a processor forgets where to look."""
        if torch.compiler.is_compiling():
            return
        cache = None if torch.is_grad_enabled() else named(module, args, kwargs).get("past_key_values")
        self.current.reading = cache
        for site in self.sites:
            site.ready = None if cache is None else _ready(site.insertions)

    def end(self, *call: Any) -> None:
        """Also where the pass fails."""
        self.current.reading = None
        for site in self.sites:
            site.ready = site.inside = None


class CrossKeys:
    """Keys and values of cross-attention, which do not grow, behind a `prefix` (each (G, L, E)): (B, G, L + S, E)."""

    def __init__(self, prefix: Pair, keys: Tensor, values: Tensor, whole: Pair, site: HeadsSite) -> None:
        self.prefix, self.whole = prefix, whole
        self.keys, self.values = ref(keys, site.forget), ref(values)
        self.versions = _versions(keys, values)

    def is_behind(self, prefix: Pair, keys: Tensor, values: Tensor) -> bool:
        """Whether it is of these, as they are."""
        same = self.prefix is prefix and self.keys() is keys and self.values() is values
        return same and self.versions == _versions(keys, values)


def _versions(keys: Tensor, values: Tensor) -> tuple[int | None, ...]:
    """Tensors of inference mode have none; there, nobody but who made them changes them."""
    return tuple(None if each.is_inference() else each._version for each in (keys, values))


def may_read_cache(module: nn.Module) -> bool:
    """Whether an attention module takes what its cache holds as it is."""
    forward: Any = inspect.unwrap(type(module).forward)
    return not _LENGTHS & set(forward.__code__.co_names)


def _ready(insertions: list[Insertion]) -> Pair | None:
    """The prefix that a pass which goes on with a KV cache puts before all rows, if it is known and as it was."""
    if len(insertions) != 1:
        return None
    insertion = insertions[0]
    context = insertion.current.context
    if insertion.training or context.own is not None or not context.cached.get(insertion.site.stack):
        return None
    return insertion.still_kept("columns")


def taken_out(site: HeadsSite, key: Tensor, value: Tensor) -> Pair:
    """An attention call's keys and values as the base model knows them."""
    if (prefix := site.inside) is None:
        return key, value
    site.inside, length = None, prefix[0].shape[1]
    return key[:, :, length:], value[:, :, length:]


def with_ready_prefix(
    site: HeadsSite,
    inner: Callable[..., tuple[Tensor, Tensor | None]],
    module: Any,
    tensors: tuple[Tensor, Tensor, Tensor, Tensor | None],
    kwargs: dict[str, Any],
) -> tuple[Tensor, Tensor | None] | None:
    """The wrapped attention of one more token with a prefix in front; None where something depends on the call."""
    query, key, value, mask = tensors
    if query.shape[2] != 1 or len(site.insertions) != 1 or kwargs.get("position_bias") is not None:
        return None
    if kwargs.get("scaling") is None:
        kwargs["scaling"] = query.shape[-1] ** -0.5
    if (prefix := site.inside) is None:
        if (prefix := _kept(site.insertions[0], key.shape[1])) is None:
            return None
        key, value = _behind(prefix, site, module, Heads(query, kwargs["scaling"], key.shape[1]), key, value)
    if mask is not None:
        mask = site.masks.of(mask, prefix[0].shape[1])
    return inner(module, query, key, value, mask, **kwargs)


def _behind(prefix: Pair, site: HeadsSite, module: nn.Module, heads: Heads, key: Tensor, value: Tensor) -> Pair:
    """The prefix before keys and values, and before those in the KV cache, for the next call."""
    if (known := site.cross_keys) is not None and known.is_behind(prefix, key, value):
        return known.whole
    insertion = site.insertions[0]
    made = columns_of(insertion, heads, None)
    whole = torch.cat((made.k_BGLE.to(key.dtype), key), 2), torch.cat((made.v_BGLE.to(value.dtype), value), 2)
    _keep(whole, prefix, site, module, key, value)
    return whole


def begin_behind(whole: Pair, site: HeadsSite, module: nn.Module, key: Tensor, value: Tensor) -> None:
    """Where this pass begins a KV cache with `key` and `value`: keep them behind the prefix, for the tokens that follow."""
    if len(site.insertions) != 1 or site.insertions[0].current.reading is None:
        return
    insertion = site.insertions[0]
    differs = insertion.training or insertion.current.context.own is not None or not _is_of_all(insertion)
    prefix = None if differs else insertion.still_kept("columns")
    if prefix is not None:
        _keep(whole, prefix, site, module, key, value)


def _keep(whole: Pair, prefix: Pair, site: HeadsSite, module: nn.Module, key: Tensor, value: Tensor) -> None:
    """Keep `whole`, which is `key` and `value` behind the prefix, where the KV cache keeps these."""
    cache, number = site.insertions[0].current.reading, getattr(module, "layer_idx", None)
    if cache is None or number is None or not site.reads_cache:
        return
    if _holds(getattr(cache, "cross_attention_cache", None), number, key, value) is not None:
        site.cross_keys = CrossKeys(prefix, key, value, whole, site)
    elif (layer := _holds(getattr(cache, "self_attention_cache", cache), number, key, value)) is not None:
        from unipet.adaptation.prefixed_layer import PrefixedLayer

        PrefixedLayer.takes_over(layer, cache, site, prefix, whole)


def _holds(cache: Any, number: int, key: Tensor, value: Tensor) -> Any:
    """The layer of this number if these are what it holds, and all that it does is grow; else None."""
    layers = getattr(cache, "layers", ())
    if number >= len(layers) or getattr(cache, "offloading", False) or type(layers[number]).__name__ != _GROWING:
        return None
    layer = layers[number]
    return layer if layer.keys is key and layer.values is value else None


def _kept(insertion: Insertion, kv_heads: int) -> Pair | None:
    """Keys and values (G, L, E), the very ones of the call before if they are as they were; None where this call does not go on
    with a KV cache, in evaluation and for all rows, or differs from others."""
    context = insertion.current.context
    if insertion.training or torch.is_grad_enabled() or context.own is not None:
        return None
    goes_on = bool(context.cached.get(insertion.site.stack))
    return kept_columns(insertion, kv_heads) if goes_on and _is_of_all(insertion) else None


def _is_of_all(insertion: Insertion) -> bool:
    """Whether it is a prefix that every example and every query sees alike."""
    parts = insertion.parts
    alike = parts.mixture is None and parts.tokens is None and type(parts.scaling) is Constant
    return alike and parts.composition.shares_softmax
