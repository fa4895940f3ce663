"""The composed mapping -> `RunConfig`, strictly: a key that no dataclass has is an error at any depth.

Hydra checks most keys itself, but accepts `+budget.peak=3` for a `budget` without such a key; nothing may pass silently.
"""

from __future__ import annotations

import dataclasses
import types
import typing
from collections.abc import Mapping
from typing import Any

from unipet.compose.imports import import_modules
from unipet.config import RunConfig
from unipet.errors import SYNONYMS, UnipetError, nearest, unknown


def run_config(values: Mapping[str, Any]) -> RunConfig:
    """A run's configuration from plain values. Raises `UnipetError` for unknown or missing keys."""
    config = build(RunConfig, values, "")
    assert isinstance(config, RunConfig)
    return config


def configured(values: Mapping[str, Any]) -> RunConfig:
    """A run's configuration, the modules imported that it names: a job may run in a process of its own."""
    config = run_config(values)
    import_modules(config.imports)
    return config


def build(cls: type, values: object, where: str) -> Any:
    """The dataclass `cls` from a mapping; `where` is the key of that mapping."""
    if not isinstance(values, Mapping):
        raise UnipetError(f"{where}: given {values!r}, which is not a mapping of {', '.join(field_names(cls))}.")
    hints = typing.get_type_hints(cls)
    built = {}
    for key, value in values.items():
        full = f"{where}.{key}" if where else str(key)
        if key not in hints:
            raise unknown(f"key {full}", key, hints)
        if value == "???":
            raise UnipetError(f"{full}: not given. Set it, for example {full}={example(hints[key])}.")
        built[key] = build(hints[key], value, full) if dataclasses.is_dataclass(hints[key]) else value
    return cls(**built)


def field_names(cls: type) -> list[str]:
    """The keys of a dataclass."""
    return [field.name for field in dataclasses.fields(cls)]


def check_key(key: str, extra: tuple[str, ...] = ()) -> None:
    """Raise `UnipetError` unless `key` (dotted) exists in `RunConfig`; `extra` are other allowed first parts.

    Keys inside `method` are not checked here: `load_method` knows them.
    """
    current: Any = RunConfig
    seen: list[str] = []
    for part in key.split("."):
        if not dataclasses.is_dataclass(current):
            if is_mapping(current):
                return
            raise UnipetError(f"key {key}: {'.'.join(seen)} is a single value and has no {part!r} inside.")
        hints = typing.get_type_hints(current)
        seen.append(part)
        if part not in hints:
            allowed = [*hints, *extra] if len(seen) == 1 else list(hints)
            raise UnipetError(
                f"key {'.'.join(seen)}: unknown {part!r}. Allowed: {', '.join(sorted(allowed))}.{_meant(part, allowed)}"
            )
        current = hints[part]


def _meant(part: str, allowed: list[str]) -> str:
    """The nearest key, here or, where another group has it under that name or the field's word for it, there."""
    elsewhere = [*key_paths(), "method.insertions.NAME.function.size"]
    named = [path for path in elsewhere if path.endswith(f".{part}")]
    words = [name for name in SYNONYMS.get(part.lower(), ()) if name in allowed or name in elsewhere]
    found = next((name for name in words if name in allowed), None) or next(iter([*named, *words]), None)
    return f" Did you mean '{found}'?" if found else nearest(part, allowed)


def key_paths() -> list[str]:
    """Every key of a group, as a command line writes it: `optim.lr`."""
    groups = {name: kind for name, kind in typing.get_type_hints(RunConfig).items() if dataclasses.is_dataclass(kind)}
    return [f"{group}.{name}" for group, kind in groups.items() for name in field_names(typing.cast("type", kind))]


def type_at(key: str) -> Any:
    """The type that `RunConfig` gives a dotted key, or None when it gives none."""
    current: Any = RunConfig
    for part in key.split("."):
        if not dataclasses.is_dataclass(current):
            return None
        current = typing.get_type_hints(current).get(part)
    return current


def is_mapping(kind: Any) -> bool:
    """True for dict[...] annotations."""
    return typing.get_origin(kind) is dict


def expected(kind: Any) -> str:
    """A type in a user's words."""
    if isinstance(kind, types.UnionType):
        inner = [part for part in typing.get_args(kind) if part is not types.NoneType]
        return f"{expected(inner[0])} or null"
    if typing.get_origin(kind) is list:
        return "a list such as [a,b]"
    if is_mapping(kind) or dataclasses.is_dataclass(kind):
        return "a mapping"
    return {int: "a whole number", float: "a number", bool: "true or false", str: "text"}.get(kind, "another type")


def example(kind: Any) -> str:
    """A value of this type, for an error's example."""
    if isinstance(kind, types.UnionType):
        kind = typing.get_args(kind)[0]
    return {int: "1", float: "0.1", bool: "true", str: "VALUE"}.get(kind, "[a,b]")
