"""What peft calls its prompt-learning types: prefixes inside attention and tokens in the input, one table for the model."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from unipet.adaptation.adapted import Adaptation
from unipet.adaptation.peft.form import factor_of
from unipet.calculus.composition import Concat, Gated
from unipet.calculus.functions.prefix import Prefix
from unipet.calculus.functions.prompt import Prompt
from unipet.calculus.insertion import Insertion
from unipet.calculus.sites import ARCHITECTURES, architecture_of
from unipet.errors import UnipetError

#: The tensor that holds the prefixes of all layers, or the tokens.
TABLE = "prompt_embeddings"
PREFIX, TOKENS = "PREFIX_TUNING", "PROMPT_TUNING"
FIRST_FROZEN = "CARTRIDGE"  # a prefix whose first positions do not train
KINDS = (PREFIX, TOKENS, FIRST_FROZEN)
#: Keys of the configuration that `method_of` understands, or that follow from the base model.
READS = (
    "num_virtual_tokens", "token_dim", "num_attention_heads", "num_layers", "num_transformer_submodules",
    "encoder_hidden_size", "prompt_tuning_init", "num_frozen_tokens",
)  # fmt: skip


def why_not(insertions: list[Insertion], model: nn.Module) -> str | None:
    """Why peft cannot say these virtual tokens; None if it can."""
    parts = insertions[0].parts
    if isinstance(parts.function, Prompt):
        composition = parts.composition
        if not isinstance(composition, Concat) or composition.after != "start" or not composition.keep_outputs:
            return (
                "peft puts tokens first and keeps their outputs "
                "(composition: {name: concat, after: start, keep_outputs: true})"
            )
        return None
    if (
        not isinstance(parts.composition, Gated)
        or not parts.composition.shift_positions
        or parts.composition.shift_bias
    ):
        return "peft's past keys move the real tokens' positions (composition: {name: gated, shift_positions: true})"
    stacks = architecture_of(model, ARCHITECTURES).stacks
    layers = sorted(i.site.layer for i in insertions if i.site.layer is not None)
    count = int(model.config.num_hidden_layers)  # type: ignore[union-attr, arg-type]
    if len(stacks) != 1 or layers != list(range(count)):
        return "peft's prefix is for every layer of a model of one stack"
    return None


def config(inserted: Adaptation, model: nn.Module) -> dict[str, Any]:
    """The configuration's options."""
    first = inserted.items[0]
    hidden, heads, kv_heads, head_dim = next(iter(architecture_of(model, ARCHITECTURES).stacks.values())).geometry(
        model.config
    )
    prefix = isinstance(first.parts.function, Prefix)
    fixed: int = getattr(first.parts.function, "freeze_first", 0)
    given = {
        "peft_type": FIRST_FROZEN if fixed else PREFIX if prefix else TOKENS,
        "num_virtual_tokens": getattr(first.parts.function, "size", 0),
        "token_dim": kv_heads * head_dim if prefix else hidden,
        "num_attention_heads": kv_heads if prefix else heads,
        "num_layers": int(model.config.num_hidden_layers),  # type: ignore[union-attr, arg-type]
        "num_transformer_submodules": 1,
    }
    if fixed:
        return {**given, "num_frozen_tokens": fixed}
    return {**given, **({"prefix_projection": False} if prefix else {"prompt_tuning_init": "RANDOM"})}


def table(inserted: Adaptation) -> Tensor:
    """`prompt_embeddings`: tokens (l, d), or (l, layers · 2 · d_kv) with keys and values of a layer side by side."""
    items = sorted(inserted.items, key=lambda i: i.site.layer or 0)
    if isinstance(items[0].parts.function, Prompt):
        return items[0].reduced()["tokens"] * factor_of(items[0])
    columns: list[Tensor] = []
    for item in items:
        own, factor, function = item.reduced(), factor_of(item), item.parts.function
        assert isinstance(function, Prefix)
        keys, values = (function.whole(own, slot) for slot in ("keys", "values"))
        columns += [keys * factor if function.scale_keys else keys, values * factor]
    return torch.cat(columns, dim=1)


def method_of(config: Mapping[str, Any]) -> dict[str, Any]:
    """The insertion that computes what peft does with this configuration."""
    size = config["num_virtual_tokens"]
    if config["peft_type"] == TOKENS:
        composition = {"name": "concat", "after": "start", "keep_outputs": True}
        return {"function": {"name": "prompt", "size": size}, "position": {"site": "embed"}, "composition": composition}
    composition = {"name": "gated", "shift_positions": True}
    function = {"name": "prefix", "size": size, "freeze_first": config.get("num_frozen_tokens") or 0}
    return {"function": function, "position": {"site": "attn.heads"}, "composition": composition}


def check_names(source: Path, tensors: Mapping[str, Tensor]) -> None:
    """Raise UnipetError unless the one tensor is `prompt_embeddings`."""
    if TABLE not in tensors:
        raise UnipetError(f"{source}: its {TABLE} are missing.")
    if extra := [name for name in tensors if name != TABLE]:
        raise UnipetError(f"{source}: {extra[0]} has no place here beside the {TABLE}.")


def assign(inserted: Adaptation, embeddings: Tensor, source: Path) -> dict[int, dict[str, Tensor]]:
    """The slots of each insertion, by its number. Positions that do not train are put in place here.

    Raises UnipetError if the table is another model's.
    """
    items = sorted(inserted.items, key=lambda i: i.site.layer or 0)
    if isinstance(items[0].parts.function, Prompt):
        return {items[0].number: {"tokens": embeddings}}
    expected = (getattr(items[0].parts.function, "size", 0), sum(2 * item.widths.kv for item in items))
    if tuple(embeddings.shape) != expected:
        raise UnipetError(
            f"{source} does not fit this model: {TABLE} {tuple(embeddings.shape)} there, {expected} here."
        )
    pieces = embeddings.chunk(2 * len(items), dim=1)
    found: dict[int, dict[str, Tensor]] = {}
    for n, item in enumerate(items):
        whole = {"keys": pieces[2 * n], "values": pieces[2 * n + 1]}
        fixed: int = getattr(item.parts.function, "freeze_first", 0)
        for name, tensor in item.bank.frozen().items():
            tensor.copy_(whole[name.removeprefix("first_")][:fixed])
        found[item.number] = {slot: tensor[fixed:] for slot, tensor in whole.items()}
    return found
