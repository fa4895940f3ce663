"""Parsing plain values into `RunConfig`, by the types and limits of its fields, for command lines and for saved runs.

Hydra checks most keys, but it accepts `+budget.peak=3` although `budget` has no such key. Here it is an error.
"""

from __future__ import annotations

import dataclasses
import os
import re
import typing
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

from unipet.calculus.options import allowed, check_options, hints_of, joined, no_option, parse_options
from unipet.compose.imports import import_modules
from unipet.compose.schema import follow, is_mapping
from unipet.config import RunConfig
from unipet.errors import SYNONYMS, UnipetError, nearest
from unipet.training.processes import check_one_process

T = TypeVar("T")
RUN = "a run"  # the owner of the outermost keys, in error messages


def run_config(values: Mapping[str, Any]) -> RunConfig:
    """A run's configuration from plain values. Raises `UnipetError` for unknown or missing keys and for values that are not
    allowed."""
    return build(RunConfig, values, "")


def build(cls: type[T], values: Any, key: str) -> T:
    """The same for the group with this key. Numbers keep the type in which they were given: `run_id` is a hash of them."""
    return parse_options(cls, values, key, key or RUN, as_given=True)


def configured(values: Mapping[str, Any]) -> RunConfig:
    """A run's configuration. The modules that it names are imported, because a job may run in its own process."""
    config = run_config(values)
    import_modules(config.imports)
    return config


def check_run_config(config: RunConfig) -> None:
    """Raises `UnipetError`, naming the full key, for a value that is not allowed (Python code may have set it), for a runs
    directory that cannot be created, and if a launcher has started several processes."""
    check_one_process()
    check_options(RunConfig, config, "")
    _check_runs_dir(config.runs_dir)


def _check_runs_dir(runs_dir: str) -> None:
    """Raise `UnipetError` unless the directory exists or can be created."""
    path = Path(runs_dir).absolute()
    while not path.exists():
        path = path.parent
    if not path.is_dir():
        raise UnipetError(
            f"runs_dir: cannot write to {runs_dir}: {path} is a file. Choose another directory: runs_dir=DIR."
        )
    if not os.access(path, os.W_OK | os.X_OK):
        raise UnipetError(f"runs_dir: no permission to write to {path}. Choose another directory: runs_dir=DIR.")


def field_names(cls: type) -> list[str]:
    """The keys of a dataclass."""
    return [field.name for field in dataclasses.fields(cls)]


def check_key(key: str, extra: tuple[str, ...] = ()) -> None:
    """Raise `UnipetError` unless the dotted `key` exists in `RunConfig`, or begins with a name in `extra`.

    Keys inside `method` are checked by `load_method`.
    """
    place = follow(key)
    if not place.deeper or is_mapping(place.kind):
        return
    from unipet.calculus.method import INSERTION_KEYS  # here, because most keys exist and need no torch

    part, known = place.deeper[0], ".".join(place.known)
    if not dataclasses.is_dataclass(place.kind):
        raise UnipetError(f"{key}: {known} is a single value and has no {part!r} inside.")
    names = [*field_names(typing.cast("type", place.kind)), *(() if known else extra)]
    inside = not known and part in INSERTION_KEYS  # as the comments of a method file and the papers name it
    meant = f" Did you mean 'method.insertions.NAME.{key}'?" if inside else _meant(part, names)
    raise no_option(joined(known, part), place.known[-1] if known else RUN, names, meant)


def _meant(part: str, names: list[str]) -> str:
    """The hint at the nearest key: in the same group, or in another group that has this name or a synonym of it."""
    elsewhere = [*key_paths(), "method.insertions.NAME.function.size"]
    named = [path for path in elsewhere if path.endswith(f".{part}")]
    words = [name for name in SYNONYMS.get(part.lower(), ()) if name in names or name in elsewhere]
    found = next((name for name in words if name in names), None) or next(iter([*named, *words]), None)
    return f" Did you mean '{found}'?" if found else nearest(part, names)


def key_paths() -> list[str]:
    """Every key of a group, as a command line writes it: `optim.lr`."""
    groups = {name: kind for name, kind in hints_of(RunConfig).items() if dataclasses.is_dataclass(kind)}
    return [f"{group}.{name}" for group, kind in groups.items() for name in field_names(typing.cast("type", kind))]


def allowed_at(key: str) -> str | None:
    """The values that `RunConfig` allows at a dotted key, in words; None if it has no such key."""
    whole = re.sub(r"\[\d+\]$", "", key)
    place = follow(whole)
    element = whole != key and typing.get_origin(place.kind) is list  # it has the limits of the list
    kind = typing.get_args(place.kind)[0] if element else place.kind
    return None if place.deeper else allowed(kind, place.limits)
