"""Experts that are the functions of saved adapters: what a method says of them. Adapting a model reads their tensors."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from unipet.errors import UnipetError, not_allowed


def with_adapters(mixture: Any, key: str) -> Any:
    """A mixture's mapping in which `experts: [PATH, ...]` has become their number, the paths (`adapters`), and the
    checksums of the tensors behind them (`frozen`). Raises UnipetError for a path that is not that of a saved adapter."""
    experts = mixture.get("experts") if isinstance(mixture, Mapping) else None
    if not isinstance(experts, list | tuple):
        return mixture
    paths = list(experts)
    if len(paths) < 2 or not all(isinstance(path, str) for path in paths):
        raise not_allowed(
            f"{key}.experts", experts, "a whole number from 2, or the directories of two or more saved adapters"
        )
    frozen = [checksum(path, f"{key}.experts") for path in paths]
    return {**mixture, "experts": len(paths), "adapters": paths, "frozen": frozen}


def checksum(path: str, key: str) -> str:
    """The checksum of a saved adapter's tensors, as its description records it."""
    description = Path(path).expanduser() / "adapter.json"
    try:
        found = json.loads(description.read_text(encoding="utf-8"))["sha256"]
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        raise UnipetError(
            f"{key}: {path} is not a saved adapter ({description.name} is missing in it or cannot be read). Name directories "
            "that unipet.save wrote, such as runs/RUN/adapter."
        ) from None
    return str(found)
