"""What a forward pass is called with, as far as an adaptation reads it before the pass begins.

All of this happens once for every generated token, so it takes few calls.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor

from unipet.calculus.forward_context import ForwardContext
from unipet.calculus.insertion import Insertion
from unipet.calculus.insertion_parts import InsertionParts

_INPUTS = ("input_ids", "inputs_embeds", "pixel_values")  # what a stack may be called with, batch first


def batch_of(inputs: Mapping[str, Any]) -> Tensor | None:
    """What tells the batch size of a pass: its input, or else the first of its tensors."""
    for name in (*_INPUTS, *inputs):
        if name in inputs and isinstance(value := inputs[name], Tensor):
            return value
    return None


def note(context: ForwardContext, stack: str, tokens: Tensor | None, mask: Any, cache: Any, compiling: bool) -> None:
    """Note the batch size, and where it matters the real tokens and the KV cache, of one stack."""
    if tokens is not None:
        context.rows[stack] = tokens.shape[0]
        if context.own is not None:
            context.own.index(tokens)  # or an error, before anything is computed
    if not compiling:  # or there would be a graph for every length
        context.note_cache(stack, cache)
    if stack in context.masked:
        context.note_tokens(stack, mask, cache)


class MaskedStacks:
    """The stacks of which some insertion needs to know the real tokens."""

    def __init__(self) -> None:
        self._parts: list[InsertionParts] = []
        self._found: frozenset[str] = frozenset()

    def of(self, insertions: Sequence[Insertion], compiling: bool) -> frozenset[str]:
        """Those of these insertions; looked up anew where one is made of other parts than before, as after baking."""
        parts = [] if compiling else [insertion.parts for insertion in insertions]
        if compiling or parts != self._parts:
            found = frozenset(insertion.site.tokens_of for insertion in insertions if insertion.needs_mask)
            if compiling:
                return found
            self._parts, self._found = parts, found
        return self._found
