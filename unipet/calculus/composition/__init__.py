"""HOW it joins: the compositions that put s·Δ and h together, by name. One family per file."""

from __future__ import annotations

from unipet.calculus.composition.base import Composition
from unipet.calculus.composition.concat import Concat
from unipet.calculus.composition.elementwise import Add, Multiply, Replace
from unipet.calculus.composition.gated import Gated
from unipet.calculus.composition.of_weight import Hadamard, Normalise
from unipet.calculus.composition.weights import Weights
from unipet.calculus.functions.product import column

COMPOSITIONS: dict[str, type[Composition]] = {
    "add": Add,
    "multiply": Multiply,
    "replace": Replace,
    "hadamard": Hadamard,
    "normalise": Normalise,
    "gated": Gated,
    "concat": Concat,
}

__all__ = [
    "COMPOSITIONS",
    "Add",
    "Composition",
    "Concat",
    "Gated",
    "Hadamard",
    "Multiply",
    "Normalise",
    "Replace",
    "Weights",
    "column",
]
