"""Method files: where they are, and how a file that composes from others is read without Hydra.

The part of Hydra's defaults lists that method files use is small: `_self_`, a sibling method by name, and
`/group@package: option`. The command line composes the same files with Hydra; a test holds the two together.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from unipet.conf_dir import conf_dir
from unipet.errors import UnipetError, nearest
from unipet.method import Method, parse_method


def method_names() -> list[str]:
    """The names of the shipped methods."""
    return sorted(path.stem for path in (conf_dir() / "method").glob("*.yaml"))


def load_method(method: str | Path | Mapping[str, Any] | Method) -> Method:
    """A checked method from its name, the path of a YAML file, a mapping, or a method.

    Raises UnipetError for an unknown name, an unreadable file, or any mistake inside (with its full key).
    """
    if isinstance(method, Method):
        return method
    if isinstance(method, Mapping):
        return parse_method(method)
    text = str(method)
    if isinstance(method, Path) or text.endswith((".yaml", ".yml")):
        path = Path(method)
        if not path.is_file():
            raise UnipetError(f"method: no file {text}. Give the path of a YAML file or one of: {_listed()}.")
    else:
        path = conf_dir() / "method" / f"{text}.yaml"
        if text not in method_names():
            raise UnipetError(
                f"method: unknown {text!r}.{nearest(text, method_names())} Shipped: {_listed()}. "
                "A file of your own is given by its path, for example 'mine.yaml'."
            )
    return parse_method(_compose(path, ()))


def _listed() -> str:
    return ", ".join(method_names())


def _compose(path: Path, seen: tuple[Path, ...]) -> dict[str, Any]:
    """One file with its defaults list resolved, later entries winning."""
    if path in seen:
        raise UnipetError(f"{path}: its defaults lead back to itself.")
    own = _read(path)
    defaults = own.pop("defaults", None)
    if defaults is None:
        return own
    if not isinstance(defaults, list):
        raise UnipetError(f"{path}: defaults must be a list, got {defaults!r}.")
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
            raise UnipetError(
                f"{path}: defaults entry {entry!r} is not `_self_`, a method's name or `/group@key: option`."
            )
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
    import yaml

    try:
        given = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError, OSError) as error:
        raise UnipetError(f"{path}: not a readable YAML file: {error}") from error
    if not isinstance(given, dict):
        raise UnipetError(f"{path}: expected a mapping with name and insertions, got {type(given).__name__}.")
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
