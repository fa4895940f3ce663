"""A method: a named set of insertions, read from a mapping, checked, and written back."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar

from unipet.calculus.composition import COMPOSITIONS, Composition
from unipet.calculus.functions import FUNCTIONS
from unipet.calculus.functions.base import Function
from unipet.calculus.insertion_parts import InsertionParts
from unipet.calculus.mixture import Mixture
from unipet.calculus.objectives import Objective
from unipet.calculus.options import no_option, parse_options, parse_value, remove_hint
from unipet.calculus.pairs import check_pairs, name_of
from unipet.calculus.scaling import SCALINGS, Constant, Scaling
from unipet.calculus.sites.position import Position, token_span
from unipet.calculus.yaml_reader import text_of, value_of, values
from unipet.errors import UnipetError, nearest, not_allowed, unknown

T = TypeVar("T")

#: Parts of the base model that a method may train besides its insertions.
UNFREEZE = ("head", "norm", "bias", "embeddings", "all")
_INSERTION_KEYS = ("function", "position", "composition", "scaling", "mixture", "ratio")
#: What is not a key here, but is one further in.
_DEEPER = (
    "function.size",
    "function.dropout",
    "position.site",
    "position.layers",
    "scaling.alpha",
    "insertions.NAME.function.size",
)
_METHOD_KEYS = ("name", "insertions", "unfreeze", "objective")


@dataclass(frozen=True)
class InsertionSpec:
    """One insertion of a method: the four dimensions, the optional mixture, and `ratio`, in proportion to which a budget
    lets sizes grow (None: in proportion to the sizes given; 0: the size stays as given)."""

    name: str
    function: Function
    position: Position
    composition: Composition
    scaling: Scaling
    mixture: Mixture | None = None
    ratio: float | None = field(default=None, compare=False)  # changes nothing that the method computes

    @property
    def parts(self) -> InsertionParts:
        tokens = token_span(self.position.tokens, f"method.insertions.{self.name}.position.tokens")
        return InsertionParts(self.function, self.position.form, self.composition, self.scaling, self.mixture, tokens)

    def to_dict(self) -> dict[str, Any]:
        given: dict[str, Any] = {
            "function": {"name": name_of(FUNCTIONS, self.function), **dataclasses.asdict(self.function)},
            "position": dataclasses.asdict(self.position),
            "composition": {"name": name_of(COMPOSITIONS, self.composition), **dataclasses.asdict(self.composition)},
            "scaling": {"name": name_of(SCALINGS, self.scaling), **dataclasses.asdict(self.scaling)},
        }
        optional = {"mixture": self.mixture and dataclasses.asdict(self.mixture), "ratio": self.ratio}
        return given | {key: value for key, value in optional.items() if value is not None}


@dataclass(frozen=True)
class Method:
    """A parameter-efficient method as data.

    `insertions` in the order in which they act where they meet, `unfreeze` the parts of the base model that train
    too, `objective` the regularisers.
    """

    name: str
    insertions: tuple[InsertionSpec, ...] = ()
    unfreeze: tuple[str, ...] = ("head",)
    objective: Objective = field(default_factory=Objective)

    def to_dict(self) -> dict[str, Any]:
        """The method spelled out in full: what `parse_method` reads back to an equal method."""
        return {
            "name": self.name,
            "insertions": {spec.name: spec.to_dict() for spec in self.insertions},
            "unfreeze": list(self.unfreeze),
            "objective": dataclasses.asdict(self.objective),
        }


def parse_method(given: Any, where: str = "method") -> Method:
    """A checked method from plain data. Raises UnipetError with the full key of the first mistake."""
    if not isinstance(given, Mapping):
        raise not_allowed(where, given, "a mapping with name and insertions")
    _known_keys(given, _METHOD_KEYS, where, "a method")
    name = text_of(given.get("name"))
    if not isinstance(name, str) or not name or not name.replace("_", "").replace("-", "").isalnum():
        raise not_allowed(f"{where}.name", name, "a name of letters, digits, '_' and '-'")
    if "insertions" not in given and "unfreeze" not in given:
        raise UnipetError(
            f"{where}: it says neither insertions nor unfreeze, so it would train the head alone. A shipped method is "
            f"given by its name ({name!r} as a string); a baseline says insertions: {{}} and what to unfreeze."
        )
    insertions = given.get("insertions", {})
    if not isinstance(insertions, Mapping):
        raise not_allowed(
            f"{where}.insertions",
            value_of(insertions),
            "a mapping from a name to an insertion",
            "A method without insertions says insertions: {}, what to unfreeze, and a name of its own.",
        )
    specs = tuple(_insertion(str(key), value, f"{where}.insertions.{key}") for key, value in insertions.items())
    parts = value_of(given.get("unfreeze", ["head"]))
    unfreeze = [text_of(part) for part in parts] if isinstance(parts, list | tuple) else [parts] if parts else []
    for part in unfreeze:
        if part not in UNFREEZE:
            raise unknown(f"{where}.unfreeze", part, UNFREEZE)
    if not specs and not unfreeze:
        raise UnipetError(f"{where}: nothing would train. Name insertions, or unfreeze one of {', '.join(UNFREEZE)}.")
    objective = parse_options(Objective, value_of(given.get("objective")) or {}, f"{where}.objective", "the objective")
    return Method(name, specs, tuple(dict.fromkeys(unfreeze)), objective)


def _insertion(name: str, given: Any, where: str) -> InsertionSpec:
    if name in UNFREEZE or "/" in name or "." in name:
        raise UnipetError(f"{where}: an insertion may not be called {name!r} (reserved, or holds '/' or '.').")
    if not isinstance(given, Mapping):
        raise not_allowed(where, values(given), f"a mapping with {', '.join(_INSERTION_KEYS)}")
    _known_keys(given, _INSERTION_KEYS, where, "an insertion")
    given = {key: value_of(value) for key, value in given.items()}
    function = _named(Function, FUNCTIONS, given.get("function"), f"{where}.function", "function")
    site = given.get("position") or {}
    site = {"site": site} if isinstance(site, str | list) else site
    position = parse_options(Position, site, f"{where}.position", "the position")
    position.check(f"{where}.position")
    given_composition = given.get("composition", "add")
    composition = _named(Composition, COMPOSITIONS, given_composition, f"{where}.composition", "composition")
    scaling = given.get("scaling", 1.0)
    if isinstance(scaling, int | float) or scaling is None:
        value = 1.0 if scaling is None else scaling
        scaling = {"name": "constant", "value": parse_value(float, value, f"{where}.scaling")}
    if isinstance(scaling, Mapping) and "name" not in scaling:
        scaling = {"name": "constant", **scaling}  # `scaling.value=2` over a file that says `scaling: 4.0`
    parsed_scaling = _named(Scaling, SCALINGS, scaling, f"{where}.scaling", "scaling")
    if (parsed := given.get("mixture")) is not None:
        parsed = parse_options(Mixture, parsed, f"{where}.mixture", "the mixture")
    ratio = parse_value(float | None, given.get("ratio"), f"{where}.ratio", {"low": 0})
    spec = InsertionSpec(name, function, position, composition, parsed_scaling, parsed, ratio)
    check_pairs(spec, where)
    return spec


def _named(kind: type[T], table: Mapping[str, type[T]], given: Any, where: str, what: str) -> T:
    """A value of a dimension: its name, or a mapping with `name` and options."""
    if isinstance(given, str):
        given = {"name": given}
    if not isinstance(given, Mapping):
        raise not_allowed(where, given, f"a {what} (one of {', '.join(table)}) or a mapping with name")
    name = text_of(given.get("name"))
    if not isinstance(name, str):
        raise not_allowed(f"{where}.name", name, f"the name of a {what} ({', '.join(table)})")
    if name not in table:
        own = " One of your own: imports=[MODULE] (or --import MODULE), or unipet.register_function."
        raise UnipetError(f"{unknown(f'{where}.name', name, table)}{own if kind is Function else ''}")
    return parse_options(table[name], given, where, f"{what} '{name}'", ignore=("name",))


def _known_keys(given: Mapping[str, Any], allowed: tuple[str, ...], where: str, owner: str) -> None:
    for key in given:
        if key not in allowed:
            full = f"{where}.{key}"
            raise no_option(full, owner, allowed, f"{nearest(key, (*allowed, *_DEEPER))} {remove_hint(full)}")


__all__ = ["UNFREEZE", "Constant", "InsertionSpec", "Method", "name_of", "parse_method"]
