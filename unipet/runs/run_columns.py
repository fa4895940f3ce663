"""A run as one flat row: names, status, score, costs, and what differs between the configurations of the runs beside it."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from unipet.output.csv_text import csv_text
from unipet.runs.identity import APART
from unipet.runs.labels import Leaves, leaves, plain
from unipet.runs.record import Record
from unipet.runs.record_index import KnownRun


class Recorded(Protocol):
    """A run, or a job that failed before it had a directory."""

    @property
    def record(self) -> Record: ...
    @property
    def config(self) -> Mapping[str, Any]: ...
    @property
    def directory(self) -> Path | None: ...


NAMES = ("method", "task", "model", "budget", "seed", "status", "score", "metric")
PARTS = ("params", "time", "memory")  # of the record, as dotted columns
#: What of a configuration is another column already, or says where a run happened.
_UNSHOWN = ("seed", "trial", *APART, "imports")
_NAMED = ("method.name", "task.name", "model.name", "budget.name")


def rows_of(runs: Sequence[Recorded]) -> list[dict[str, Any]]:
    """One row for each run, all with the same columns in the same order. What a run does not have is None."""
    swept = varying([run.config for run in runs])
    parts = (*PARTS, *(("trial",) if any(run.record.trial.role for run in runs) else ()))
    rows = []
    for run, options in zip(runs, swept, strict=True):
        record = run.record
        row: dict[str, Any] = {
            "run": run.directory.name if run.directory else None,
            **{name: getattr(record, name) for name in NAMES},
        }
        for part in parts:
            row |= leaves(getattr(record, part).to_dict(), part)
        row |= {"packed": record.packed} if record.packed else {}
        row |= options
        row |= {"reason": reason_of(run), "started": record.started, "finished": record.finished}
        row |= {"run_id": record.run_id, "directory": os.path.normpath(run.directory) if run.directory else None}
        rows.append(row)
    last = ("reason", "started", "finished", "run_id", "directory")
    columns = list(dict.fromkeys(key for row in rows for key in row if key not in last))
    return [{key: row.get(key) for key in (*columns, *last)} for row in rows]


def varying(configs: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """For each configuration the options, flat, in which the others differ from it. A list is a text."""
    parts = Leaves()
    flat = [parts.of({key: value for key, value in config.items() if key not in _UNSHOWN}) for config in configs]
    seen: dict[str, set[str]] = {}
    for own in flat:
        for key, value in own.items():
            seen.setdefault(key, set()).add(json.dumps(value, default=str))
    counts = {key: sum(key in own for own in flat) for key in seen}
    chosen = {key for key, texts in seen.items() if (len(texts) > 1 or counts[key] < len(flat)) and key not in _NAMED}
    return [
        {key: plain(value) if isinstance(value, list | dict) else value for key, value in own.items() if key in chosen}
        for own in flat
    ]


def reason_of(run: Recorded) -> str | None:
    """Why a run has no score, on one line."""
    error = run.record.error
    said = (error.message if error is not None else "") or run.record.reason or ""
    return " ".join(said.split("\n\n")[0].split()) or None


def csv_of(rows: Sequence[Mapping[str, Any]]) -> str:
    """The rows as CSV; what is not known is empty."""
    return csv_text([rows[0], *(row.values() for row in rows)]) if rows else ""


def differences(first: KnownRun, second: KnownRun) -> list[tuple[str, Any, Any]]:
    """(key, value of the first, value of the second) of everything in which two runs differ: configuration, then record."""
    found = []
    for prefix, mappings in (
        ("", (first.config, second.config)),
        ("record: ", (_recorded(first), _recorded(second))),
    ):
        flat = [leaves(mapping) for mapping in mappings]
        for key in dict.fromkeys(key for values in flat for key in values):
            own, other = (values.get(key) for values in flat)
            if own != other:
                found.append((prefix + key, own, other))
    return found


def _recorded(run: KnownRun) -> dict[str, Any]:
    """The record, without what only repeats the configuration, and checksums of files that differ with everything else."""
    return {
        key: value for key, value in run.record.to_dict().items() if key not in ("composition", "insertions", "files")
    }
