"""A method's design dimensions as one flat mapping, so that runs can be grouped, filtered and plotted by each of them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

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


def _value(insertion: Mapping[str, Any], path: tuple[str, ...]) -> Any:
    """One insertion's value; a list as text; the bare name where a mapping is short for one."""
    value: Any = insertion
    for key in path:
        value = value.get(key) if isinstance(value, Mapping) else value if key == "name" else None
    return ", ".join(map(str, value)) if isinstance(value, list | tuple) else value
