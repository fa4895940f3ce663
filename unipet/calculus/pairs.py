"""Which choices of an insertion do not go together, though each is fine alone. The values say why (`refuses_...`); the
table says who is asked, and in which order."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any, NamedTuple

from unipet.calculus.composition import COMPOSITIONS
from unipet.calculus.functions import FUNCTIONS
from unipet.calculus.functions.base import Widths
from unipet.calculus.functions.reads import READS
from unipet.calculus.insertion_parts import inside
from unipet.calculus.mixture.expert_functions import ExpertFunctions
from unipet.calculus.scaling import SCALINGS
from unipet.errors import UnipetError

if TYPE_CHECKING:
    from unipet.calculus.method import InsertionSpec

_NAMES: Mapping[str, Mapping[str, type[Any]]] = {
    "function": FUNCTIONS,
    "composition": COMPOSITIONS,
    "scaling": SCALINGS,
}
#: Any widths will do for a mixture's slots, as long as every usual size divides them.
_SOME = 2**12 * 3**3 * 5 * 7


class Pair(NamedTuple):
    """Two choices of an insertion: `key` is the one that an error is about, and `refuses` says why they do not go
    together, or is None."""

    key: str
    other: str
    refuses: Callable[[InsertionSpec], str | None]


#: The first that refuses is the error that a user reads.
PAIRS = (
    Pair("composition", "function", lambda spec: spec.composition.refuses_function(spec.function)),
    Pair("function", "composition", lambda spec: spec.composition.refuses_options(spec.function)),
    Pair("position.site", "composition", lambda spec: spec.composition.refuses_sites(spec.position.site)),
    Pair("position.tokens", "composition", lambda spec: spec.composition.refuses_tokens(spec.position.tokens)),
    Pair("scaling", "composition", lambda spec: spec.composition.refuses_scaling(spec.scaling.dynamic)),
    Pair("position.site", "function", lambda spec: READS[spec.function.reads].refuses_sites(spec.position.site)),
    Pair("position.form", "function", lambda spec: READS[spec.function.reads].refuses_form(spec.position.form)),
    Pair("position.form", "composition", lambda spec: spec.composition.refuses_form(spec.position.form)),
    Pair("position.form", "function", lambda spec: spec.function.refuses_form(spec.position.form)),
    Pair("position.side", "composition", lambda spec: spec.composition.refuses_side(spec.position.side)),
    Pair(
        "position.form",
        "position.side",
        lambda spec: READS[spec.function.reads].refuses_side(spec.position.side, spec.position.form),
    ),
    Pair(
        "position.form",
        "position.site",
        lambda spec: READS[spec.function.reads].refuses_token_ids(spec.position.site, spec.position.form),
    ),
    Pair("scaling", "position.site", lambda spec: spec.scaling.refuses_sites(spec.position.site, spec.position.form)),
    Pair("scaling", "function", lambda spec: spec.scaling.refuses_function(spec.function)),
    Pair(
        "mixture",
        "composition",
        lambda spec: spec.composition.refuses_rows(spec.mixture is not None and spec.mixture.by_row),
    ),
    Pair("mixture", "composition", lambda spec: _no_tokens(spec)),
    Pair("mixture", "composition", lambda spec: _no_sum(spec)),
    Pair("mixture", "scaling", lambda spec: _no_common_scale(spec)),
    Pair("mixture", "position.site", lambda spec: _no_input(spec)),
)


def _no_tokens(spec: InsertionSpec) -> str | None:
    """Why the tokens of a sequence cannot take different experts."""
    if spec.mixture is None or not spec.mixture.by_token or not spec.composition.lengthens:
        return None
    return "the tokens that it adds are the same for all inputs. Use a router that takes whole calls or examples."


def _no_sum(spec: InsertionSpec) -> str | None:
    """Why the outputs of different functions do not add."""
    if not isinstance(spec.function, ExpertFunctions):
        return None
    if spec.composition.lengthens:
        return "its experts may make different numbers of tokens. Give them one function."
    return spec.composition.refuses_rows(True) or spec.function.refuses()


def _no_common_scale(spec: InsertionSpec) -> str | None:
    """Why one scaling does not serve functions of different sizes."""
    if not isinstance(spec.function, ExpertFunctions) or getattr(spec.scaling, "alpha", None) is None:
        return None
    if spec.scaling.dynamic is None:
        return None
    return "its alpha is divided by the function's size, and the experts have several. Leave alpha out."


def _no_input(spec: InsertionSpec) -> str | None:
    """Why a learned router cannot read its input."""
    if spec.mixture is None or not spec.mixture.gated or spec.position.form != "parallel":
        return None
    if {"embed", "embed.tokens"} & set(spec.position.site):
        return "there, x is token ids, which a gate cannot read. Use form: sequential, or router: hash."
    return None


def check_pairs(spec: InsertionSpec, key: str) -> None:
    """Raise UnipetError for choices that are fine alone but not together. `key` is the insertion's."""
    if isinstance(spec.function, ExpertFunctions):
        _check_experts(spec, spec.function, key)
    else:
        _check_pairs(PAIRS, spec, key)
    if spec.mixture is not None:
        try:
            slots = spec.function.slots(Widths(_SOME, _SOME, 1, 1, _SOME))
        except UnipetError as error:
            raise inside(key, error) from error
        spec.mixture.check(slots, f"{key}.mixture", isinstance(spec.function, ExpertFunctions))


def _check_pairs(pairs: Iterable[Pair], spec: InsertionSpec, key: str, function: str = "function") -> None:
    """The same for some of the pairs; `function` is the key of the function."""
    for pair in pairs:
        if reason := pair.refuses(spec):
            word = function if pair.other == "function" else pair.other.rpartition(".")[2]
            other = f"{word} {_choice(spec, pair.other)}"
            own = function if pair.key == "function" else pair.key
            raise UnipetError(f"{key}.{own}: {_choice(spec, pair.key)} does not go with {other}: {reason}")


def _check_experts(spec: InsertionSpec, functions: ExpertFunctions, key: str) -> None:
    """The same for every expert of a mixture of different functions, and for all of them together."""
    assert spec.mixture is not None
    spec.mixture.check_differing(f"{key}.mixture")
    for name, function in zip(functions.names, functions.experts, strict=True):
        own, at = replace(spec, function=function), f"mixture.experts.{name}"
        _check_pairs((pair for pair in PAIRS if "function" in (pair.key, pair.other)), own, key, at)
        try:
            function.slots(Widths(_SOME, _SOME, 1, 1, _SOME))
        except UnipetError as error:
            raise UnipetError(f"{key}.{at}{str(error).removeprefix('function')}") from error
    _check_pairs((pair for pair in PAIRS if "function" not in (pair.key, pair.other)), spec, key)


def _choice(spec: InsertionSpec, key: str) -> str:
    """The choice that stands under a key of the insertion, as a message shows it."""
    dimension, _, option = key.partition(".")
    value = getattr(spec, dimension)
    if option:
        return repr(getattr(value, option))
    if dimension in _NAMES:
        return repr(name_of(_NAMES[dimension], value))
    return f"router {value.router!r} with reducer {value.reducer!r}"


def name_of(table: Mapping[str, type[Any]], value: object) -> str:
    """What a method file calls this value of a dimension; of experts that differ, all their functions."""
    if isinstance(value, ExpertFunctions):
        return " + ".join(dict.fromkeys(name_of(table, own) for own in value.experts))
    return next(name for name, cls in table.items() if cls is type(value))
