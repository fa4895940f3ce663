"""Predicted steps (`training/budget/trace.py`) on disk: a trace is the same for every seed and start.

One JSON file for everything that a prediction depends on: contents, settings, the package's source and its libraries' versions.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from unipet.output.files import write_bytes_atomic
from unipet.runs.record_files import canonical_json
from unipet.runs.versions import source_checksum

if TYPE_CHECKING:
    from unipet.training.budget.trace import Trace


def read_traces(directory: Path | None, settings: Any) -> dict[str, Trace]:
    """The steps that were traced with these settings, by batch; none if the file is missing or damaged."""
    from unipet.training.budget.trace import Trace

    if directory is None:
        return {}
    try:
        content = json.loads(_path(directory, settings).read_text(encoding="utf-8"))
        found = {str(key): Trace(**each) for key, each in content.items()}
        sound = all(type(size) is int for each in found.values() for size in asdict(each).values())
        return found if sound else {}
    except (OSError, ValueError, TypeError, AttributeError):
        return {}


def write_traces(directory: Path | None, settings: Any, traces: Mapping[str, Trace]) -> None:
    """Keep these traces. If the directory cannot be written to, nothing is kept."""
    if directory is None:
        return
    path = _path(directory, settings)
    with suppress(OSError):
        path.parent.mkdir(parents=True, exist_ok=True)
        write_bytes_atomic(path, json.dumps({key: asdict(trace) for key, trace in traces.items()}).encode())


def _path(directory: Path, settings: Any) -> Path:
    made_with = [source_checksum(), *(version(name) for name in ("torch", "transformers"))]
    key = hashlib.sha256(canonical_json([settings, made_with]).encode()).hexdigest()
    return directory / "traces" / f"{key[:32]}.json"
