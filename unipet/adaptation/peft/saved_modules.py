"""Whole modules that train beside an adapter (`modules_to_save`): the task's head, and unfrozen parts of the base model."""

from __future__ import annotations

from collections.abc import Collection
from itertools import combinations
from pathlib import Path

from torch import nn

from unipet.adaptation.adapted import Adaptation
from unipet.adaptation.build import unfrozen
from unipet.adaptation.untying import owners_of
from unipet.calculus.method import parse_method
from unipet.errors import UnipetError

_PARTS = ("embeddings", "norm", "bias")


def saved_modules(model: nn.Module, inserted: Adaptation) -> list[str]:
    """The largest modules of which everything is the task's head or trains; peft holds whole modules.

    Raises UnipetError for a parameter that trains in a module in which others do not, and for one that is shared.
    """
    named = {name: each for name, each in model.named_parameters() if not name.startswith("_unipet")}
    own = inserted.head | inserted.unfrozen.keys()
    others, owners = named.keys() - own, owners_of(model)
    found: dict[str, None] = {}
    for name in sorted(own):
        part = inserted.unfrozen.get(name, "head")
        if owners[id(named[name])] > 1:
            raise refuse(f"it trains {name} (unfreeze: {part}), which other modules share, and peft would train a copy")
        path = name.split(".")
        starts = [".".join(path[:count]) for count in range(1, len(path))]
        whole = (start for start in starts if not any(other.startswith(f"{start}.") for other in others))
        if (module := next(whole, None)) is None:
            if part == "head":
                raise refuse(f"{name} is drawn with the head, and peft holds whole modules alone")
            raise refuse(
                f"it trains parts of the base model (unfreeze: {part}), of {name.rpartition('.')[0] or 'the model'} not all, "
                "and peft holds whole modules alone"
            )
        found[module] = None
    for item in inserted.items:
        if inside := next((path for path in found if f"{item.site.path}.".startswith(f"{path}.")), None):
            raise refuse(f"{item.name} is inserted in {inside}, all of which trains, and peft does one of the two")
    return list(found)


def refuse(why: str) -> UnipetError:
    """The error for a method that peft cannot express."""
    return UnipetError(f"peft cannot express this method: {why}. Save it with unipet.save, or unipet.merge it.")


def parts_of(model: nn.Module, source: Path, stored: Collection[str], head: frozenset[str]) -> list[str]:
    """What a method unfreezes whose trained base parameters, apart from the head, are exactly those `stored`.

    Raises UnipetError where no parts of `unfreeze` are these.
    """
    wanted, owners = {name for name in stored if name not in head}, owners_of(model)
    if tied := [name for name, each in model.named_parameters() if name in wanted and owners[id(each)] > 1]:
        raise UnipetError(
            f"{source}: modules_to_save: {tied[0]} is shared with other modules here, and a module of its own there. Load the "
            "base model with tie_word_embeddings=False."
        )
    heads = ["head"] if len(wanted) < len(stored) else []
    if not wanted:
        return heads
    for count in range(1, len(_PARTS) + 1):
        for parts in combinations(_PARTS, count):
            method = parse_method({"name": "imported", "insertions": {}, "unfreeze": list(parts)})
            try:
                found = unfrozen(model, method, head)
            except UnipetError:
                continue  # this model has no such part
            if found.keys() - head == wanted:
                return [*heads, *parts]
    shown = ", ".join(sorted(wanted)[:3])
    raise UnipetError(
        f"{source}: modules_to_save: {shown} train there, and no parts of unfreeze ({', '.join(_PARTS)}) are these here. Merge "
        "the adapter in peft (merge_and_unload), and start from the merged model."
    )
