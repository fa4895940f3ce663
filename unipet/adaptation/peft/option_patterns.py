"""Options that peft gives single modules (`rank_pattern`, `alpha_pattern`): which module has which, by peft's own rule."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from unipet.adaptation.peft.form import Form, Sites
from unipet.adaptation.peft.patterns import checked_pattern
from unipet.errors import UnipetError

MOST = 10_000  # patterns
_NUMBERS = ("lora_alpha", "alpha", "delora_lambda")  # options whose values need not be whole


def by_options(
    source: Path, form: Form, config: Mapping[str, Any], sites: Sites
) -> list[tuple[Mapping[str, Any], Sites]]:
    """The modules in groups of equal options, each with the configuration that holds for it.

    The first pattern that a module's path ends with counts, as in peft. Raises UnipetError for a pattern that is none, and for a
    value that the option cannot have.
    """
    tables = {key: _table(source, key, name, config) for key, name in form.patterns.items()}
    if not any(tables.values()):
        return [(config, sites)]
    groups: dict[tuple[Any, ...], dict[str, Mapping[str, Tensor]]] = {}
    for path, tensors in sites.items():
        own = tuple(_value(table, path, config.get(key)) for key, table in tables.items())
        groups.setdefault(own, {})[path] = tensors
    return [({**config, **dict(zip(tables, own, strict=True))}, some) for own, some in groups.items()]


def _table(source: Path, key: str, name: str, config: Mapping[str, Any]) -> list[tuple[re.Pattern[str], Any]]:
    given = config.get(name) or {}
    if not isinstance(given, dict) or len(given) > MOST:
        raise UnipetError(f"{source}: {name}: {str(given)[:60]!r} given; allowed: module names, each with its {key}.")
    found = []
    for pattern, value in given.items():
        whole = key not in _NUMBERS
        if isinstance(value, bool) or not isinstance(value, int if whole else int | float) or not value > 0:
            allowed = "a whole number above 0" if whole else "a number above 0"
            raise UnipetError(f"{source}: {name}: {pattern[:60]}: {str(value)[:40]!r} given; allowed: {allowed}.")
        checked_pattern(source, name, pattern)
        found.append((re.compile(rf"(?:.*\.)?(?:{pattern})$"), value))
    return found


def _value(table: list[tuple[re.Pattern[str], Any]], path: str, otherwise: Any) -> Any:
    return next((value for pattern, value in table if pattern.match(path)), otherwise)
