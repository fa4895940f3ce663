"""Modification functions by name. One family per file; out-of-tree ones join through `register_function`."""

from __future__ import annotations

import dataclasses

from unipet.errors import UnipetError
from unipet.functions.base import Function
from unipet.functions.bottleneck import Bottleneck
from unipet.functions.low_rank import LowRank
from unipet.functions.prefix import Prefix
from unipet.functions.vector import Vector

FUNCTIONS: dict[str, type[Function]] = {
    "low_rank": LowRank,
    "bottleneck": Bottleneck,
    "prefix": Prefix,
    "vector": Vector,
}


def register_function(name: str, function: type[Function]) -> None:
    """Make a function of your own known by name to every method file.

    `function` is a frozen dataclass deriving from `unipet.functions.base.Function`. Raises UnipetError if the name is
    taken by another class or the class is not such a dataclass.
    """
    if not (isinstance(function, type) and issubclass(function, Function) and dataclasses.is_dataclass(function)):
        raise UnipetError(
            f"register_function({name!r}): expected a dataclass deriving from Function, got {function!r}."
        )
    if FUNCTIONS.get(name, function) is not function:
        raise UnipetError(
            f"register_function({name!r}): the name belongs to {FUNCTIONS[name].__name__}; choose another."
        )
    FUNCTIONS[name] = function
