"""The command line that repeats a run: the overrides of its job, or what its configuration says beyond the shipped files."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from unipet.conf_dir import conf_dir
from unipet.config import BudgetConfig, ModelConfig, OptimConfig, TaskConfig
from unipet.errors import UnipetError
from unipet.labels import leaves
from unipet.report.collect import Entry

GROUPS: dict[str, Any] = {"task": TaskConfig, "model": ModelConfig, "budget": BudgetConfig, "optim": OptimConfig}
UNSAID = {"budget": "none", "optim": "adamw"}  # what a command line need not say
PLAIN = {"precision": "fp32", "runs_dir": "runs"}


def command_of(entry: Entry) -> str:
    """`unipet train ...`, quoted for a shell; empty where nothing recorded says how (no configuration, no overrides)."""
    overrides = list(entry.overrides) or _from_config(entry.config)
    return " ".join(["unipet", "train", *map(shlex.quote, overrides)]) if overrides else ""


def _from_config(config: Mapping[str, Any]) -> list[str]:
    if not isinstance(config.get("method"), Mapping):
        return []
    found = _method(config["method"])
    if found is None:  # no shipped file leads there by single options
        return []
    for group, kind in GROUPS.items():
        if isinstance(config.get(group), Mapping):
            found += _group(group, asdict(kind()), config[group])
    found += [
        f"{key}={_value(config[key])}" for key in ("seed", *PLAIN) if key in config and config[key] != PLAIN.get(key)
    ]
    return found


def _method(method: Mapping[str, Any]) -> list[str] | None:
    from unipet.library import load_method

    try:
        shipped = leaves(load_method(str(method.get("name"))).to_dict())
    except UnipetError:
        return None
    wanted = leaves(method)
    if shipped.keys() != wanted.keys():
        return None
    changed = [f"method.{key}={_value(value)}" for key, value in wanted.items() if shipped[key] != value]
    return [f"method={method['name']}", *changed]


def _group(group: str, defaults: dict[str, Any], given: Mapping[str, Any]) -> list[str]:
    """The group's option and what differs from its file."""
    name = str(given.get("name"))
    shipped = _file(group, name)
    chosen = [f"{group}={name}"] if shipped is not None and UNSAID.get(group) != name else []
    base = leaves({**defaults, **(shipped or {})})
    return chosen + [f"{group}.{key}={_value(value)}" for key, value in leaves(given).items() if base.get(key) != value]


def _file(group: str, name: str) -> dict[str, Any] | None:
    import yaml

    path = conf_dir() / group / f"{Path(name).name}.yaml"
    if not path.is_file():
        return None
    content = yaml.safe_load(path.read_text(encoding="utf-8")) or {}
    below: dict[str, Any] = {}
    for other in content.pop("defaults", []):
        if other != "_self_":
            below.update(_file(group, str(other)) or {})
    return {**below, **content}


def _value(value: Any) -> str:
    """A value in Hydra's grammar."""
    if isinstance(value, str):
        if re.fullmatch(r"[A-Za-z_./][\w./:-]*", value) and value.lower() not in (
            "null",
            "true",
            "false",
            "nan",
            "inf",
        ):
            return value
        return "'" + value.replace("\\", "\\\\").replace("'", "\\'") + "'"
    if isinstance(value, list):
        return "[" + ",".join(map(_value, value)) + "]"
    if isinstance(value, Mapping):
        return "{" + ",".join(f"{_value(str(key))}: {_value(inner)}" for key, inner in value.items()) + "}"
    return json.dumps(value)
