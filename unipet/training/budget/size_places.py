"""Where the sizes of a method stand: in an insertion's function, or in those of its experts where these differ."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from unipet.calculus.functions.base import Function
from unipet.calculus.method import InsertionSpec, Method
from unipet.calculus.mixture.expert_functions import ExpertFunctions


def parts_of(spec: InsertionSpec) -> list[tuple[str | None, InsertionSpec]]:
    """An insertion, or each expert of its mixture of functions as an insertion."""
    function = spec.function
    if not isinstance(function, ExpertFunctions):
        return [(None, spec)]
    experts = zip(function.names, function.experts, strict=True)
    return [(name, replace(spec, function=own, mixture=None)) for name, own in experts]


def place_of(spec: InsertionSpec, expert: str | None) -> str:
    """The name of an insertion, or of one of its experts."""
    return spec.name if expert is None else f"{spec.name}.{expert}"


def key_of(spec: InsertionSpec, expert: str | None) -> str:
    """The option of the size of an insertion, or of one of its experts (as in `parts_of`), as written in an override."""
    own = "function" if expert is None else f"mixture.experts.{expert}"
    return f"method.insertions.{spec.name}.{own}.{spec.function.knob}"


def sizes_of(method: Method) -> dict[str, int]:
    """Every size of a method by its option."""
    found: dict[str, int] = {}
    for expert, spec in (part for one in method.insertions for part in parts_of(one)):
        value = getattr(spec.function, spec.function.knob, None)
        if isinstance(value, int) and not isinstance(value, bool):
            found[key_of(spec, expert)] = value
    return found


def with_sizes(method: Method, sizes: Mapping[str, int]) -> Method:
    """`method` with other sizes; `sizes` maps the names of insertions and experts (`place_of`) to their new sizes."""

    def resized(function: Function, place: str) -> Function:
        if isinstance(function, ExpertFunctions):
            experts = zip(function.names, function.experts, strict=True)
            return replace(function, experts=tuple(resized(own, f"{place}.{name}") for name, own in experts))
        return function.with_knob(sizes[place]) if place in sizes else function

    own = (replace(spec, function=resized(spec.function, spec.name)) for spec in method.insertions)
    return replace(method, insertions=tuple(own))
