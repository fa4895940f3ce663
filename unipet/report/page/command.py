"""The command line that repeats a run: the overrides of its job, or what its configuration says beyond the shipped files."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any, get_type_hints

from unipet.calculus.yaml_reader import read_yaml, values
from unipet.compose.override_text import command_line, deletion, override
from unipet.config import BudgetConfig, ModelConfig, OptimConfig, TaskConfig, conf_dir
from unipet.errors import UnipetError
from unipet.report.collect import Entry
from unipet.runs.labels import leaves

GROUPS: dict[str, Any] = {"task": TaskConfig, "model": ModelConfig, "budget": BudgetConfig, "optim": OptimConfig}
PLAIN: dict[str, Any] = {
    "precision": "fp32",
    "compile": False,
    "checkpointing": None,
    "runs_dir": "runs",
    "imports": [],
}


def command_of(entry: Entry) -> str:
    """`unipet train ...`, quoted for a shell; pasted there it composes the configuration of this run. Empty where nothing
    recorded says how: no configuration, no overrides, a method of the user's own, a key that no override can name."""
    try:
        arguments = [*entry.flags, *entry.overrides] if entry.overrides else _from_config(entry.config)
    except UnipetError:
        return ""
    return command_line("train", arguments) if arguments else ""


def _from_config(config: Mapping[str, Any]) -> list[str]:
    if not isinstance(config.get("method"), Mapping):
        return []
    arguments = _method(config["method"])
    if arguments is None:  # no shipped file leads there by single options
        return []
    for group, kind in GROUPS.items():
        if isinstance(config.get(group), Mapping):
            arguments += _group(group, kind, config[group])
    return arguments + [
        override(key, config[key]) for key in ("seed", *PLAIN) if key in config and config[key] != PLAIN.get(key)
    ]


def _method(method: Mapping[str, Any]) -> list[str] | None:
    from unipet.calculus.method_files import compose_file

    shipped, wanted = _shipped(str(method.get("name"))), leaves(method)
    if shipped is None or shipped.keys() != wanted.keys():
        return None
    written = values(compose_file(conf_dir() / "method" / f"{method['name']}.yaml"))["insertions"]
    changed: dict[str, Any] = {}
    for key, value in wanted.items():
        if shipped[key] != value:
            place = key.rpartition(".")[0]
            _, *names = place.split(".")
            short = len(names) == 2 and not isinstance(written[names[0]].get(names[1]), Mapping)
            # where the file has a name or a number for all of a dimension, a single option has no mapping to go into
            changed |= {place: method["insertions"][names[0]][names[1]]} if short else {key: value}
    return [f"method={method['name']}", *(override(f"method.{key}", value) for key, value in changed.items())]


@functools.cache
def _shipped(name: str) -> dict[str, Any] | None:
    """The options of a shipped method, flat; None where there is none of this name."""
    from unipet.calculus.library import load_method

    try:
        return leaves(load_method(name).to_dict())
    except UnipetError:
        return None


def _group(group: str, kind: Any, settings: Mapping[str, Any]) -> list[str]:
    """The group's option and what differs from its file."""
    name, usual = str(settings.get("name")), _usual(group)
    shipped = _file(group, name)
    chosen = [f"{group}={name}"] if shipped is not None and usual != name else []
    below, file, hints = asdict(kind()), shipped or _file(group, usual) or {}, get_type_hints(kind)
    for key, value in settings.items():
        if hints.get(key) == dict[str, str]:  # its keys may hold dots; an override adds to it
            before: Mapping[str, str] = file.get(key, {})
            chosen += [deletion(f"{group}.{key}.{part}") for part in before if part not in value]
            more = {part: text for part, text in value.items() if before.get(part) != text}
            chosen += [override(f"{group}.{key}", more)] if more else []
        else:
            base = leaves({key: below[key]}) | (leaves({key: file[key]}) if key in file else {}) if key in below else {}
            changed = {path: inner for path, inner in leaves({key: value}).items() if base.get(path, ...) != inner}
            chosen += [override(f"{group}.{path}", inner) for path, inner in changed.items()]
    return chosen


@functools.cache
def _usual(group: str) -> str:
    """The group's option that a command line need not say."""
    defaults = read_yaml(conf_dir() / "config.yaml")["defaults"]
    return str(next(entry[group] for entry in defaults if isinstance(entry, Mapping) and group in entry))


@functools.cache
def _file(group: str, name: str) -> dict[str, Any] | None:
    path = conf_dir() / group / f"{Path(name).name}.yaml"
    if not path.is_file():
        return None
    content = read_yaml(path) or {}
    below: dict[str, Any] = {}
    for other in content.pop("defaults", []):
        if other != "_self_":
            below.update(_file(group, str(other)) or {})
    return {**below, **content}
