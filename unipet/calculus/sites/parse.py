"""A table as plain data, and back: how a user describes an architecture that has no file here."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import MISSING, fields
from typing import Any

from unipet.calculus.sites.table import AT, BLOCKS, ROLES, Architecture, HookPoint, Stack
from unipet.errors import UnipetError, not_allowed, unknown

STACKS = ("encoder", "decoder")
_TABLE = tuple(field.name for field in fields(Architecture))
_STACK = {field.name: field for field in fields(Stack)}
_POINT = tuple(field.name for field in fields(HookPoint))
_FLAGS = ("parallel", "causal")
_NORMS = {
    "norms": "a mapping from a block to the norm before it",
    "post_norms": "a mapping from a block to the norm after it",
}
HookPoints = dict[str, tuple[HookPoint, ...]]


def parse_table(data: Any, key: str = "sites") -> Architecture:
    """A table from plain data, as YAML gives it. Raises UnipetError with the full key of the first mistake.

    Whether it fits a model is another question: `check_table`.
    """
    table = _mapping(data, key, _TABLE, "a mapping with name, model_types and stacks")
    _needs(table, ("name", "model_types", "stacks"), key)
    stacks = _mapping(table["stacks"], f"{key}.stacks", STACKS, "a mapping with encoder, decoder or both")
    if not stacks:
        raise UnipetError(f"{key}.stacks: empty. Describe {' or '.join(STACKS)}.")
    without = _mapping(table.get("without") or {}, f"{key}.without", ROLES, "a mapping from a role to the reason")
    return Architecture(
        name=_text(table["name"], f"{key}.name"),
        model_types=_texts(table["model_types"], f"{key}.model_types"),
        stacks={name: _stack(stack, f"{key}.stacks.{name}") for name, stack in stacks.items()},
        when=_when(table.get("when") or {}, f"{key}.when"),
        without={role: _text(why, f"{key}.without.{role}") for role, why in without.items()},
        unit_norms=_flag(table.get("unit_norms", False), f"{key}.unit_norms"),
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


def _when(data: Any, key: str) -> dict[str, Any]:
    values = dict(_mapping(data, key, None, "a mapping from a name of the model's configuration to its value"))
    for name, value in values.items():
        if not isinstance(name, str) or not isinstance(value, bool | int | float | str | None):
            raise not_allowed(f"{key}.{name}", value, "a name of the model's configuration, and its value")
    return values


def _stack(data: Any, key: str) -> Stack:
    stack = _mapping(data, key, _STACK, "a mapping with layers and roles")
    _needs(stack, ("layers", "roles"), key)
    roles = _points(stack["roles"], f"{key}.roles")
    if not roles:
        raise UnipetError(f"{key}.roles: empty. Name the module of at least one role, for example attn.q.")
    norms = {name: _mapping(stack.get(name) or {}, f"{key}.{name}", BLOCKS, said) for name, said in _NORMS.items()}
    others = {name: field for name, field in _STACK.items() if name not in ("layers", "roles", "outside", *_NORMS)}
    read: dict[str, Any] = {}
    for name, field in others.items():
        value, full = stack.get(name, field.default), f"{key}.{name}"
        read[name] = _flag(value, full) if name in _FLAGS else _text(value, full, empty=name == "entry")
    return Stack(
        layers=_text(stack["layers"], f"{key}.layers"),
        roles=roles,
        outside=_points(stack.get("outside") or {}, f"{key}.outside"),
        norms=_paths(norms["norms"], f"{key}.norms"),
        post_norms=_paths(norms["post_norms"], f"{key}.post_norms"),
        **read,
    )


def _paths(data: Mapping[str, Any], key: str) -> dict[str, str]:
    return {block: _text(path, f"{key}.{block}") for block, path in data.items()}


def _points(data: Any, key: str) -> HookPoints:
    roles = _mapping(data, key, ROLES, "a mapping from a role to its modules")
    found: HookPoints = {}
    for role, points in roles.items():
        several = isinstance(points, list) and bool(points)
        found[role] = tuple(
            _point(one, role, f"{key}.{role}[{index}]" if several else f"{key}.{role}")
            for index, one in enumerate(points if several else [points])
        )
    return found


def _point(data: Any, role: str, key: str) -> HookPoint:
    if isinstance(data, str):
        data = {"h": data}
    point = _mapping(data, key, _POINT, "a module path, or a mapping with h")
    _needs(point, ("h",), key)
    in_heads = role.endswith(".heads")
    at = point.get("at", "heads" if in_heads else "output")
    if at not in AT:
        raise unknown(f"{key}.at", at, AT)
    if (at == "heads") != in_heads:
        allowed = "heads" if in_heads else ", ".join(place for place in AT if place != "heads")
        raise not_allowed(f"{key}.at", at, allowed, "attn.heads and cross.heads are at: heads, and no other role is.")
    part = point.get("part")
    if part is not None and not _is_part(part):
        raise not_allowed(f"{key}.part", part, "[index from 0, number of equal parts], such as [0, 3]")
    if part is not None and at != "output":
        raise UnipetError(f"{key}.part: only an output has parts, and this role is at: {at}.")
    per_head = _flag(point.get("per_head", False), f"{key}.per_head")
    if per_head and part is None:
        raise UnipetError(f"{key}.per_head: it says how part is meant, and there is no part.")
    x = point.get("x")
    return HookPoint(
        h=_text(point["h"], f"{key}.h", empty=True),
        x=None if x is None else _text(x, f"{key}.x", empty=True),
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
            data[name] = _points_data(value) if name in ("roles", "outside") else value
    return data


def _points_data(points: Mapping[str, tuple[HookPoint, ...]]) -> dict[str, Any]:
    return {
        role: _point_data(own[0], role) if len(own) == 1 else [_point_data(t, role) for t in own]
        for role, own in points.items()
    }


def _point_data(point: HookPoint, role: str) -> Any:
    usual = HookPoint(point.h, at="heads" if role.endswith(".heads") else "output")
    more = {name: getattr(point, name) for name in _POINT if getattr(point, name) != getattr(usual, name)}
    if point.part is not None:
        more["part"] = list(point.part)
    return {"h": point.h, **more} if more else point.h


def _mapping(data: Any, key: str, names: Iterable[str] | None, allowed: str) -> Mapping[str, Any]:
    if not isinstance(data, Mapping):
        raise not_allowed(key, data, allowed)
    for name in data:
        if names is not None and name not in names:
            raise unknown(f"{key}.{name}", name, names)
    return data


def _needs(data: Mapping[str, Any], names: tuple[str, ...], key: str) -> None:
    for name in names:
        if data.get(name) is None:
            raise UnipetError(f"{key}.{name}: missing. {key} needs {', '.join(names)}.")


def _text(value: Any, key: str, empty: bool = False) -> str:
    if not isinstance(value, str) or not (value or empty):
        raise not_allowed(key, value, "a name or a module path")
    if value and "" in value.split("."):
        meant = ' The base model itself is "".' if empty else ""
        raise UnipetError(f"{key}: {value!r} is no module path; a name stands before and after every dot.{meant}")
    return value


def _texts(value: Any, key: str) -> tuple[str, ...]:
    values = value if isinstance(value, list | tuple) else [value]
    if not values:
        raise UnipetError(f"{key}: empty. Name the model_type of the configuration that this table is for.")
    return tuple(_text(one, f"{key}[{i}]" if len(values) > 1 else key) for i, one in enumerate(values))


def _flag(value: Any, key: str) -> bool:
    if not isinstance(value, bool):
        raise not_allowed(key, value, "true or false")
    return value
