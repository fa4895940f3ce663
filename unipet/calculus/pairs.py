"""Choices of an insertion that are fine alone but not together; and what a method file calls a choice."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from unipet.calculus.composition import COMPOSITIONS
from unipet.calculus.functions import FUNCTIONS
from unipet.calculus.functions.base import LinearMap, Widths
from unipet.errors import UnipetError

if TYPE_CHECKING:
    from unipet.calculus.method import InsertionSpec


def check_pairs(spec: InsertionSpec, where: str) -> None:
    """Raise UnipetError for choices that are fine alone but not together."""
    function, position = spec.function, spec.position
    label, in_heads = name_of(FUNCTIONS, function), [role for role in position.site if role.endswith(".heads")]
    rule, joined = spec.composition, name_of(COMPOSITIONS, spec.composition)
    if rule.shares_softmax and not function.shares_softmax:
        able = ", ".join(name for name, cls in FUNCTIONS.items() if cls.shares_softmax)
        raise UnipetError(
            f"{where}.composition: {joined!r} shares the attention's softmax, which function {label!r} takes "
            f"no part in. Use function {able}, or another composition (add, multiply, replace)."
        )
    needed = {"activation": "softmax", "norm": "none", "scaled": True}
    for key, value in needed.items():
        if rule.shares_softmax and getattr(function, key, value) != value:
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
        if spec.mixture.by_row and (rule.shares_softmax or rule.needs_weight):
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
