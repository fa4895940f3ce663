"""The label of a budget in records and reports: its preset, and the limits in which it differs from the preset.

Two runs with the same label have the same limits, so comparisons group by the label.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import fields
from typing import Any

from unipet.calculus.yaml_reader import read_yaml
from unipet.config import BudgetConfig, conf_dir

#: The limits without a budget. A preset file contains only what differs from them.
DEFAULTS: dict[str, Any] = {field.name: field.default for field in fields(BudgetConfig) if field.name != "name"}


def budget_label(budget: Mapping[str, Any]) -> str:
    """For example `params_0p5`, `gpu_24gb, trainable_percent=0.5` or `max_steps=100`; `none` without any limit.

    `budget` is the `budget` group of a resolved configuration, which an older version may have written with fewer keys.
    A preset that is not shipped with unipet is followed by all its limits.
    """
    name = str(budget.get("name", "none"))
    usual = {**DEFAULTS, **_shipped().get(name, {})}
    limits = [f"{key}={_plain(budget[key])}" for key in DEFAULTS if key in budget and budget[key] != usual[key]]
    return ", ".join([*([name] if name != "none" or not limits else []), *limits])


def set_limits(budget: Mapping[str, Any]) -> dict[str, Any]:
    """The limits that differ from the defaults: a record's `limits`."""
    return {key: budget[key] for key in DEFAULTS if key in budget and budget[key] != DEFAULTS[key]}


def _plain(value: object) -> str:
    return "null" if value is None else str(value)


@functools.cache
def _shipped() -> dict[str, dict[str, Any]]:
    found = {}
    for path in sorted((conf_dir() / "budget").glob("*.yaml")):
        found[path.stem] = dict(read_yaml(path))
    return found
