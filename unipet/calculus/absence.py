"""Insertions that a method writes down and does not have: of size 0, or at no layer. A design space needs a value for that."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from unipet.calculus.functions import FUNCTIONS
from unipet.calculus.yaml_reader import text_of, value_of


def is_absent(insertion: Any) -> bool:
    """Whether the size of its function is 0, or its list of layers is empty. Anything malformed is present, for the parser."""
    if not isinstance(insertion, Mapping):
        return False
    function, position = insertion.get("function"), insertion.get("position")
    knob = _knob(function)
    sizeless = isinstance(function, Mapping) and knob is not None and _is_zero(value_of(function.get(knob)))
    return sizeless or (isinstance(position, Mapping) and value_of(position.get("layers")) == [])


def without_absence(insertion: Mapping[str, Any]) -> dict[str, Any]:
    """The same with the default size and at all layers, to be checked like any other."""
    function, position = insertion.get("function"), insertion.get("position")
    knob = _knob(function)
    changed = dict(insertion)
    if knob is not None and isinstance(function, Mapping) and _is_zero(value_of(function.get(knob))):
        changed["function"] = {key: value for key, value in function.items() if key != knob}
    if isinstance(position, Mapping) and value_of(position.get("layers")) == []:
        changed["position"] = {key: value for key, value in position.items() if key != "layers"}
    return changed


def _knob(function: Any) -> str | None:
    """The option that is the size of a function which has one."""
    if not isinstance(function, Mapping):
        return None
    kind = FUNCTIONS.get(str(text_of(function.get("name"))))
    return kind.knob if kind is not None and kind.knob in kind.__dataclass_fields__ else None


def _is_zero(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value == 0
