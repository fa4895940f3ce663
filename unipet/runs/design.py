"""The method that a run trained, and its design dimensions flat, so that runs can be grouped, filtered and plotted by them."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

from unipet.runs.record import Record
from unipet.runs.labels import leaves, option_names, plain

#: dimension -> where an insertion has it
DIMENSIONS: dict[str, tuple[str, ...]] = {
    "function": ("function", "name"),
    "size": ("function", "size"),
    "position": ("position", "site"),
    "form": ("position", "form"),
    "composition": ("composition", "name"),
    "scaling": ("scaling", "name"),
    "mixture": ("mixture", "router"),
}
NONE = "none"


def trained(record: Record, config: Mapping[str, Any]) -> dict[str, Any]:
    """The method as it was trained (`Method.to_dict`): with the sizes that a budget solved, not those asked for.

    The record's `composition`; a record without one has what `config` (resolved) says, with the record's fitted sizes in
    place. {} where neither tells.
    """
    method = config.get("method")
    if record.composition is not None:
        return dict(record.composition)
    if not isinstance(method, Mapping):
        return {}
    found = copy.deepcopy(dict(method))
    for key, size in record.fitted.sizes.items():
        _, *path, option = key.split(".")  # method.insertions.NAME.function.OPTION
        at: Any = found
        for part in path:
            at = at.get(part) if isinstance(at, Mapping) else None
        if isinstance(at, dict):
            at[option] = size
    return found


def design(method: Mapping[str, Any]) -> dict[str, Any]:
    """`{"function": "low_rank", "size": 16, "position": "attn.q, attn.v", ...}` of a resolved method (`Method.to_dict`).

    Insertions that agree give their value once; others are joined by " + " in the order of the insertions; what no
    insertion has is "none". `size` is a number where all agree, else a text.
    """
    insertions = [one for one in (method.get("insertions") or {}).values() if isinstance(one, Mapping)]
    found: dict[str, Any] = {}
    for dimension, path in DIMENSIONS.items():
        values = list(dict.fromkeys(value for one in insertions if (value := _value(one, path)) is not None))
        found[dimension] = NONE if not values else values[0] if len(values) == 1 else " + ".join(map(str, values))
    return found


def options(method: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Insertion -> every option of it, flat: `{"ffn": {"site": "attn", "function": "bottleneck", "size": 8, ...}}`.

    Called as in labels, with `_` for a space; lists are texts. An insertion with the name of a dimension gets a `_` behind it.
    """
    found = {}
    for name, insertion in (method.get("insertions") or {}).items():
        flat = leaves({"method": {"insertions": {name: insertion}}})
        called = option_names(flat, [flat])
        found[f"{name}_" if name in DIMENSIONS else str(name)] = {
            called[key].replace(" ", "_"): plain(value) if isinstance(value, list) else value
            for key, value in flat.items()
        }
    return found


def _value(insertion: Mapping[str, Any], path: tuple[str, ...]) -> Any:
    """One insertion's value; a list as text; the bare name where a mapping is short for one."""
    value: Any = insertion
    for key in path:
        value = value.get(key) if isinstance(value, Mapping) else value if key == "name" else None
    return ", ".join(map(str, value)) if isinstance(value, list | tuple) else value
