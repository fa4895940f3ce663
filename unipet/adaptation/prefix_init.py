"""One pass of the frozen base model over a text, before training: the keys and values that a prefix starts from.

Shapes: S tokens of the text, G key/value heads, E head width, K width of all keys.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from unipet.adaptation.attention import ATTRIBUTE, HeadsSite, wrap_implementation
from unipet.adaptation.position_ids import takes
from unipet.adaptation.virtual_tokens import position_limit, vocabulary_of
from unipet.calculus.insertion import Insertion
from unipet.calculus.insertion_parts import inside
from unipet.calculus.sites import Architecture, base_of
from unipet.errors import UnipetError

#: path of an attention module -> its keys and values of the text, (S, K) each
Seen = dict[str, tuple[Tensor, Tensor]]


@torch.no_grad()
def start_from_text(model: nn.Module, table: Architecture, insertions: list[Insertion]) -> None:
    """Start what starts from the base model's keys and values of a text; each stack reads it by itself.

    The model is left as it was. On the meta device the text is checked and not read. Raises UnipetError where a stack
    reads no tokens, or not these.
    """
    groups: dict[tuple[str, str], list[Insertion]] = {}
    for one in insertions:
        if one.parts.function.starts_from_text:
            groups.setdefault((one.name, one.site.stack), []).append(one)
    for (name, stack), own in groups.items():
        key = f"method.insertions.{name}"
        entry: Any = base_of(model).get_submodule(table.stacks[stack].entry)
        ids = _ids(entry, table, own, key)
        device = entry.get_input_embeddings().weight.device
        if device.type == "meta":
            continue
        with torch.device(device), _watched(model, own) as seen, _evaluating(entry):
            given = {"use_cache": False} if takes(entry, "use_cache") else {}
            ids_1S = torch.tensor([ids])
            entry(input_ids=ids_1S, attention_mask=torch.ones_like(ids_1S), **given)
        for one in own:
            for params in one.bank.copies():
                one.parts.function.start_from_heads(params, *seen[one.site.path])


def _ids(entry: Any, table: Architecture, own: list[Insertion], key: str) -> list[int]:
    """The ids of the text. Raises UnipetError where the stack that `entry` enters cannot read it."""
    if vocabulary_of(entry) is None:
        raise UnipetError(f"{key}.function.init: {table.name} reads no tokens to start from. Use bert or torch.")
    crossing = next((one.site.role for one in own if one.site.role != "attn.heads"), None)
    if crossing is not None:
        raise UnipetError(
            f"{key}.position.site: {crossing} has the keys of another stack's text; function.init: tokens starts "
            "from the stack's own. Use attn.heads."
        )
    try:
        ids = own[0].parts.function.text(entry.get_input_embeddings().num_embeddings)
    except UnipetError as error:
        raise inside(key, error) from None
    limit = position_limit(entry)
    if limit is not None and len(ids) > limit:
        raise UnipetError(
            f"{key}.function: a text of {len(ids)} tokens does not fit into the {limit} positions of this base model. "
            "Give fewer function.ids, or set a smaller function.size."
        )
    return ids


@contextmanager
def _watched(model: nn.Module, own: list[Insertion]) -> Iterator[Seen]:
    """Record the keys and values that the attention modules of these insertions compute inside the block."""
    modules: dict[str, Any] = {one.site.path: model.get_submodule(one.site.path) for one in own}
    wrapped = {path: wrap_implementation(module, path) for path, module in modules.items()}
    before = [(module.config, module.config._attn_implementation) for module in modules.values()]
    seen: Seen = {}
    try:
        for path, module in modules.items():
            site = HeadsSite()
            site.watch = _keep(seen, path)
            setattr(module, ATTRIBUTE, site)
            module.config._attn_implementation = wrapped[path]
        yield seen
    finally:
        for module in modules.values():
            if hasattr(module, ATTRIBUTE):
                delattr(module, ATTRIBUTE)
        for config, implementation in reversed(before):
            config._attn_implementation = implementation


def _keep(seen: Seen, path: str) -> Any:
    def watch(k_1GSE: Tensor, v_1GSE: Tensor) -> None:
        k_SK, v_SK = (tensor[0].transpose(0, 1).flatten(1) for tensor in (k_1GSE, v_1GSE))
        seen[path] = k_SK, v_SK

    return watch


@contextmanager
def _evaluating(entry: nn.Module) -> Iterator[None]:
    training = [module for module in entry.modules() if module.training]
    try:
        entry.eval()
        yield
    finally:
        for module in training:
            module.training = True
