"""Insertions that a method writes down and does not have: of size 0, or at no layer, for which a design space needs a value; or
an override by a name that is none of its insertions'.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from unipet.calculus.functions import FUNCTIONS
from unipet.calculus.yaml_reader import text_of, value_of
from unipet.errors import UnipetError, nearest


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


def refuse_misnamed(insertions: Mapping[Any, Any], key: str) -> None:
    """Raise UnipetError for what says neither function nor position nor experts, beside insertions that do: an override named it
    wrongly."""
    given = {str(name): value for name, value in insertions.items() if isinstance(value, Mapping)}
    real = [name for name, value in given.items() if "function" in value]
    for name, value in given.items():
        listed = isinstance(value.get("mixture"), Mapping) and isinstance(
            value_of(value["mixture"].get("experts")), list
        )
        if real and value and not {"function", "position"} & set(value) and not listed:
            raise UnipetError(
                f"{key}.{name:.100}: there is no such insertion, and with {', '.join(map(str, value)):.200} alone it is no new "
                f"one. The method has: {', '.join(sorted(real)):.200}.{nearest(name, real)} A new one needs a function and a "
                "position."
            )


def _knob(function: Any) -> str | None:
    """The option that is the size of a function which has one."""
    if not isinstance(function, Mapping):
        return None
    kind = FUNCTIONS.get(str(text_of(function.get("name"))))
    return kind.knob if kind is not None and kind.knob in kind.__dataclass_fields__ else None


def _is_zero(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value == 0
