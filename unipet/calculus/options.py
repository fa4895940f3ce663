"""Options of a value of a dimension: dataclass fields with limits, and the one parser that turns YAML into them."""

from __future__ import annotations

import dataclasses
import functools
import math
import shlex
import types
import typing
from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

from unipet.calculus.yaml_reader import text_of, texts, value_of, values
from unipet.errors import UnipetError, nearest, unknown

T = TypeVar("T")


def option(default: Any, *, low: float | None = None, high: float | None = None, choices: Sequence[str] = ()) -> Any:
    """A dataclass field with its allowed range (inclusive) or its allowed names."""
    limits = {"low": low, "high": high, "choices": tuple(choices)}
    if isinstance(default, list):
        return dataclasses.field(default_factory=lambda: list(default), metadata=limits)
    return dataclasses.field(default=default, metadata=limits)


def remove_hint(where: str) -> str:
    """The override that takes a key out of a composed configuration."""
    return f"Remove it with the override {shlex.quote(f'~{where}')} (or delete the line)."


def parse_options(cls: type[T], given: Any, where: str, owner: str, ignore: Sequence[str] = ()) -> T:
    """Build the dataclass `cls` from a mapping.

    `where` is the full key that errors name (`method.insertions.ffn.function`), `owner` says whose options these are
    (`function 'bottleneck'`). A text option takes an unquoted scalar of YAML as the text that was written. Raises
    UnipetError for unknown and missing keys, wrong types and values outside the limits.
    """
    if not isinstance(given, Mapping):
        raise UnipetError(f"{where}: expected a mapping of options, got {value_of(given)!r}.")
    fields = {field.name: field for field in dataclasses.fields(cls)}  # type: ignore[arg-type]
    hints = _hints(cls)  # type: ignore[arg-type]
    found: dict[str, Any] = {}
    for key, value in given.items():
        if key in ignore:
            continue
        if key not in fields:
            allowed = ", ".join(sorted([*ignore, *fields])) or "(none)"
            raise UnipetError(
                f"{where}.{key}: {owner} has no option {key!r}. It has: {allowed}."
                f"{nearest(key, fields)} {remove_hint(f'{where}.{key}')}"
            )
        found[key] = _value(hints[key], value, f"{where}.{key}", fields[key].metadata)
    lacking = [name for name, field in fields.items() if name not in found and _required(field)]
    if lacking:
        raise UnipetError(f"{where}.{lacking[0]}: not given, and {owner} has no default for it. Set it.")
    return cls(**found)


def _required(field: dataclasses.Field[Any]) -> bool:
    return field.init and field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING


@functools.cache
def _hints(cls: type) -> dict[str, Any]:
    return typing.get_type_hints(cls)


def _value(hint: Any, value: Any, where: str, limits: Mapping[str, Any]) -> Any:
    if typing.get_origin(hint) in (types.UnionType, typing.Union):
        if value_of(value) is None:
            return None
        hint = next(part for part in typing.get_args(hint) if part is not type(None))
    if dataclasses.is_dataclass(hint):
        return parse_options(typing.cast("type[Any]", hint), value, where, where.rsplit(".", 1)[-1])
    if typing.get_origin(hint) is list:
        items = value if isinstance(value, Sequence) and not isinstance(value, str) else [value]
        return [_value(typing.get_args(hint)[0], item, f"{where}[{i}]", limits) for i, item in enumerate(items)]
    if hint is str:
        value = text_of(value)
    elif hint == dict[str, str] and isinstance(value, Mapping):
        value = texts(value)
    else:
        value = values(value)
    if hint is bool:
        return _typed(value, isinstance(value, bool), where, "true or false")
    if hint is int:
        whole = _typed(value, isinstance(value, int) and not isinstance(value, bool), where, "a whole number")
        return _in_range(whole, where, limits)
    if hint is float:
        return _in_range(float(number(value, where)), where, limits)
    if hint is str:
        name = _typed(value, isinstance(value, str), where, "a name")
        if limits.get("choices") and name not in limits["choices"]:
            raise unknown(where, name, limits["choices"])
        return name
    return value


def number(value: Any, where: str) -> int | float:
    """A finite number, or a UnipetError that names the key."""
    value = value_of(value)
    numeric = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    return typing.cast("int | float", _typed(value, numeric, where, "a finite number"))


def share(value: Any, where: str) -> float | None:
    """A number of at least 0, or None; anything else is a UnipetError that names the key."""
    return None if value_of(value) is None else _in_range(float(number(value, where)), where, {"low": 0})


def _typed(value: Any, fits: bool, where: str, expected: str) -> Any:
    if not fits:
        raise UnipetError(f"{where}: expected {expected}, got {value!r} ({type(value).__name__}).")
    return value


def _in_range(value: float, where: str, limits: Mapping[str, Any]) -> float:
    low, high = limits.get("low"), limits.get("high")
    if (low is not None and value < low) or (high is not None and value > high):
        span = f"at least {low}" if high is None else f"between {low} and {high}"
        raise UnipetError(f"{where}: {value} is out of range, it must be {span}.")
    return value
