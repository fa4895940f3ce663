"""A table as plain data, and back: how a user describes an architecture that has no file here."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import MISSING, fields
from typing import Any

from unipet.calculus.sites.table import AT, BLOCKS, ROLES, Architecture, Stack, Tap
from unipet.errors import UnipetError, not_allowed, unknown

STACKS = ("encoder", "decoder")
_TABLE = tuple(field.name for field in fields(Architecture))
_STACK = {field.name: field for field in fields(Stack)}
_TAP = tuple(field.name for field in fields(Tap))
_FLAGS = ("parallel", "causal")
_NORMS = {
    "norms": "a mapping from a block to the norm before it",
    "post_norms": "a mapping from a block to the norm after it",
}
Taps = dict[str, tuple[Tap, ...]]


def parse_table(given: Any, where: str = "sites") -> Architecture:
    """A table from plain data, as YAML gives it. Raises UnipetError with the full key of the first mistake.

    Whether it fits a model is another question: `check_table`.
    """
    table = _mapping(given, where, _TABLE, "a mapping with name, model_types and stacks")
    _needs(table, ("name", "model_types", "stacks"), where)
    stacks = _mapping(table["stacks"], f"{where}.stacks", STACKS, "a mapping with encoder, decoder or both")
    if not stacks:
        raise UnipetError(f"{where}.stacks: empty. Describe {' or '.join(STACKS)}.")
    without = _mapping(table.get("without") or {}, f"{where}.without", ROLES, "a mapping from a role to the reason")
    return Architecture(
        name=_text(table["name"], f"{where}.name"),
        model_types=_texts(table["model_types"], f"{where}.model_types"),
        stacks={name: _stack(stack, f"{where}.stacks.{name}") for name, stack in stacks.items()},
        when=_when(table.get("when") or {}, f"{where}.when"),
        without={role: _text(why, f"{where}.without.{role}") for role, why in without.items()},
        unit_norms=_flag(table.get("unit_norms", False), f"{where}.unit_norms"),
    )


def table_data(table: Architecture) -> dict[str, Any]:
    """The table as plain data that `parse_table` reads back to an equal one; what has its default is left out."""
    data: dict[str, Any] = {
        "name": table.name,
        "model_types": list(table.model_types),
        "stacks": {name: _stack_data(stack) for name, stack in table.stacks.items()},
        "when": dict(table.when),
        "without": dict(table.without),
        "unit_norms": table.unit_norms,
    }
    return {key: value for key, value in data.items() if value or key in ("name", "model_types", "stacks")}


def _when(given: Any, where: str) -> dict[str, Any]:
    values = dict(_mapping(given, where, None, "a mapping from a name of the model's configuration to its value"))
    for key, value in values.items():
        if not isinstance(key, str) or not isinstance(value, bool | int | float | str | None):
            raise not_allowed(f"{where}.{key}", value, "a name of the model's configuration, and its value")
    return values


def _stack(given: Any, where: str) -> Stack:
    stack = _mapping(given, where, _STACK, "a mapping with layers and roles")
    _needs(stack, ("layers", "roles"), where)
    roles = _taps(stack["roles"], f"{where}.roles")
    if not roles:
        raise UnipetError(f"{where}.roles: empty. Name the module of at least one role, for example attn.q.")
    norms = {key: _mapping(stack.get(key) or {}, f"{where}.{key}", BLOCKS, what) for key, what in _NORMS.items()}
    others = {name: field for name, field in _STACK.items() if name not in ("layers", "roles", "outside", *_NORMS)}
    read: dict[str, Any] = {}
    for name, field in others.items():
        value, key = stack.get(name, field.default), f"{where}.{name}"
        read[name] = _flag(value, key) if name in _FLAGS else _text(value, key, empty=name == "entry")
    return Stack(
        layers=_text(stack["layers"], f"{where}.layers"),
        roles=roles,
        outside=_taps(stack.get("outside") or {}, f"{where}.outside"),
        norms=_paths(norms["norms"], f"{where}.norms"),
        post_norms=_paths(norms["post_norms"], f"{where}.post_norms"),
        **read,
    )


def _paths(given: Mapping[str, Any], where: str) -> dict[str, str]:
    return {block: _text(path, f"{where}.{block}") for block, path in given.items()}


def _taps(given: Any, where: str) -> Taps:
    roles = _mapping(given, where, ROLES, "a mapping from a role to its modules")
    found: Taps = {}
    for role, taps in roles.items():
        several = isinstance(taps, list) and bool(taps)
        found[role] = tuple(
            _tap(one, role, f"{where}.{role}[{index}]" if several else f"{where}.{role}")
            for index, one in enumerate(taps if several else [taps])
        )
    return found


def _tap(given: Any, role: str, where: str) -> Tap:
    if isinstance(given, str):
        given = {"h": given}
    tap = _mapping(given, where, _TAP, "a module path, or a mapping with h")
    _needs(tap, ("h",), where)
    in_heads = role.endswith(".heads")
    at = tap.get("at", "heads" if in_heads else "output")
    if at not in AT:
        raise unknown(f"{where}.at", at, AT)
    if (at == "heads") != in_heads:
        allowed = "heads" if in_heads else ", ".join(place for place in AT if place != "heads")
        raise not_allowed(f"{where}.at", at, allowed, "attn.heads and cross.heads are at: heads, and no other role is.")
    part = tap.get("part")
    if part is not None and not _is_part(part):
        raise not_allowed(f"{where}.part", part, "[index from 0, number of equal parts], such as [0, 3]")
    if part is not None and at != "output":
        raise UnipetError(f"{where}.part: only an output has parts, and this role is at: {at}.")
    per_head = _flag(tap.get("per_head", False), f"{where}.per_head")
    if per_head and part is None:
        raise UnipetError(f"{where}.per_head: it says how part is meant, and there is no part.")
    x = tap.get("x")
    return Tap(
        h=_text(tap["h"], f"{where}.h", empty=True),
        x=None if x is None else _text(x, f"{where}.x", empty=True),
        at=at,
        part=None if part is None else (part[0], part[1]),
        per_head=per_head,
    )


def _is_part(part: Any) -> bool:
    whole = isinstance(part, list | tuple) and len(part) == 2 and all(type(number) is int for number in part)
    return whole and part[1] >= 2 and 0 <= part[0] < part[1]


def _stack_data(stack: Stack) -> dict[str, Any]:
    data: dict[str, Any] = {}
    for name, field in _STACK.items():
        value = getattr(stack, name)
        default = {} if field.default is MISSING else field.default
        if name in ("layers", "roles") or value != default:
            data[name] = _taps_data(value) if name in ("roles", "outside") else value
    return data


def _taps_data(taps: Mapping[str, tuple[Tap, ...]]) -> dict[str, Any]:
    return {
        role: _tap_data(own[0], role) if len(own) == 1 else [_tap_data(t, role) for t in own]
        for role, own in taps.items()
    }


def _tap_data(tap: Tap, role: str) -> Any:
    usual = Tap(tap.h, at="heads" if role.endswith(".heads") else "output")
    more = {name: getattr(tap, name) for name in _TAP if getattr(tap, name) != getattr(usual, name)}
    if tap.part is not None:
        more["part"] = list(tap.part)
    return {"h": tap.h, **more} if more else tap.h


def _mapping(given: Any, where: str, allowed: Iterable[str] | None, expected: str) -> Mapping[str, Any]:
    if not isinstance(given, Mapping):
        raise not_allowed(where, given, expected)
    for key in given:
        if allowed is not None and key not in allowed:
            raise unknown(f"{where}.{key}", key, allowed)
    return given


def _needs(given: Mapping[str, Any], keys: tuple[str, ...], where: str) -> None:
    for key in keys:
        if given.get(key) is None:
            raise UnipetError(f"{where}.{key}: missing. {where} needs {', '.join(keys)}.")


def _text(value: Any, where: str, empty: bool = False) -> str:
    if not isinstance(value, str) or not (value or empty):
        raise not_allowed(where, value, "a name or a module path")
    if value and "" in value.split("."):
        meant = ' The base model itself is "".' if empty else ""
        raise UnipetError(f"{where}: {value!r} is no module path; a name stands before and after every dot.{meant}")
    return value


def _texts(value: Any, where: str) -> tuple[str, ...]:
    values = value if isinstance(value, list | tuple) else [value]
    if not values:
        raise UnipetError(f"{where}: empty. Name the model_type of the configuration that this table is for.")
    return tuple(_text(one, f"{where}[{i}]" if len(values) > 1 else where) for i, one in enumerate(values))


def _flag(value: Any, where: str) -> bool:
    if not isinstance(value, bool):
        raise not_allowed(where, value, "true or false")
    return value
