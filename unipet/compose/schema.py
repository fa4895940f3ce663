"""Converting parsed YAML to the types of `RunConfig`: text fields get the text as written, other fields its value."""

from __future__ import annotations

import dataclasses
import types
import typing
from collections.abc import Mapping
from typing import Any

from unipet.calculus.yaml_reader import Plain, text_of, texts, value_of, values
from unipet.config import RunConfig

#: Groups whose files belong to a method, whatever the key into which they are composed.
METHOD_GROUPS = ("method", "function", "position", "composition", "scaling", "mixture")
METHOD = dict[str, Any]  # the type of `RunConfig.method`: its parser reads texts and values by each option's own type


def kind_at(key: str) -> Any:
    """The type of a dotted key of `RunConfig`: `METHOD` for every key inside a method, None for an unknown key."""
    current: Any = RunConfig
    for part in filter(None, key.split(".")):
        if current == METHOD:
            return METHOD
        if not dataclasses.is_dataclass(current):
            return typing.get_args(current)[1] if typing.get_origin(current) is dict else None
        current = typing.get_type_hints(current).get(part)
    return current


def holds_text(kind: Any) -> bool:
    """Whether the type is a text, a list of texts or a mapping of texts."""
    return _is_text(kind) or kind in (list[str], dict[str, str])


def typed(tree: Any, kind: Any) -> Any:
    """`tree` (from `parse_yaml`) with texts where the type `kind` has texts, and values elsewhere. Scalars inside a method
    stay unconverted."""
    if kind == METHOD:
        return _but_null(tree)
    if dataclasses.is_dataclass(kind) and isinstance(tree, Mapping):
        hints = typing.get_type_hints(kind)
        return {key: typed(inner, hints.get(key)) for key, inner in tree.items()}
    if _is_text(kind):
        return None if value_of(tree) is None else text_of(tree) if isinstance(tree, str) else values(tree)
    if (kind == list[str] and isinstance(tree, list)) or (kind == dict[str, str] and isinstance(tree, Mapping)):
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
