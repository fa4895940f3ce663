"""What insertions change around a whole stack, not at one site of it: its length, and the positions of its tokens."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import replace
from functools import partial
from typing import Any

from torch import nn

from unipet.adaptation.attention import ATTRIBUTE, is_flash
from unipet.adaptation.position_ids import biased_in, hook_shift, is_biased, takes
from unipet.adaptation.virtual_tokens import Crossing, VirtualTokens, Vocabulary, vocabulary_of
from unipet.calculus.functions.base import Widths
from unipet.calculus.insertion import Insertion
from unipet.calculus.method import InsertionSpec
from unipet.calculus.sites import Architecture, Site, base_of
from unipet.errors import UnipetError

#: A call that makes one change and returns the handle that takes it back (None: nothing to take back).
Change = Callable[[], Any]


def changes(model: nn.Module, insertions: list[Insertion], entries: Mapping[str, str]) -> list[Change]:
    """All changes that the insertions make around their stacks, planned and not yet made.

    `entries` maps every stack of the model to the path of the module that enters it. Raises UnipetError for what a
    stack does not have.
    """
    base, found, seen = base_of(model), list[Change](), set[tuple[str, str]]()
    for insertion in insertions:
        stack, composition = insertion.site.stack, insertion.parts.composition
        if not (
            composition.lengthens
            or getattr(composition, "shift_bias", False)
            or getattr(composition, "shift_positions", False)
        ):
            continue
        module = base.get_submodule(entries[stack])
        key = f"method.insertions.{insertion.name}"
        if composition.lengthens:
            alone = all(name == insertion.name or other != stack for name, other in seen)
            found += _lengthening(model, base, insertion, module, entries, alone)
        if getattr(composition, "shift_bias", False) and insertion.site.role == "attn.heads":
            biased, heads = biased_in(module, key), model.get_submodule(insertion.site.path)
            found.append(partial(_set_biased, heads, biased, False))
        if getattr(composition, "shift_positions", False) and insertion.site.role == "attn.heads" and is_biased(module):
            heads = model.get_submodule(insertion.site.path)
            found.append(partial(_set_biased, heads, biased_in(module, key), True))
        elif getattr(composition, "shift_positions", False) and (insertion.name, stack) not in seen:
            size: int = insertion.parts.function.size  # type: ignore[attr-defined]
            found.append(hook_shift(module, size, key, insertion))
        if composition.lengthens or getattr(composition, "shift_positions", False):
            seen.add((insertion.name, stack))
    return found


def _lengthening(
    model: nn.Module, base: nn.Module, insertion: Insertion, module: nn.Module, entries: Mapping[str, str], alone: bool
) -> list[Change]:
    decoder = entries.get("decoder") if insertion.site.stack == "encoder" else None
    tokens = VirtualTokens(insertion, module, read_on=decoder is not None, alone=alone)
    found: list[Change] = []
    if vocabulary_of(module) is None:
        embedding = model.get_submodule(insertion.site.path)
        found.append(partial(embedding.register_forward_hook, tokens.on_embedding, with_kwargs=True))
    else:
        found.append(partial(module.register_forward_pre_hook, tokens.on_entry, with_kwargs=True))
    if decoder is not None:
        crossing = Crossing(tokens)
        found.append(partial(base.get_submodule(decoder).register_forward_pre_hook, crossing, with_kwargs=True))
    # The last that came in leaves first.
    return [*found, partial(module.register_forward_hook, tokens.on_exit, with_kwargs=True, prepend=True)]


def why_not_by_row(model: nn.Module, insertion: Insertion, entries: Mapping[str, str]) -> str | None:
    """What of it some rows of a batch cannot have without the others, or None."""
    composition = insertion.parts.composition
    if insertion.site.expert is not None:
        return "is inside of experts, where the tokens of all rows meet"
    if composition.lengthens:
        return _why_not_hidden(base_of(model).get_submodule(entries[insertion.site.stack]), insertion)
    if not insertion.site.role.endswith("heads"):
        return None
    module = base_of(model).get_submodule(entries[insertion.site.stack])
    if composition.shares_softmax and is_flash(model.get_submodule(insertion.site.path)):
        return "stands in front of some rows only, and a flash attention kernel takes no mask that says so"
    moved = getattr(composition, "shift_positions", False)
    if getattr(composition, "shift_bias", False) or (moved and is_biased(module)):
        return "moves the relative position bias, which all rows share"
    return None


def _why_not_hidden(module: nn.Module, insertion: Insertion) -> str | None:
    """Why the tokens that an insertion adds to the stack of `module` cannot be hidden from other rows, or None."""
    composition: Any = insertion.parts.composition
    if composition.keep_outputs:
        return "keeps the outputs at its tokens (keep_outputs), and the other rows have none there"
    if vocabulary_of(module) is None:
        return f"adds tokens to the sequence, and {type(module).__name__} takes no mask that hides them from other rows"
    if insertion.site.causal and not takes(module, "position_ids") and not is_biased(module):
        return f"adds tokens to the sequence, and {type(module).__name__} takes no position_ids to count without them"
    return None


def stacks_of(model: nn.Module, table: Architecture) -> list[str]:
    """The stacks of the table that this model has (one that has only the encoder of two, for example)."""
    found = []
    for name, stack in table.stacks.items():
        with suppress(AttributeError):
            base_of(model).get_submodule(stack.layers)
            found.append(name)
    return found


def lengthened(
    model: nn.Module, table: Architecture, spec: InsertionSpec, sites: list[Site], widths: list[Widths]
) -> tuple[list[Site], list[Widths]]:
    """Of the embedded inputs those that `spec` means (`stack: all` is the first: an encoder-decoder's encoder), with
    the width of the token embeddings, which some models project."""
    chosen = [i for i, site in enumerate(sites) if spec.position.stack != "all" or site.stack == sites[0].stack]
    result = []
    for number in chosen:
        site = sites[number]
        if site.causal and getattr(spec.composition, "after", "") == "first":
            raise UnipetError(
                f"method.insertions.{spec.name}.composition.after: in a causal stack the first token of a padded row "
                "is padding. Use start."
            )
        known = vocabulary_of(entry_of(model, table, site))
        width = int(known.weight().shape[1]) if known is not None else widths[number].h
        result.append(replace(widths[number], u=width, h=width))
    return [sites[number] for number in chosen], result


def vocabulary(model: nn.Module, table: Architecture, site: Site, key: str) -> Vocabulary:
    """The token embedding that tokens start from. Raises UnipetError where there is none."""
    known = vocabulary_of(entry_of(model, table, site))
    if known is None:
        raise UnipetError(f"{key}.function.init: {table.name} reads no tokens, so it has no vocab. Use bert or torch.")
    return known


def entry_of(model: nn.Module, table: Architecture, site: Site) -> nn.Module:
    """The module whose forward begins the stack of a site."""
    return base_of(model).get_submodule(table.stacks[site.stack].entry)


def _set_biased(heads: nn.Module, biased: Any, behind: bool) -> None:
    site = getattr(heads, ATTRIBUTE)
    site.biased, site.behind = biased, behind
