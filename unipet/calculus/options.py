"""The one parser from YAML to a dataclass of options, and the one check of what Python put into one.

What limits an option stands on its field (`option`): the values of the dimensions and the configuration of a run alike.
"""

from __future__ import annotations

import dataclasses
import functools
import math
import re
import shlex
import types
import typing
from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

from unipet.calculus.yaml_reader import text_of, texts, value_of, values
from unipet.config import option as option  # the values of the dimensions know no configuration of a run
from unipet.errors import UnipetError, nearest, not_allowed, unknown

T = TypeVar("T")
MISSING = "???"  # the value of a key that a file leaves to whoever uses it
SHOWN = 100  # characters of a key's name in an error
_TEXTS, _TEXTS_OF, _NUMBERS = dict[str, str], dict[str, dict[str, str]], dict[str, float]
_FREE: Mapping[str, Any] = {}
_ENDS = {"low": "at least", "above": "greater than", "high": "at most", "below": "less than"}


def remove_hint(key: str) -> str:
    """The override that takes a key out of a composed configuration."""
    return f"Remove it with the override {shlex.quote(f'~{key}')} (or delete the line)."


def parse_options(
    cls: type[T], options: Any, key: str, owner: str, ignore: Sequence[str] = (), as_given: bool = False
) -> T:
    """Build the dataclass `cls` from a mapping.

    `key` is the full key that errors name (`method.insertions.ffn.function`), `owner` says whose options these are
    (`function 'bottleneck'`). A text option takes an unquoted scalar of YAML as the text that was written; a whole number for a
    `float` becomes one, unless it stays `as_given`. Raises UnipetError for unknown and missing keys, wrong types and values
    outside the limits.
    """
    if not isinstance(options, Mapping):
        raise not_allowed(key, value_of(options), "a mapping of options")
    fields = {field.name: field for field in dataclasses.fields(cls)}  # type: ignore[arg-type]
    hints = hints_of(cls)  # type: ignore[arg-type]
    parsed: dict[str, Any] = {}
    for name, value in options.items():
        if name in ignore:
            continue
        full = joined(key, name)
        if name not in fields:
            raise no_option(full, owner, [*ignore, *fields], f"{nearest(name, fields)} {remove_hint(full)}")
        if value == MISSING:
            raise not_given(full, hints[name])
        parsed[name] = parse_value(hints[name], value, full, fields[name].metadata, as_given)
    lacking = [name for name, field in fields.items() if name not in parsed and _required(field)]
    if lacking:
        raise not_given(joined(key, lacking[0]), hints[lacking[0]], f", and {owner} has no default for it")
    return cls(**parsed)


def check_options(cls: type, built: Any, key: str) -> None:
    """Raise UnipetError unless every field of `built`, a `cls` or what has its fields, holds what its type and limits allow:
    Python may have put anything there. `key` is the full key of `built`."""
    hints = hints_of(cls)
    for field in dataclasses.fields(cls):
        hint, value, full = hints[field.name], getattr(built, field.name), joined(key, field.name)
        if dataclasses.is_dataclass(hint):
            if not all(hasattr(value, name) for name in hints_of(typing.cast("type", hint))):
                raise not_allowed(full, value, f"a {getattr(hint, '__name__', hint)}")
            check_options(typing.cast("type", hint), value, full)
        elif typing.get_origin(hint) is list and isinstance(value, str):
            raise not_allowed(full, value, f"a list, for example [{value}]")
        elif typing.get_origin(hint) is list and not isinstance(value, Sequence):
            raise not_allowed(full, value, allowed(hint, field.metadata))
        else:
            parse_value(hint, value, full, field.metadata)


def no_option(full: str, owner: str, has: Sequence[str], meant: str) -> UnipetError:
    """An error for a key that does not exist; `meant` says what to do instead."""
    names = ", ".join(sorted(has)) or "(none)"
    return UnipetError(f"{full}: {owner} has no option {full.rpartition('.')[2]!r}. It has: {names}.{meant}")


def not_given(full: str, hint: Any, why: str = "") -> UnipetError:
    """An error for a key that needs a value."""
    example = {int: "1", float: "0.1", bool: "true", str: "VALUE"}.get(_but_none(hint), "[a,b]")
    return UnipetError(f"{full}: not given{why}. Set it, for example {full}={example}.")


