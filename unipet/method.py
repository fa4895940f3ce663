"""A method: a named set of insertions, read from a mapping, checked, and written back."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar

from unipet.composition import COMPOSITIONS, Composition
from unipet.errors import UnipetError, nearest, unknown
from unipet.functions import FUNCTIONS
from unipet.functions.base import Function, LinearMap, Widths
from unipet.mixture import Mixture
from unipet.objectives import Objective
from unipet.options import number, parse_options, remove_hint, share
from unipet.parts import Parts
from unipet.scaling import SCALINGS, Constant, Scaling
from unipet.sites.position import Position, token_span

T = TypeVar("T")

#: Parts of the base model that a method may train besides its insertions.
UNFREEZE = ("head", "norm", "bias", "embeddings", "all")
_INSERTION_KEYS = ("function", "position", "composition", "scaling", "mixture", "ratio")
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
    def parts(self) -> Parts:
        tokens = token_span(self.position.tokens, f"method.insertions.{self.name}.position.tokens")
        return Parts(self.function, self.position.form, self.composition, self.scaling, self.mixture, tokens)

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
        raise UnipetError(f"{where}: expected a mapping with name and insertions, got {given!r}.")
    _known_keys(given, _METHOD_KEYS, where)
    name = given.get("name")
    if not isinstance(name, str) or not name or not name.replace("_", "").replace("-", "").isalnum():
        raise UnipetError(f"{where}.name: expected a name of letters, digits, '_' and '-', got {name!r}.")
    if "insertions" not in given and "unfreeze" not in given:
        raise UnipetError(
            f"{where}: it says neither insertions nor unfreeze, so it would train the head alone. A shipped method is "
            f"given by its name ({name!r} as a string); a baseline says insertions: {{}} and what to unfreeze."
        )
    insertions = given.get("insertions") or {}
    if not isinstance(insertions, Mapping):
        raise UnipetError(f"{where}.insertions: expected a mapping from a name to an insertion, got {insertions!r}.")
    specs = tuple(_insertion(str(key), value, f"{where}.insertions.{key}") for key, value in insertions.items())
    unfreeze = given.get("unfreeze", ["head"])
    unfreeze = [unfreeze] if isinstance(unfreeze, str) else list(unfreeze or [])
    for part in unfreeze:
        if part not in UNFREEZE:
            raise unknown(f"{where}.unfreeze", part, UNFREEZE)
    if not specs and not unfreeze:
        raise UnipetError(f"{where}: nothing would train. Name insertions, or unfreeze one of {', '.join(UNFREEZE)}.")
    objective = parse_options(Objective, given.get("objective") or {}, f"{where}.objective", "the objective")
    return Method(name, specs, tuple(dict.fromkeys(unfreeze)), objective)


def _insertion(name: str, given: Any, where: str) -> InsertionSpec:
    if name in UNFREEZE or "/" in name or "." in name:
        raise UnipetError(f"{where}: an insertion may not be called {name!r} (reserved, or holds '/' or '.').")
    if not isinstance(given, Mapping):
        raise UnipetError(f"{where}: expected a mapping with {', '.join(_INSERTION_KEYS)}, got {given!r}.")
    _known_keys(given, _INSERTION_KEYS, where)
    function = _named(Function, FUNCTIONS, given.get("function"), f"{where}.function", "function")
    site = given.get("position") or {}
    site = {"site": site} if isinstance(site, str | list) else site
    position = parse_options(Position, site, f"{where}.position", "the position")
    position.check(f"{where}.position")
    given_composition = given.get("composition", "add")
    composition = _named(Composition, COMPOSITIONS, given_composition, f"{where}.composition", "composition")
    scaling = given.get("scaling", 1.0)
    if isinstance(scaling, int | float) or scaling is None:
        scaling = {"name": "constant", "value": number(1.0 if scaling is None else scaling, f"{where}.scaling")}
    if isinstance(scaling, Mapping) and "name" not in scaling:
        scaling = {"name": "constant", **scaling}  # `scaling.value=2` over a file that says `scaling: 4.0`
    parsed_scaling = _named(Scaling, SCALINGS, scaling, f"{where}.scaling", "scaling")
    if (parsed := given.get("mixture")) is not None:
        parsed = parse_options(Mixture, parsed, f"{where}.mixture", "the mixture")
    ratio = share(given.get("ratio"), f"{where}.ratio")
    spec = InsertionSpec(name, function, position, composition, parsed_scaling, parsed, ratio)
    _check_pairs(spec, where)
    return spec


def _named(kind: type[T], table: Mapping[str, type[T]], given: Any, where: str, what: str) -> T:
    """A value of a dimension: its name, or a mapping with `name` and options."""
    if isinstance(given, str):
        given = {"name": given}
    if not isinstance(given, Mapping):
        raise UnipetError(
            f"{where}: expected a {what} (one of {', '.join(table)}) or a mapping with name, got {given!r}."
        )
    name = given.get("name")
    if not isinstance(name, str):
        raise UnipetError(f"{where}.name: expected the name of a {what} ({', '.join(table)}), got {name!r}.")
    if name not in table:
        raise unknown(f"{where}.name", name, table)
    return parse_options(table[name], given, where, f"{what} '{name}'", ignore=("name",))


def _known_keys(given: Mapping[str, Any], allowed: tuple[str, ...], where: str) -> None:
    for key in given:
        if key not in allowed:
            raise UnipetError(
                f"{where}.{key}: unknown key. Allowed here: {', '.join(allowed)}.{nearest(key, allowed)} "
                f"{remove_hint(f'{where}.{key}')}"
            )


def _check_pairs(spec: InsertionSpec, where: str) -> None:
    """Raise UnipetError for choices that are fine alone but not together."""
    function, position = spec.function, spec.position
    label, in_heads = name_of(FUNCTIONS, function), [role for role in position.site if role.endswith(".heads")]
    rule, joined = spec.composition, name_of(COMPOSITIONS, spec.composition)
    if rule.needs_mass and not function.has_mass:
        able = ", ".join(name for name, cls in FUNCTIONS.items() if cls.has_mass)
        raise UnipetError(
            f"{where}.composition: {joined!r} shares the attention's softmax, which function {label!r} takes "
            f"no part in. Use function {able}, or another composition (add, multiply, replace)."
        )
    needed = {"activation": "softmax", "norm": "none", "scaled": True}
    for key, value in needed.items():
        if rule.needs_mass and getattr(function, key, value) != value:
            raise UnipetError(f"{where}: composition {joined!r} needs function.{key} {str(value).lower()}.")
    if rule.lengthens or function.makes_tokens:
        _check_lengthening(spec, label, joined, where)
    if function.reads == "heads" and len(in_heads) != len(position.site):
        raise UnipetError(
            f"{where}.position.site: function {label!r} works inside attention, at attn.heads; got {position.site}."
        )
    if function.reads == "heads" and position.form != "parallel":
        raise UnipetError(f"{where}.position.form: function {label!r} reads the queries, so its form is parallel.")
    if rule.of_weight and not (isinstance(function, LinearMap) and position.form == "parallel"):
        raise UnipetError(
            f"{where}.composition: {joined!r} changes the weight itself, which needs a function that is a matrix "
            f"(low_rank, ...) in parallel form; got function {label!r}, form {position.form}."
        )
    if rule.of_weight and getattr(function, "bias", False):
        raise UnipetError(f"{where}.function.bias: composition {joined!r} is about the weight alone. Use bias: false.")
    if function.starts_from_weight and function.reads == "u" and position.form != "parallel":
        raise UnipetError(
            f"{where}.position.form: function {label!r} needs the base weight, a map of x. Use form: parallel."
        )
    if rule.needs_weight and position.side == "input":
        raise UnipetError(
            f"{where}.position.side: composition {joined!r} is about a linear map's output. Use side: output."
        )
    if position.side == "input" and position.form == "parallel" and function.reads != "nothing":
        raise UnipetError(f"{where}.position.form: on the input side h is what the module reads. Use form: sequential.")
    if function.reads == "ids" and (position.site[0] != "embed.tokens" or not {*position.site[1:]} <= {"head.tokens"}):
        raise UnipetError(
            f"{where}.position.site: function {label!r} is about tokens. Use embed.tokens, and with it head.tokens where "
            f"an output layer is tied to it; got {position.site}."
        )
    if "embed.tokens" in position.site and position.form == "parallel" and function.reads not in ("nothing", "ids"):
        raise UnipetError(f"{where}.position: at embed.tokens, x is token ids. Use form: sequential.")
    if "embed" in position.site and position.form == "parallel" and function.reads != "nothing":
        raise UnipetError(
            f"{where}.position: at embed, x is token ids, which function {label!r} cannot read. Use form: sequential."
        )
    if spec.scaling.dynamic and "embed" in position.site and position.form == "parallel":
        raise UnipetError(f"{where}.scaling: at embed a gate needs form: sequential (x is token ids).")
    if spec.scaling.needs_size and getattr(function, "size", None) is None:
        raise UnipetError(f"{where}.scaling: it divides by the function's size, and function {label!r} has none.")
    if spec.mixture is not None:
        some = 2**12 * 3**3 * 5 * 7  # any widths will do, as long as every usual size divides them
        if spec.mixture.by_row and (rule.needs_mass or rule.needs_weight):
            raise UnipetError(
                f"{where}.mixture: with router {spec.mixture.router}, reducer {spec.mixture.reducer} the examples of a "
                f"batch have functions of their own, which composition {joined!r} cannot join. Use composition: add."
            )
        spec.mixture.check(function.slots(Widths(some, some, 1, 1, some)), f"{where}.mixture")


def _check_lengthening(spec: InsertionSpec, label: str, joined: str, where: str) -> None:
    """Tokens of its own go into the embedded input, the same for every example."""
    if not (spec.composition.lengthens and spec.function.makes_tokens):
        makers = ", ".join(name for name, cls in FUNCTIONS.items() if cls.makes_tokens)
        rules = ", ".join(name for name, cls in COMPOSITIONS.items() if cls.lengthens)
        raise UnipetError(
            f"{where}.composition: functions that make tokens ({makers}) and compositions that lengthen the sequence "
            f"({rules}) need each other; got function {label!r} with composition {joined!r}."
        )
    if spec.position.site != ["embed"] or spec.position.tokens != "all" or spec.position.side == "input":
        raise UnipetError(
            f"{where}.position: tokens are put into the embedded input. Use site: embed and nothing else."
        )
    if spec.scaling.dynamic:
        raise UnipetError(
            f"{where}.scaling: a gate has nothing to read where tokens are added. Use a constant, or learned."
        )


def name_of(table: Mapping[str, type[Any]], value: object) -> str:
    """What a method file calls this value of a dimension."""
    return next(name for name, cls in table.items() if cls is type(value))


__all__ = ["UNFREEZE", "Constant", "InsertionSpec", "Method", "name_of", "parse_method"]
