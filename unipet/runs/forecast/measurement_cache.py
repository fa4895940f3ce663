"""Measurements on this machine, stored below the cache directory: one JSON file per kind of job.

The file's name is the hash of its key, which includes device, threads and versions. Files are written atomically. They may
be deleted at any time. If a file cannot be read, the measurement is repeated.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from unipet.output.files import remove_leftovers
from unipet.runs.record_files import canonical_json, write_json_atomic

FORMAT = 1  # increase it whenever the contents of the files, or the way of measuring, change


class MeasurementCache:
    """Measurements stored in `directory` (None: in this process only). With `fresh`, stored measurements are not read."""

    def __init__(self, directory: Path | None, fresh: bool = False) -> None:
        self._directory = None if directory is None else directory / "forecast"
        self._fresh = fresh
        self._here: dict[str, dict[str, Any]] = {}

    def get(self, key: Any, measure: Callable[[], dict[str, Any]]) -> tuple[dict[str, Any], bool]:
        """The measurement for `key` (plain data), from the cache or from `measure`, and whether it was measured now."""
        name = hashlib.sha256(canonical_json([FORMAT, key]).encode()).hexdigest()[:32]
        if name in self._here:
            return self._here[name], False
        found = None if self._fresh else self._read(name)
        measured = found is None
        if found is None:
            found = measure()
            self._write(name, {"key": key, "found": found})
        self._here[name] = found
        return found, measured

    def _read(self, name: str) -> dict[str, Any] | None:
        if self._directory is None:
            return None
        try:
            found = json.loads((self._directory / f"{name}.json").read_text(encoding="utf-8"))["found"]
        except (OSError, ValueError, KeyError, TypeError):
            return None
        return found if isinstance(found, dict) else None

    def _write(self, name: str, content: dict[str, Any]) -> None:
        if self._directory is None:
            return
        try:
            self._directory.mkdir(parents=True, exist_ok=True)
            remove_leftovers(self._directory)
            write_json_atomic(self._directory / f"{name}.json", content)
        except OSError:  # the forecast does not need the cache
            return