def parse_value(hint: Any, value: Any, key: str, limits: Mapping[str, Any] = _FREE, as_given: bool = False) -> Any:
    """One option's value as its type has it. Raises UnipetError for another type, and for a value outside the limits."""
    kind = _NUMBERS if limits.get("numbers") else _but_none(hint)
    if kind is not hint and value_of(value) is None:
        return None
    if dataclasses.is_dataclass(kind):
        return parse_options(typing.cast("type[Any]", kind), value, key, key.rsplit(".", 1)[-1], (), as_given)
    if typing.get_origin(kind) is list:
        items = value if isinstance(value, Sequence) and not isinstance(value, str) else [value]
        inner = typing.get_args(kind)[0]
        return [parse_value(inner, item, f"{key}[{i}]", limits, as_given) for i, item in enumerate(items)]
    if kind == _NUMBERS and isinstance(value, str) and text_of(value) in limits.get("choices", ()):
        return text_of(value)
    if kind == dict[str, Any]:  # a method: its own parser knows the types in it
        return value
    if kind is str:
        value = text_of(value)
    else:
        value = texts(value) if kind in (_TEXTS, _TEXTS_OF) and isinstance(value, Mapping) else values(value)
    if not _fits(kind, value, limits):
        if limits.get("choices") and kind is str:
            raise _named_alone(key, value) if isinstance(value, Mapping) else unknown(key, value, limits["choices"])
        raise not_allowed(key, value, allowed(hint, limits))
    if kind == _NUMBERS:
        return {name: float(number) for name, number in value.items()}
    return float(value) if kind is float and not as_given else value


def _named_alone(key: str, value: Mapping[Any, Any]) -> UnipetError:
    """The error for a mapping in the place of a name."""
    name = value.get("name", "NAME")
    others = [joined(key.rpartition(".")[0], f"{each}={value[each]}") for each in value if each != "name"]
    beside = ", with its options beside it" if others else ""
    give = " ".join([f"{key}={name}", *others])
    return UnipetError(f"{key}: a name stands alone here, and {dict(value)!r:.200} is a mapping. Give {give}{beside}.")


def allowed(hint: Any, limits: Mapping[str, Any] = _FREE) -> str:
    """What an option of this type takes, in a user's words."""
    kind = _NUMBERS if limits.get("numbers") else _but_none(hint)
    null = " or null" if kind is not hint else ""
    null += f" {limits['null']}" if null and limits.get("null") else ""
    if said := limits.get("words") or ", ".join(limits.get("choices", ())):
        return f"{said}{null}"
    if kind is int:
        low, high = (limits.get(name) for name in ("low", "high"))
        least = "" if low in (None, -math.inf) else f" from {low}"
        return f"a whole number{least}{'' if high is None else f' to {high}'}{null}"
    if kind is float:
        ends = [f"{said} {limits[name]:g}" for name, said in _ENDS.items() if limits.get(name) not in (None, -math.inf)]
        return f"a finite number{' ' if ends else ''}{' and '.join(ends)}{null}"
    if kind is bool:
        return f"true or false{null}"
    if kind is str:
        return f"a text (a number in quotes is one){null}"
    return f"{'a list such as [a,b]' if typing.get_origin(kind) is list else 'a mapping'}{null}"


def _fits(kind: Any, value: Any, limits: Mapping[str, Any]) -> bool:
    if kind is bool:
        return isinstance(value, bool)
    if kind in (int, float):
        number = isinstance(value, int if kind is int else int | float) and not isinstance(value, bool)
        return number and (kind is int or _is_finite(value)) and _in_range(value, limits)
    if kind is str:
        choices, pattern = limits.get("choices"), limits.get("pattern")
        if not isinstance(value, str) or (choices and value not in choices) or (limits.get("filled") and not value):
            return False
        return not pattern or re.fullmatch(pattern, value) is not None
    if kind == _TEXTS:
        return isinstance(value, Mapping) and all(isinstance(text, str) for pair in value.items() for text in pair)
    if kind == _NUMBERS:
        return isinstance(value, Mapping) and all(
            isinstance(name, str) and _fits(float, number, limits) for name, number in value.items()
        )
    if kind == _TEXTS_OF:
        return isinstance(value, Mapping) and all(_fits(_TEXTS, inner, limits) for inner in value.values())
    return True


def _in_range(value: float, limits: Mapping[str, Any]) -> bool:
    low, above, high, below = (limits.get(name) for name in ("low", "above", "high", "below"))
    return (
        (low is None or value >= low)
        and (above is None or value > above)
        and (high is None or value <= high)
        and (below is None or value < below)
    )


def _is_finite(value: float) -> bool:
    try:
        return math.isfinite(value)
    except OverflowError:  # a whole number that no float can be
        return False


def _but_none(hint: Any) -> Any:
    """The type of an option that may be null; any other type as it is."""
    if typing.get_origin(hint) in (types.UnionType, typing.Union):
        return next(part for part in typing.get_args(hint) if part is not type(None))
    return hint


def joined(key: str, name: str) -> str:
    """The full key of the option `name` inside `key`, which is empty for the outermost ones; a name without end is cut."""
    text = str(name)
    text = text if len(text) <= SHOWN else f"{text[:SHOWN]}..."
    return f"{key}.{text}" if key else text


def _required(field: dataclasses.Field[Any]) -> bool:
    return field.init and field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING


@functools.cache
def hints_of(cls: type[Any]) -> dict[str, Any]:
    """The types of a dataclass's fields."""
    return typing.get_type_hints(cls)
