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
from typing import Any
from weakref import ref

import torch
from torch import Tensor, nn

from unipet.adaptation.at_heads import blocks_of, changed, narrowed, prepended
from unipet.adaptation.attention_call import InnerCall
from unipet.adaptation.ready_prefix import CrossKeys, Pair, taken_out, with_ready_prefix
from unipet.adaptation.wide_masks import WideMasks
from unipet.calculus.functions.base import Heads
from unipet.calculus.insertion import Insertion
from unipet.calculus.own_rows import Cut
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
        self.reads_cache = False  # whether its module takes what a KV cache holds as it is
        self.ready: Pair | None = None  # the prefix of all rows in the pass that goes on
        self.inside: Pair | None = None  # the prefix that stands before the keys of the current call already
        self.cross_keys: CrossKeys | None = None  # keys that do not grow, behind a prefix
        self.masks = WideMasks()  # the same for all sites of an adaptation
        self.watch: Callable[[Tensor, Tensor], None] | None = (
            None  # called with the keys and values of every attention call
        )

    def goes_on_with(self, prefix: Pair, cache: Any) -> bool:
        """Whether the call that goes on has `prefix` before what `cache` holds; its keys then come with it."""
        same = self.ready is prefix and self.insertions[0].current.reading is cache
        self.inside = prefix if same else None
        return same

    def forget(self, gone: ref[Tensor]) -> None:
        """The cache has other keys now, or is gone."""
        if self.cross_keys is not None and self.cross_keys.keys is gone:
            self.cross_keys = None

    def __getstate__(self) -> dict[str, Any]:
        return {**vars(self), "x": {}, "ready": None, "inside": None, "cross_keys": None}  # a copy is in no call


class Attention:
    """A registered attention function: the wrapped implementation with insertions. Called by transformers."""

    def __init__(self, implementation: str):
        from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

        self.implementation, self.flash = implementation, implementation.startswith("flash")
        self.eager = implementation == "eager"
        self._known = ALL_ATTENTION_FUNCTIONS

    def _inner(self, module: nn.Module) -> Callable[..., tuple[Tensor, Tensor | None]]:
        if not self.eager:
            return self._known[self.implementation]
        # Each modelling file brings its own eager attention; the interface only knows the others.
        inner: Callable[..., tuple[Tensor, Tensor | None]] = _namespace(module)["eager_attention_forward"]
        return inner

    def __call__(
        self, module: nn.Module, query: Tensor, key: Tensor, value: Tensor, attention_mask: Tensor | None, **kwargs: Any
    ) -> tuple[Tensor, Tensor | None]:
        inner, seen = self._inner(module), module
        if self.flash:
            # It loads its kernel by the name that it reads from the configuration.
            seen = _Seen(module, config=_Seen(module.config, _attn_implementation=self.implementation))  # type: ignore[assignment]
        site: HeadsSite | None = getattr(module, ATTRIBUTE, None)
        if site is not None and site.watch is not None:
            site.watch(key, value)
        if site is None or not site.insertions:
            return inner(seen, query, key, value, attention_mask, **kwargs)
        try:
            tensors = query, key, value, attention_mask
            if not self.flash and (found := with_ready_prefix(site, inner, seen, tensors, kwargs)) is not None:
                return found
            tensors = query, *taken_out(site, key, value), attention_mask
            if (blocks := blocks_of(site.insertions, query)) is None:
                return self._with(site.insertions, inner, seen, tensors, kwargs, site)
            # Attention multiplies by no weights: each block on its own costs as much, and sees no other's columns.
            calls = []
            cut, inside = blocks
            for number, insertions in enumerate(inside):
                own, named = narrowed(tensors, kwargs, cut, number)
                calls.append(self._with(insertions, inner, seen, own, named, site, (cut, number)))
            weights = [weights for _, weights in calls if weights is not None]
            return torch.cat([h for h, _ in calls]), torch.cat(weights) if len(weights) == len(calls) > 0 else None
        finally:
            if site.x:
                site.x.clear()
            site.inside = None

    def _with(
        self,
        insertions: list[Insertion],
        inner: Callable[..., tuple[Tensor, Tensor | None]],
        module: nn.Module,
        tensors: tuple[Tensor, Tensor, Tensor, Tensor | None],
        kwargs: dict[str, Any],
        site: HeadsSite,
        block: tuple[Cut, int] | None = None,
    ) -> tuple[Tensor, Tensor | None]:
        """The wrapped attention with these insertions; `block`: the tensors are that block of the batch, and so is x."""
        query, key, value, mask = tensors
        heads = Heads(query, kwargs.get("scaling") or query.shape[-1] ** -0.5, key.shape[1])
        kwargs["scaling"] = heads.factor
        xs = site.x
        reading = [(insertion, xs.get(insertion.site.x_path) if xs else None) for insertion in insertions]
        if block is not None:
            cut, number = block
            reading = [(insertion, None if x is None else cut.pieces(x)[number]) for insertion, x in reading]
        apart = block is not None
        call = InnerCall(inner, self.implementation, module, heads, key, value, mask, kwargs, site)
        columns = [
            prepended(insertion, heads, x, apart)
            for insertion, x in reading
            if insertion.parts.composition.shares_softmax
        ]
        h, weights = call.with_columns(columns)
        for insertion, x in reading:
            if not insertion.parts.composition.shares_softmax:
                h = changed(insertion, h.flatten(2), x, heads, apart).view_as(h)
        return h, weights


class _Seen:
    """An object seen as if some of its attributes had other values."""

    def __init__(self, of: Any, **attributes: Any):
        self._of = of
        for name, value in attributes.items():
            setattr(self, name, value)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._of, name)


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
