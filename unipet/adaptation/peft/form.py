"""What a form is: how one of peft's types says a composition, in both directions; `forms.py` has them all.

Decided from an insertion's parts, never from a method's name. A form writes what trains where it can be written as it is;
what peft has no option for but a matrix can hold (a learned scale, a diagonal, a start to subtract) goes into the matrix.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar

from torch import Tensor, nn

from unipet.calculus.bank import Bank
from unipet.calculus.composition import Add, Composition
from unipet.calculus.functions.base import Function
from unipet.calculus.insertion import Insertion
from unipet.calculus.scaling import AlphaOverRank, AlphaOverSqrtRank, Constant
from unipet.errors import UnipetError

#: module path -> peft's suffix -> tensor
Sites = Mapping[str, Mapping[str, Tensor]]


class Form(ABC):
    """One type of peft that acts at linear layers.

    `tensors` are those of one site by peft's suffix, `common` those of all sites; `slots` and `parts` read them and the
    configuration back into the slots and the choices of an insertion.
    """

    peft_type: ClassVar[str]
    function: ClassVar[type[Function]]
    compositions: ClassVar[tuple[type[Composition], ...]] = (Add,)
    #: The names of its tensors at a module, and of those that all share.
    suffixes: ClassVar[tuple[str, ...]] = ()
    shares: ClassVar[tuple[str, ...]] = ()
    #: Keys of its configuration that `parts` understands.
    reads: ClassVar[tuple[str, ...]] = ()
    joins: ClassVar[bool] = False  # whether the tensors of several parts of a fused projection can be one adapter's
    conv1d: ClassVar[bool] = False  # whether it takes transformers' transposed Conv1D
    #: `form` and side of the position that it computes: beside a linear layer, or on its input or output.
    place: ClassVar[tuple[str, str]] = ("parallel", "output")
    #: Options that may have another value at some modules, each with the key that holds those.
    patterns: ClassVar[Mapping[str, str]] = {}
    #: Whether its file may hold nothing at a module, all of it drawn again from a seed.
    bare: ClassVar[bool] = False
    #: What a second insertion at the same module is, where the type holds two together.
    beside: ClassVar[Form | None] = None

    def why_not(self, insertion: Insertion) -> str | None:
        """Why this insertion, whose function is the form's, is nothing that peft can say; None if it is."""
        return (
            None
            if isinstance(insertion.parts.composition, self.compositions)
            else _other("composition", insertion.parts.composition)
        )

    @abstractmethod
    def config(self, insertion: Insertion) -> dict[str, Any]:
        """The function's options under peft's names."""

    @abstractmethod
    def tensors(self, insertion: Insertion) -> dict[str, Tensor]:
        """The tensors of one site."""

    def common(self, insertions: Sequence[Insertion]) -> dict[str, Tensor]:
        """The tensors that all sites share; `insertions` are those of all sites."""
        return {}

    def absent(self, width: int) -> dict[str, Tensor]:
        """The tensors of one site, this wide at its output, where the insertion `beside` is not there."""
        return {}

    @abstractmethod
    def parts(self, config: Mapping[str, Any]) -> dict[str, Any]:
        """`function`, `composition` and `scaling` of a method's insertion."""

    def is_shared(self, name: str) -> bool:
        """Whether a tensor of this name, at no module, is one that sites share."""
        return name in self.shares

    def prepared(
        self, model: nn.Module, config: Mapping[str, Any], sites: Sites
    ) -> list[tuple[Mapping[str, Any], Sites]]:
        """The modules in groups of equal options, each with the configuration that holds for it; what our functions have no
        option for goes into the tensors here. Every site has the tensors that all share, too."""
        return [(config, sites)]

    @abstractmethod
    def slots(self, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Our slots from peft's tensors of one site."""

    def frozen(self, tensors: Mapping[str, Tensor], insertion: Insertion) -> dict[str, Tensor]:
        """Tensors that never train, by our names, from peft's of one site."""
        return {}


def _other(option: str, value: object) -> str:
    return f"its {option} {type(value).__name__} is none of peft's"


def factor_of(insertion: Insertion) -> Tensor | float:
    """s of a scaling that is the same for all inputs."""
    size = getattr(insertion.parts.function, "size", None)
    return insertion.parts.scaling.factor(insertion.scale.reduced(), size, None, None)


def alpha_of(insertion: Insertion) -> tuple[float, bool, Tensor | float]:
    """(α, whether it is α/√r, the factor of s that remains for the tensors)."""
    scaling, size = insertion.parts.scaling, getattr(insertion.parts.function, "size", 1)
    if isinstance(scaling, AlphaOverSqrtRank):
        return scaling.alpha, True, 1.0
    if isinstance(scaling, AlphaOverRank) and not scaling.epsilon:
        return scaling.alpha, False, 1.0
    if isinstance(scaling, Constant):
        return scaling.value * size, False, 1.0
    return float(size), False, factor_of(insertion)


def plain_factor(insertion: Insertion) -> float | None:
    """s where it is one number; None for a number per channel."""
    factor = factor_of(insertion)
    if isinstance(factor, Tensor):
        return float(factor) if factor.numel() == 1 else None
    return factor


def per_channel(insertion: Insertion) -> str | None:
    """Why a type with one scale for all channels cannot say this insertion, or None."""
    return "peft has no scale per channel here" if plain_factor(insertion) is None else None


def rows_by(factor: Tensor | float, tensor: Tensor) -> Tensor:
    """Output rows times s, a number or one number per row."""
    column = factor.unsqueeze(-1) if isinstance(factor, Tensor) and factor.numel() > 1 else factor
    return tensor if isinstance(factor, float) and factor == 1.0 else tensor * column


def whole(number: float) -> float | int:
    return int(number) if float(number).is_integer() else number


def renamed(names: Mapping[str, str], tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Those of `names` (theirs -> ours) that are there, under our names."""
    return {ours: tensors[theirs] for theirs, ours in names.items() if theirs in tensors}


def shared_of(insertions: Sequence[Insertion]) -> Bank:
    """What all of them use together."""
    bank = insertions[0].shared
    assert bank is not None
    return bank


def grouped(
    config: Mapping[str, Any], sites: Sites, options_of: Callable[[str], Mapping[str, Any]]
) -> list[tuple[Mapping[str, Any], Sites]]:
    """The modules in groups of equal options, where an option of each follows from its path or its tensors."""
    groups: dict[tuple[Any, ...], tuple[Mapping[str, Any], dict[str, Mapping[str, Tensor]]]] = {}
    for path, tensors in sites.items():
        own = options_of(path)
        groups.setdefault(tuple(own.values()), ({**config, **own}, {}))[1][path] = tensors
    return list(groups.values())


def counted(config: Mapping[str, Any], key: str) -> int:
    """An option that is a whole number above 0. Raises KeyError where it is not there, UnipetError where it is no such number."""
    value = config[key]
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise UnipetError(f"{key}: {str(value)[:40]!r} given; allowed: a whole number above 0.")
    return value
