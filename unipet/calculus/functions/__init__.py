"""Modification functions by name. One family per file; out-of-tree ones join through `register_function`."""

from __future__ import annotations

import dataclasses
import inspect

from unipet.calculus.functions.base import Function
from unipet.calculus.functions.block_sum import BlockSum
from unipet.calculus.functions.bottleneck import Bottleneck
from unipet.calculus.functions.butterfly import Butterfly
from unipet.calculus.functions.circulant import Circulant
from unipet.calculus.functions.fourier import Fourier
from unipet.calculus.functions.grid import Grid
from unipet.calculus.functions.hadamard_product import HadamardProduct
from unipet.calculus.functions.hashed_low_rank import HashedLowRank
from unipet.calculus.functions.kronecker import Kronecker
from unipet.calculus.functions.kronecker_bottleneck import KroneckerBottleneck
from unipet.calculus.functions.low_rank import LowRank
from unipet.calculus.functions.normalised_low_rank import NormalisedLowRank
from unipet.calculus.functions.plane_rotation import PlaneRotation
from unipet.calculus.functions.prefix import Prefix
from unipet.calculus.functions.projected_prefix import ProjectedPrefix
from unipet.calculus.functions.projection import Projection
from unipet.calculus.functions.prompt import Prompt
from unipet.calculus.functions.random_bases import RandomBases
from unipet.calculus.functions.random_low_rank import RandomLowRank
from unipet.calculus.functions.reads import READS
from unipet.calculus.functions.reflection import Reflection
from unipet.calculus.functions.rotation import Rotation
from unipet.calculus.functions.rows import Rows
from unipet.calculus.functions.singular_core import SingularCore
from unipet.calculus.functions.sources import Sources, source_hash
from unipet.calculus.functions.sparse import Sparse
from unipet.calculus.functions.subspace import Subspace
from unipet.calculus.functions.subspace_rotation import SubspaceRotation
from unipet.calculus.functions.vector import Vector
from unipet.calculus.functions.vector_bank import VectorBank
from unipet.calculus.functions.wavelet import Wavelet
from unipet.calculus.functions.weight_network import WeightNetwork
from unipet.errors import UnipetError, not_allowed, unknown

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

    `function` is a frozen dataclass deriving from `unipet.calculus.functions.base.Function`. Raises UnipetError if the name is
    taken by another class, the class is not such a dataclass, or it lacks a method that every function has.
    """
    if not (isinstance(function, type) and issubclass(function, Function) and dataclasses.is_dataclass(function)):
        raise not_allowed(f"register_function({name!r})", function, "a dataclass deriving from Function")
    if FUNCTIONS.get(name, function) is not function:
        raise UnipetError(
            f"register_function({name!r}): the name belongs to {FUNCTIONS[name].__name__}; choose another."
        )
    if inspect.isabstract(function):
        lacking = ", ".join(sorted(function.__abstractmethods__))
        raise UnipetError(f"register_function({name!r}): {function.__name__} is abstract. Define {lacking} in it.")
    if function.reads not in READS:
        raise unknown(f"register_function({name!r}): {function.__name__}.reads", function.reads, READS)
    FUNCTIONS[name] = function
    _SOURCES[function] = source_hash(function)


#: The source of each function from outside the package, as it was when it was registered.
_SOURCES: dict[type[Function], str] = {}


def function_sources(method: Sources) -> dict[str, str]:
    """Name -> SHA-256 of the source, of the functions that `method` uses and that are not the package's own.

    Part of a run's identity: a function that was edited makes other runs.
    """
    kinds = {type(own) for spec in method.insertions for own in getattr(spec.function, "experts", (spec.function,))}
    return {name: _SOURCES[kind] for name, kind in FUNCTIONS.items() if kind in kinds and kind in _SOURCES}
