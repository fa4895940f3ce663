"""Method files: where they are, and how a file that composes from others is read without Hydra.

The part of Hydra's defaults lists that method files use is small: `_self_`, a sibling method by name, and
`/group@package: option`. The command line composes the same files with Hydra; a test holds the two together.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from unipet.calculus.yaml_reader import read_written, value_of, values
from unipet.config import conf_dir
from unipet.errors import UnipetError, nearest, not_allowed


def method_names() -> list[str]:
    """The names of the shipped methods."""
    return sorted(path.stem for path in (conf_dir() / "method").glob("*.yaml"))


def is_file_name(text: str) -> bool:
    """Whether a text is the path of a user's file. Otherwise it is the name of a shipped method."""
    return text.endswith((".yaml", ".yml"))


def compose_file(path: Path) -> dict[str, Any]:
    """A method file, its defaults list resolved, as `parse_yaml` reads it. Raises UnipetError where it cannot be read."""
    if not path.is_file():
        known = nearest(path.stem, method_names())
        raise UnipetError(f"method: no file {path}.{known} Give the path of a YAML file or one of: {listed()}.")
    return _compose(path, ())


def emptied(name: str) -> UnipetError:
    """The error for a method that has lost the insertions its name stands for."""
    return UnipetError(
        f"method.insertions: none of the insertions of {name!r} is left, so a record would call another method {name}. "
        "Give it a name of its own, method.name=NAME, or keep an insertion and change its parts, for example "
        "method.insertions.INSERTION.function.size=8."
    )


def listed() -> str:
    """The shipped methods' names, for an error."""
    return ", ".join(method_names())


def _compose(path: Path, seen: tuple[Path, ...]) -> dict[str, Any]:
    """One file with its defaults list resolved, later entries winning."""
    if path in seen:
        raise UnipetError(f"{path}: its defaults lead back to itself.")
    own = _read(path)
    defaults = value_of(own.pop("defaults", None))
    if defaults is None:
        return own
    if not isinstance(defaults, list):
        raise not_allowed(f"{path}: defaults", defaults, "a list of `_self_`, methods' names and `/group@key: option`")
    entries = defaults if "_self_" in defaults else [*defaults, "_self_"]
    result: dict[str, Any] = {}
    for entry in entries:
        if entry == "_self_":
            _merge(result, own)
        elif isinstance(entry, str):
            _merge(result, _compose(_find(path, "method", entry), (*seen, path)))
        elif isinstance(entry, Mapping) and len(entry) == 1:
            ((target, option),) = entry.items()
            group, _, package = str(target).partition("@")
            value = _compose(_find(path, group.lstrip("/"), str(option)), (*seen, path))
            _merge(result, _nested(package, value))
        else:
            raise not_allowed(f"{path}: defaults", entry, "`_self_`, a method's name or `/group@key: option`")
    return result


def _find(path: Path, group: str, option: str) -> Path:
    """The file of a group's option, beside the user's file first (its directory stands for its group's root)."""
    roots = [path.parent] if group == "method" else []
    roots += [path.parent.parent / group, conf_dir() / group]
    for root in roots:
        if (root / f"{option}.yaml").is_file():
            return root / f"{option}.yaml"
    options = sorted(file.stem for file in (conf_dir() / group).glob("*.yaml"))
    raise UnipetError(
        f"{path}: defaults name {group}/{option}, which does not exist.{nearest(option, options)} "
        f"Shipped: {', '.join(options) or 'no such group'}."
    )


def _read(path: Path) -> dict[str, Any]:
    given = read_written(path)
    if not isinstance(given, dict):
        raise not_allowed(str(path), values(given), "a mapping with name and insertions")
    return given


def _nested(package: str, value: dict[str, Any]) -> dict[str, Any]:
    for part in reversed([part for part in package.split(".") if part]):
        value = {part: value}
    return value


def _merge(into: dict[str, Any], other: Mapping[str, Any]) -> None:
    for key, value in other.items():
        if isinstance(value, Mapping) and isinstance(into.get(key), dict):
            _merge(into[key], value)
        else:
            into[key] = dict(value) if isinstance(value, Mapping) else value
