"""The positions of a stack's tokens: the model's own where the user gives none, and moving them behind a prefix.

Shapes: B batch, T tokens of this pass, S tokens including the KV cache.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from functools import cache, partial
from typing import Any

import torch
from torch import Tensor, nn

from unipet.calculus.insertion import Insertion
from unipet.errors import UnipetError


def named(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> dict[str, Any]:
    """The arguments of a call of `module` by name."""
    if not args:  # as transformers calls most stacks
        return {**kwargs}
    return {**dict(zip(arguments_of(type(module).forward), args, strict=False)), **kwargs}


def takes(module: nn.Module, name: str) -> bool:
    """Whether the module's forward has an argument of this name."""
    return name in arguments_of(type(module).forward)


def arguments_of(forward: Callable[..., Any]) -> list[str]:
    """The names of the arguments of a forward call, in order."""
    return _read(forward) if torch.compiler.is_compiling() else _kept(forward)  # tracing does not enter a cache


def _read(forward: Callable[..., Any]) -> list[str]:
    return list(inspect.signature(forward).parameters)[1:]


_kept = cache(_read)


def past_of(arguments: dict[str, Any]) -> int:
    """How many tokens the KV cache of a call holds."""
    cache = arguments.get("past_key_values")
    return 0 if cache is None else int(cache.get_seq_length())


def tokens_of(arguments: dict[str, Any]) -> Tensor:
    """The input of a call, (B, T, ...): its ids or its embeddings."""
    ids: Tensor | None = arguments.get("input_ids")
    return ids if ids is not None else arguments["inputs_embeds"]


def padding_counter(module: nn.Module) -> Any:
    """The embeddings that count positions from their padding index over real tokens (RoBERTa's), or None. It looks at every
    module below this one: ask once, not at each call."""
    counts = "create_position_ids_from_input_ids"
    return next((one for one in module.modules() if hasattr(one, counts) and hasattr(one, "padding_idx")), None)


def positions(module: nn.Module, arguments: dict[str, Any], counter: Any) -> Tensor:
    """The position ids of a call of the stack's entry module, (B or 1, T): those given, else the model's own. `counter` is the
    module's `padding_counter`."""
    if isinstance(own := arguments.get("position_ids"), Tensor):
        return own
    past, tokens = past_of(arguments), tokens_of(arguments)
    ids_BT = arguments.get("input_ids")
    if counter is not None and ids_BT is not None:
        counted: Tensor = counter.create_position_ids_from_input_ids(ids_BT, counter.padding_idx, past)
        return counted
    mask_BS = arguments.get("attention_mask")
    learned = getattr(module, "embed_positions", None)
    if mask_BS is not None and learned is not None and takes(learned, "attention_mask"):  # OPT counts real tokens
        return (mask_BS.long().cumsum(1) * mask_BS.long() - 1)[:, past:]
    first = past if counter is None else past + counter.padding_idx + 1
    return torch.arange(first, first + tokens.shape[1], device=tokens.device).unsqueeze(0)


class Shift:
    """A pre-hook that moves all positions by `by`: on a stack's entry module, or on a position embedding that counts
    by itself."""

    def __init__(self, by: int, insertion: Insertion, module: nn.Module):
        self.by, self.insertion, self.counter = by, insertion, padding_counter(module)

    def on_entry(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        given = named(module, args, kwargs)
        found, own = positions(module, given, self.counter), self.insertion.current.context.own
        if own is None:
            return (), {**given, "position_ids": found + self.by}
        found_BT = found.expand(len(tokens_of(given)), -1)
        return (), {**given, "position_ids": own.put(found_BT, own.pick(found_BT) + self.by)}

    def on_embedded(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Tensor) -> Tensor:
        """On the embedding's output: the own rows once more, with their positions."""
        context = self.insertion.context
        assert context.own is not None
        rows, (args, kwargs) = context.rows[self.insertion.site.stack], self.on_embedding(module, args, kwargs)
        whole, moved = (each.expand(rows, *each.shape[-2:]) for each in (output, module.forward(*args, **kwargs)))
        return context.own.put(whole, context.own.pick(moved))

    def on_embedding(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        given = named(module, args, kwargs)
        if given.get("position_ids") is not None:
            return (), {**given, "position_ids": given["position_ids"] + self.by}
        return (), {**given, "past_key_values_length": given.get("past_key_values_length", 0) + self.by}


def hook_shift(module: nn.Module, by: int, key: str, insertion: Insertion) -> Callable[[], Any]:
    """A call that hooks a shift of positions onto the stack that `module` enters. Raises UnipetError if it has no positions."""
    if takes(module, "position_ids"):
        return partial(module.register_forward_pre_hook, Shift(by, insertion, module).on_entry, with_kwargs=True)
    embedding = getattr(module, "embed_positions", None)
    if embedding is None:
        raise UnipetError(
            f"{key}.composition.shift_positions: {type(module).__name__} has no positions to shift. Use false."
        )
    if insertion.current.beside:  # by row: other adaptations share the batch
        return partial(embedding.register_forward_hook, Shift(by, insertion, module).on_embedded, with_kwargs=True)
    return partial(embedding.register_forward_pre_hook, Shift(by, insertion, module).on_embedding, with_kwargs=True)


def is_biased(module: nn.Module) -> bool:
    """Whether positions enter a stack as a relative position bias (T5's) alone."""
    return any(getattr(one, "has_relative_attention_bias", False) for one in module.modules())


def biased_in(module: nn.Module, key: str) -> Any:
    """The attention module that computes the relative position bias of a stack. Raises UnipetError if there is none."""
    for one in module.modules():
        if getattr(one, "has_relative_attention_bias", False):
            return one
    raise UnipetError(
        f"{key}.composition.shift_bias: {type(module).__name__} has no relative position bias (T5 has) to shift."
    )
