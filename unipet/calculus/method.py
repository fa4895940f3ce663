"""A method: a named set of insertions, read from a mapping, checked, and written back."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar

from unipet.calculus.absence import is_absent, refuse_misnamed, without_absence
from unipet.calculus.composition import COMPOSITIONS, Composition
from unipet.calculus.functions import FUNCTIONS
from unipet.calculus.functions.base import Function
from unipet.calculus.insertion_parts import InsertionParts
from unipet.calculus.mixture import ROUTERS, Mixture
from unipet.calculus.mixture.expert_functions import ExpertFunctions, listed
from unipet.calculus.mixture.saved_experts import with_adapters
from unipet.calculus.objectives import Objective, parse_objective
from unipet.calculus.options import joined, no_option, parse_options, parse_value, remove_hint
from unipet.calculus.pairs import check_pairs, name_of
from unipet.calculus.scaling import SCALINGS, Constant, Scaling
from unipet.calculus.sites.position import Position, token_span
from unipet.calculus.yaml_reader import text_of, value_of, values
from unipet.config import plain_values
from unipet.errors import UnipetError, nearest, not_allowed, unknown

T = TypeVar("T")

#: Parts of the base model that a method may train besides its insertions.
UNFREEZE = ("head", "norm", "bias", "embeddings", "all")
LONGEST = 100  # characters of a name
NOTHING = "nothing"  # in the place of all parts: the base model as it is, which is no mistake then
INSERTION_KEYS = ("function", "position", "composition", "scaling", "mixture", "ratio")
#: Keys that a user may look for here and that stand further inside.
_DEEPER = (
    *("function.size", "function.dropout", "position.site", "position.layers", "scaling.alpha"),
    "insertions.NAME.function.size",
)
_METHOD_KEYS = ("name", "insertions", "unfreeze", "objective", "variables")


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
        function, mixture = self.function, None if self.mixture is None else dataclasses.asdict(self.mixture)
        if isinstance(function, ExpertFunctions) and mixture is not None:
            own = zip(function.names, map(_function_dict, function.experts), strict=True)
            function_dict, mixture = {}, {**mixture, "experts": dict(own)}
        else:
            function_dict = {"function": _function_dict(function)}
        given: dict[str, Any] = {
            **function_dict,
            "position": dataclasses.asdict(self.position),
            "composition": {"name": name_of(COMPOSITIONS, self.composition), **dataclasses.asdict(self.composition)},
            "scaling": {"name": name_of(SCALINGS, self.scaling), **dataclasses.asdict(self.scaling)},
        }
        optional = {"mixture": mixture, "ratio": self.ratio}
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

    @property
    def trains(self) -> bool:
        """Whether anything trains; a method without is the base model as it is (zero-shot)."""
        return bool(self.insertions or self.unfreeze)

    def to_dict(self) -> dict[str, Any]:
        """The method spelled out in full: what `parse_method` reads back to an equal method."""
        return {
            "name": self.name,
            "insertions": {spec.name: spec.to_dict() for spec in self.insertions},
            "unfreeze": list(self.unfreeze) if self.trains else [NOTHING],
            "objective": self.objective.to_dict(),
        }


def parse_method(data: Any, key: str = "method") -> Method:
    """A checked method from plain data. An insertion of size 0, or at no layer (`layers: []`), is checked and is not there.
    `variables` are texts that other values refer to on the command line; here they stand for nothing any more.

    Raises UnipetError with the full key of the first mistake.
    """
    if not isinstance(data, Mapping):
        raise not_allowed(key, data, "a mapping with name and insertions")
    _known_keys(data, _METHOD_KEYS, key, "a method")
    name = text_of(data.get("name"))
    if not isinstance(name, str) or not name.replace("_", "").replace("-", "").isalnum() or len(name) > LONGEST:
        raise not_allowed(f"{key}.name", name, f"a name of letters, digits, '_' and '-', at most {LONGEST} of them")
    if "insertions" not in data and "unfreeze" not in data:
        raise UnipetError(
            f"{key}: it says neither insertions nor unfreeze, so it would train the head alone. A shipped method is "
            f"given by its name ({name!r} as a string); a baseline says insertions: {{}} and what to unfreeze."
        )
    insertions = data.get("insertions", {})
    if not isinstance(insertions, Mapping):
        hint = "A method without insertions says insertions: {}, what to unfreeze, and a name of its own."
        raise not_allowed(f"{key}.insertions", value_of(insertions), "a mapping from a name to an insertion", hint)
    refuse_misnamed(insertions, f"{key}.insertions")
    absent = {name for name, value in insertions.items() if is_absent(value)}
    present = {name: without_absence(value) if name in absent else value for name, value in insertions.items()}
    every = [_insertion(name, value, joined(f"{key}.insertions", name)) for name, value in present.items()]
    specs = tuple(spec for spec in every if spec.name not in absent)
    if absent and not specs:
        raise UnipetError(
            f"{key}.insertions: each of them is absent (function.size: 0, or position.layers: []), so nothing of {name!r} "
            "is left. Give one of them a size and a layer."
        )
    parts = value_of(data.get("unfreeze", ["head"]))
    unfreeze = [text_of(part) for part in parts] if isinstance(parts, list | tuple) else [parts] if parts else []
    zero_shot = unfreeze == [NOTHING] and not specs
    unfreeze = [] if zero_shot else unfreeze
    for part in unfreeze:
        if part not in UNFREEZE:
            raise unknown(f"{key}.unfreeze", part, UNFREEZE)
    if not specs and not unfreeze and not zero_shot:
        raise UnipetError(
            f"{key}: nothing would train. Name insertions, or unfreeze one of {', '.join(UNFREEZE)}; unfreeze: [{NOTHING}] "
            "evaluates the base model as it is."
        )
    objective = parse_objective(data.get("objective"), f"{key}.objective")
    return Method(name, specs, tuple(dict.fromkeys(unfreeze)), objective)


def _insertion(name: str, data: Any, key: str) -> InsertionSpec:
    if name in UNFREEZE or "/" in name or "." in name or not name.isprintable() or not 0 < len(name) <= LONGEST:
        raise UnipetError(
            f"{key}: an insertion may not be called {name!r:.100} (reserved, empty, too long, or holds '/', '.' or a sign that "
            "cannot be printed)."
        )
    if not isinstance(data, Mapping):
        raise not_allowed(key, values(data), f"a mapping with {', '.join(INSERTION_KEYS)}")
    _known_keys(data, INSERTION_KEYS, key, "an insertion")
    choices = {name: value_of(value) for name, value in data.items()}
    parsed = choices.get("mixture")
    function = _experts(parsed, choices, key) or _named(
        Function, FUNCTIONS, choices.get("function"), f"{key}.function", "function"
    )
    site = choices.get("position") or {}
    site = {"site": site} if isinstance(site, str | list) else site
    position = parse_options(Position, site, f"{key}.position", "the position")
    position.check(f"{key}.position")
    composition = choices.get("composition", "add")
    composition = _named(Composition, COMPOSITIONS, composition, f"{key}.composition", "composition")
    scaling = choices.get("scaling", 1.0)
    if isinstance(scaling, int | float) or scaling is None:
        value = 1.0 if scaling is None else scaling
        scaling = {"name": "constant", "value": parse_value(float, value, f"{key}.scaling")}
    if isinstance(scaling, Mapping) and "name" not in scaling:
        scaling = {"name": "constant", **scaling}  # `scaling.value=2` over a file that says `scaling: 4.0`
    parsed_scaling = _named(Scaling, SCALINGS, scaling, f"{key}.scaling", "scaling")
    if parsed is not None:
        if isinstance(function, ExpertFunctions):
            parsed = _of_functions(parsed, len(function.experts))
        parsed = parse_options(Mixture, with_adapters(parsed, f"{key}.mixture"), f"{key}.mixture", "the mixture")
    ratio = parse_value(float | None, choices.get("ratio"), f"{key}.ratio", {"low": 0})
    if ratio and isinstance(function, ExpertFunctions):
        raise UnipetError(
            f"{key}.ratio: {ratio:g} given, and its experts have sizes of their own, in whose proportion a budget lets them "
            f"grow. {remove_hint(f'{key}.ratio')} 0 keeps the sizes as they are."
        )
    spec = InsertionSpec(name, function, position, composition, parsed_scaling, parsed, ratio)
    check_pairs(spec, key)
    return spec


def _experts(mixture: Any, choices: Mapping[str, Any], key: str) -> ExpertFunctions | None:
    """The functions that a mixture lists as its experts, or None."""
    given = listed(mixture, f"{key}.mixture")
    if given is None:
        return None
    if "function" in choices:
        raise UnipetError(
            f"{key}.function: the experts of its mixture are functions of their own, so it has none. "
            f"{remove_hint(f'{key}.function')} Several copies of one function are experts: NUMBER."
        )
    own = {
        name: _named(Function, FUNCTIONS, value_of(choice), f"{key}.mixture.experts.{name}", "function")
        for name, choice in given.items()
    }
    return ExpertFunctions(tuple(own), tuple(own.values()))


def _of_functions(mixture: Mapping[str, Any], experts: int) -> dict[str, Any]:
    """A mixture's mapping with the number of its experts in place of their functions, and with what suits these where it says
    nothing."""
    routed = text_of(mixture.get("router")) in [name for name, router in ROUTERS.items() if router.of_input]
    suits = {"slots": "joint", "reducer": "routed" if routed else "mean_of_outputs"}
    chosen = {name: value for name, value in mixture.items() if name not in suits or value_of(value) is not None}
    return {**suits, **chosen, "experts": experts}


def _function_dict(function: Function) -> dict[str, Any]:
    return {"name": name_of(FUNCTIONS, function), **plain_values(function)}


def _named(kind: type[T], table: Mapping[str, type[T]], choice: Any, key: str, dimension: str) -> T:
    """A value of a dimension: its name, or a mapping with `name` and options."""
    if isinstance(choice, str):
        choice = {"name": choice}
    if not isinstance(choice, Mapping):
        raise not_allowed(key, choice, f"a {dimension} (one of {', '.join(table)}) or a mapping with name")
    name = text_of(choice.get("name"))
    if not isinstance(name, str):
        raise not_allowed(f"{key}.name", name, f"the name of a {dimension} ({', '.join(table)})")
    if name not in table:
        own = " One of your own: imports=[MODULE] (or --import MODULE), or unipet.register_function."
        raise UnipetError(f"{unknown(f'{key}.name', name, table)}{own if kind is Function else ''}")
    return parse_options(table[name], choice, key, f"{dimension} '{name}'", ignore=("name",))


def _known_keys(data: Mapping[str, Any], allowed: tuple[str, ...], key: str, owner: str) -> None:
    for name in data:
        if name not in allowed:
            full = joined(key, name)
            raise no_option(full, owner, allowed, f"{nearest(name, (*allowed, *_DEEPER))} {remove_hint(full)}")


__all__ = ["UNFREEZE", "Constant", "InsertionSpec", "Method", "name_of", "parse_method"]
