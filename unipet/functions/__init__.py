"""Modification functions by name. One family per file; out-of-tree ones join through `register_function`."""

from __future__ import annotations

import dataclasses
import inspect

from unipet.errors import UnipetError
from unipet.functions.base import Function
from unipet.functions.block_sum import BlockSum
from unipet.functions.bottleneck import Bottleneck
from unipet.functions.butterfly import Butterfly
from unipet.functions.circulant import Circulant
from unipet.functions.fourier import Fourier
from unipet.functions.grid import Grid
from unipet.functions.hadamard_product import HadamardProduct
from unipet.functions.hashed_low_rank import HashedLowRank
from unipet.functions.kronecker import Kronecker
from unipet.functions.kronecker_bottleneck import KroneckerBottleneck
from unipet.functions.low_rank import LowRank
from unipet.functions.normalised_low_rank import NormalisedLowRank
from unipet.functions.plane_rotation import PlaneRotation
from unipet.functions.prefix import Prefix
from unipet.functions.projected_prefix import ProjectedPrefix
from unipet.functions.projection import Projection
from unipet.functions.prompt import Prompt
from unipet.functions.random_bases import RandomBases
from unipet.functions.random_low_rank import RandomLowRank
from unipet.functions.reflection import Reflection
from unipet.functions.rotation import Rotation
from unipet.functions.rows import Rows
from unipet.functions.singular_core import SingularCore
from unipet.functions.sources import Sources, source_hash
from unipet.functions.sparse import Sparse
from unipet.functions.subspace import Subspace
from unipet.functions.subspace_rotation import SubspaceRotation
from unipet.functions.vector import Vector
from unipet.functions.vector_bank import VectorBank
from unipet.functions.wavelet import Wavelet
from unipet.functions.weight_network import WeightNetwork

FUNCTIONS: dict[str, type[Function]] = {
    "low_rank": LowRank,
    "bottleneck": Bottleneck,
    "prefix": Prefix,
    "projected_prefix": ProjectedPrefix,
    "prompt": Prompt,
    "vector": Vector,
    "rows": Rows,
    "rotation": Rotation,
    "butterfly": Butterfly,
    "reflection": Reflection,
    "plane_rotation": PlaneRotation,
    "subspace_rotation": SubspaceRotation,
    "projection": Projection,
    "hadamard_product": HadamardProduct,
    "kronecker": Kronecker,
    "grid": Grid,
    "block_sum": BlockSum,
    "circulant": Circulant,
    "fourier": Fourier,
    "wavelet": Wavelet,
    "sparse": Sparse,
    "normalised_low_rank": NormalisedLowRank,
    "weight_network": WeightNetwork,
    "random_low_rank": RandomLowRank,
    "random_bases": RandomBases,
    "vector_bank": VectorBank,
    "hashed_low_rank": HashedLowRank,
    "singular_core": SingularCore,
    "kronecker_bottleneck": KroneckerBottleneck,
    "subspace": Subspace,
}


def register_function(name: str, function: type[Function]) -> None:
    """Make a function of your own known by name to every method file.

    `function` is a frozen dataclass deriving from `unipet.functions.base.Function`. Raises UnipetError if the name is
    taken by another class, the class is not such a dataclass, or it lacks a method that every function has.
    """
    if not (isinstance(function, type) and issubclass(function, Function) and dataclasses.is_dataclass(function)):
        raise UnipetError(
            f"register_function({name!r}): expected a dataclass deriving from Function, got {function!r}."
        )
    if FUNCTIONS.get(name, function) is not function:
        raise UnipetError(
            f"register_function({name!r}): the name belongs to {FUNCTIONS[name].__name__}; choose another."
        )
    if inspect.isabstract(function):
        lacking = ", ".join(sorted(function.__abstractmethods__))
        raise UnipetError(f"register_function({name!r}): {function.__name__} is abstract. Define {lacking} in it.")
    FUNCTIONS[name] = function
    _SOURCES[function] = source_hash(function)


#: The source of each function from outside the package, as it was when it was registered.
_SOURCES: dict[type[Function], str] = {}


def function_sources(method: Sources) -> dict[str, str]:
    """Name -> SHA-256 of the source, of the functions that `method` uses and that are not the package's own.

    Part of a run's identity: a function that was edited makes other runs.
    """
    kinds = {type(spec.function) for spec in method.insertions}
    return {name: _SOURCES[kind] for name, kind in FUNCTIONS.items() if kind in kinds and kind in _SOURCES}
