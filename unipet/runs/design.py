"""The method that a run trained, and its design dimensions as a flat mapping for grouping, filtering and plotting runs."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

from unipet.runs.labels import leaves, option_names, plain
from unipet.runs.record import Record

#: dimension -> the keys that lead to it inside an insertion
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
    """The method as it was trained (`Method.to_dict`), with the sizes fitted to the budget instead of the requested ones.

    This is the record's `composition`. For a record without one, it is the method of `config` (resolved) with the record's
    fitted sizes, or {} if that is missing as well.
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

    A value that all insertions share stands once. Different values are joined by " + " in the order of the insertions. A
    dimension that no insertion has is "none". `size` is a number if all insertions share it, otherwise a text.
    """
    insertions = [one for one in (method.get("insertions") or {}).values() if isinstance(one, Mapping)]
    found: dict[str, Any] = {}
    functions = [function for one in insertions for function in functions_in(one)]
    for dimension, path in DIMENSIONS.items():
        holders = functions if path[0] == "function" else insertions
        values = list(dict.fromkeys(value for one in holders if (value := _value(one, path)) is not None))
        found[dimension] = NONE if not values else values[0] if len(values) == 1 else " + ".join(map(str, values))
    return found


def functions_in(insertion: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """A written insertion, whose `function` says what is computed; or one such mapping for each function of its experts."""
    mixture = insertion.get("mixture")
    experts = mixture.get("experts") if isinstance(mixture, Mapping) else None
    return [{"function": own} for own in experts.values()] if isinstance(experts, Mapping) else [insertion]


def options(method: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Insertion -> every option of it, flat: `{"ffn": {"site": "attn", "function": "bottleneck", "size": 8, ...}}`.

    Options are named as in labels, with `_` for a space. Lists become texts. An insertion that is named like a dimension
    gets a trailing `_`.
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
    """The insertion's value at `path`; a list becomes text. A bare name may stand for a mapping with that `name`."""
    value: Any = insertion
    for key in path:
        value = value.get(key) if isinstance(value, Mapping) else value if key == "name" else None
    return ", ".join(map(str, value)) if isinstance(value, list | tuple) else value
