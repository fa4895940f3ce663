"""Dataclasses that are JSON objects: read with their types checked, and written again.

What is read may come from another version. A key that it did not write, or wrote as null, has its default. A key that this
version does not know is kept in `others` and written again, so that passing a record on loses nothing.
"""

from __future__ import annotations

import functools
import types
import typing
from collections.abc import Callable
from dataclasses import MISSING, dataclass, field, fields
from typing import Any, Self

_ABSENT = {"absent": True}
#: What JSON has for a type, and what an error calls it. A whole number may stand where any number may.
_SCALARS: dict[Any, tuple[frozenset[type], str]] = {
    str: (frozenset({str}), "a text"),
    int: (frozenset({int}), "a whole number"),
    float: (frozenset({float, int}), "a number"),
    bool: (frozenset({bool}), "true or false"),
}


class WrongType(Exception):
    """A value of another type than its key has; `path` leads there from the outermost object."""

    def __init__(self, wanted: str, value: object) -> None:
        super().__init__(wanted)
        self.wanted, self.value = wanted, value
        self.path: list[str] = []


def added_later(default: Any = MISSING, factory: Any = MISSING) -> Any:
    """A field that is not written while it has its default: a run may end before it knows the value."""
    if factory is not MISSING:
        return field(default_factory=factory, metadata=_ABSENT)
    return field(default=default, metadata=_ABSENT)


@dataclass(kw_only=True)
class JsonObject:
    """A dataclass whose fields are the keys of a JSON object, in their order."""

    others: dict[str, Any] = field(default_factory=dict, repr=False)  # keys that this version does not know

    @classmethod
    def from_dict(cls, content: Any) -> Self:
        """The object that `content` (parsed JSON) describes. Raises `WrongType`."""
        if type(content) is not dict:
            raise WrongType("an object", content)
        readers = _readers(typing.cast("Any", cls))
        known: dict[str, Any] = {}
        others: dict[str, Any] = {}
        for key, value in content.items():
            if key not in readers:
                others[key] = value
            elif value is not None:
                known[key] = _inside(key, readers[key], value)
        return cls(**known, others=others)

    @classmethod
    def read_key(cls, key: str, value: Any) -> Any:
        """The value of one key as the object holds it; that of an unknown key as it is. Raises `WrongType`."""
        reader = _readers(typing.cast("Any", cls)).get(key)
        return value if reader is None or value is None else _inside(key, reader, value)

    @classmethod
    def from_parts(cls, parts: dict[str, Any]) -> Self:
        """The object of values that `read_key` returned."""
        readers = _readers(typing.cast("Any", cls))
        known = {key: value for key, value in parts.items() if key in readers and value is not None}
        return cls(**known, others={key: value for key, value in parts.items() if key not in readers})

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON, as it is written. What is changed in it does not change the object."""
        written: dict[str, Any] = {}
        for name, absent in _names(typing.cast("Any", type(self))):
            value = getattr(self, name)
            if absent is MISSING or value != absent:
                written[name] = _plain(value)
        return written | self.others


def _plain(value: Any) -> Any:
    if isinstance(value, JsonObject):
        return value.to_dict()
    if isinstance(value, dict):
        return {key: _plain(inner) for key, inner in value.items()}
    return [_plain(inner) for inner in value] if isinstance(value, list | tuple) else value


Reader = Callable[[Any], Any]


@functools.cache
def _readers(cls: type[Any]) -> dict[str, Reader]:
    """Key -> what reads its value. Built once for each class: thousands of records are read without looking at types again."""
    hints = typing.get_type_hints(cls)
    return {each.name: _reader(hints[each.name]) for each in fields(cls) if each.name != "others"}


@functools.cache
def _names(cls: type[Any]) -> list[tuple[str, Any]]:
    """(key, the value with which it is not written) in the order of the fields."""
    found = []
    for each in fields(cls):
        default = each.default if each.default_factory is MISSING else each.default_factory()
        if each.name != "others":
            found.append((each.name, default if each.metadata == _ABSENT else MISSING))
    return found


def _reader(hint: Any) -> Reader:
    """What checks and reads a value of this type."""
    if typing.get_origin(hint) in (types.UnionType, typing.Union):  # null never gets here
        (hint,) = (each for each in typing.get_args(hint) if each is not type(None))
    if hint is Any:
        return lambda value: value
    if hint in _SCALARS:
        return functools.partial(_scalar, *_SCALARS[hint])
    kind, inner = typing.get_origin(hint), typing.get_args(hint)
    if kind is not None:
        kinds = _SCALARS[inner[-1]][0] if inner[-1] in _SCALARS else frozenset[type]()
        return functools.partial(_list if kind is list else _dict, _reader(inner[-1]), kinds)
    return typing.cast("type[JsonObject]", hint).from_dict


def _scalar(kinds: frozenset[type], wanted: str, value: Any) -> Any:
    if type(value) not in kinds:
        raise WrongType(wanted, value)
    return value


def _list(read: Reader, kinds: frozenset[type], value: Any) -> list[Any]:
    if type(value) is not list:
        raise WrongType("a list", value)
    if kinds.issuperset(map(type, value)):  # all are scalars of the right type, seen at once
        return value
    return [_inside(str(place), read, inner) for place, inner in enumerate(value)]


def _dict(read: Reader, kinds: frozenset[type], value: Any) -> dict[str, Any]:
    if type(value) is not dict:
        raise WrongType("an object", value)
    if kinds.issuperset(map(type, value.values())):
        return value
    return {key: _inside(key, read, inner) for key, inner in value.items()}


def _inside(key: str, read: Reader, value: Any) -> Any:
    try:
        return read(value)
    except WrongType as error:
        error.path.insert(0, key)
        raise
