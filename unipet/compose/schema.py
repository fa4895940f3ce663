"""Converting parsed YAML to the types of `RunConfig`: text fields get the text as written, other fields its value."""

from __future__ import annotations

import dataclasses
import types
import typing
from collections.abc import Mapping
from typing import Any

from unipet.calculus.options import hints_of
from unipet.calculus.yaml_reader import Plain, text_of, texts, value_of, values
from unipet.config import RunConfig

#: Groups whose files belong to a method, whatever the key into which they are composed.
METHOD_GROUPS = ("method", "function", "position", "composition", "scaling", "mixture", "objective")
METHOD = dict[str, Any]  # the type of `RunConfig.method`: its parser reads texts and values by each option's own type
TEXTS: tuple[Any, ...] = (list[str], dict[str, str], dict[str, dict[str, str]])  # types that hold several texts


@dataclasses.dataclass(frozen=True)
class Place:
    """How far a dotted key leads into `RunConfig`: the parts that are keys, the type and the limits of the last of them,
    and the parts that lie deeper, inside a mapping or nowhere."""

    known: tuple[str, ...]
    kind: Any
    limits: Mapping[str, Any]
    deeper: tuple[str, ...]


def follow(key: str) -> Place:
    """Where a dotted key of `RunConfig` leads; the empty key is `RunConfig` itself."""
    parts = tuple(key.split(".")) if key else ()
    kind: Any = RunConfig
    limits: Mapping[str, Any] = {}
    for index, part in enumerate(parts):
        fields = {field.name: field for field in dataclasses.fields(kind)} if dataclasses.is_dataclass(kind) else {}
        if part not in fields:
            return Place(parts[:index], kind, limits, parts[index:])
        kind, limits = hints_of(typing.cast("type", kind))[part], fields[part].metadata
    return Place(parts, kind, limits, ())


def kind_at(key: str) -> Any:
    """The type of a dotted key of `RunConfig`, `METHOD` for every key inside a method, None for an unknown key."""
    place = follow(key)
    if not place.deeper or place.kind == METHOD:
        return place.kind
    return typing.get_args(place.kind)[1] if is_mapping(place.kind) else None


def is_mapping(kind: Any) -> bool:
    """True for dict[...] annotations."""
    return typing.get_origin(kind) is dict


def holds_text(kind: Any) -> bool:
    """Whether the type is a text, a list of texts or a mapping of texts."""
    return _is_text(kind) or kind in TEXTS


def typed(tree: Any, kind: Any) -> Any:
    """`tree` (from `parse_yaml`) with texts where the type `kind` has texts, and values elsewhere. Scalars inside a method
    stay unconverted."""
    if kind == METHOD:
        return _but_null(tree)
    if dataclasses.is_dataclass(kind) and isinstance(tree, Mapping):
        hints = hints_of(typing.cast("type", kind))
        return {key: typed(inner, hints.get(key)) for key, inner in tree.items()}
    if _is_text(kind):
        return None if value_of(tree) is None else text_of(tree) if isinstance(tree, str) else values(tree)
    if (kind == list[str] and isinstance(tree, list)) or (kind in TEXTS[1:] and isinstance(tree, Mapping)):
        return texts(tree)
    return values(tree)


def config_values(tree: Any) -> Any:
    """A run's whole `config.yaml`, converted to the types of `RunConfig`. The method's values are converted, too, because
    the file was written with their own types."""
    content = typed(tree, RunConfig)
    if not isinstance(content, Mapping):
        return content
    return {"imports": [], **content, "method": values(content.get("method"))}  # older files have no `imports`


def _is_text(kind: Any) -> bool:
    return kind is str or (isinstance(kind, types.UnionType) and set(typing.get_args(kind)) == {str, type(None)})


def _but_null(tree: Any) -> Any:
    if isinstance(tree, Mapping):
        return {key: _but_null(inner) for key, inner in tree.items()}
    if isinstance(tree, list):
        return [_but_null(inner) for inner in tree]
    return None if isinstance(tree, Plain) and tree.value is None else tree
