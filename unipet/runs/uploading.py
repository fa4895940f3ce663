"""Tracking a run that finished before: it is told from its record, once, under the id that it would have had live.

`tracked.json` in the run's directory says where its newest result is tracked already: tracker, project, mode, and when that
result was finished, so that a run that was repeated is told again.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from unipet.config import TrackingConfig
from unipet.training.history import SELECTION, read_steps, tracked
from unipet.runs.record import Record
from unipet.runs.record_files import METRICS, write_json_atomic
from unipet.runs.tracking import open_tracker

TRACKED = "tracked.json"


def mark(config: TrackingConfig, record: Record, directory: Path) -> None:
    """Note that the result in `directory` is tracked. A note that cannot be written costs a second upload, no more."""
    try:
        write_json_atomic(directory / TRACKED, [*_marks(directory, record), _mark(config, record)])
    except OSError as error:
        print(f"warning: {directory / TRACKED} cannot be written ({error.strerror or error}).", file=sys.stderr)


def upload(config: TrackingConfig, record: Record, resolved: Mapping[str, Any], directory: Path) -> None:
    """Track the finished run in `directory` from what it left: configuration, history of metrics.jsonl, summary.

    Does nothing without a tracker, and nothing where this result is tracked there already; either is said on one line.
    Raises `UnipetError` for a tracker that cannot work.
    """
    if config.name == "none":
        return
    where = f"{config.name} (project {config.project}, {config.mode})"
    if _mark(config, record) in _marks(directory, record):
        print(f"tracked before, not uploaded again: {where}")
        return
    tracker = open_tracker(config, record, resolved)
    for row in history(record, directory):
        tracker.log(tracked(row), int(row["step"]))
    if tracker.finish(record):
        mark(config, record, directory)
        print(f"uploaded from its record: {where}")


def history(record: Record, directory: Path) -> list[dict[str, Any]]:
    """The lines of metrics.jsonl in the order of their steps; scores of checkpoints that it lacks, from the record."""
    rows = read_steps(directory / METRICS)
    selection = record.data.selection
    if not any(key.startswith(SELECTION) for row in rows for key in row):
        from unipet.tasks import LOSS
        from unipet.tasks import METRICS as KNOWN

        metric = selection.metric
        turned = metric == LOSS or (metric in KNOWN and not KNOWN[metric].higher_is_better)  # recorded: more is better
        rows += [
            {"step": int(step), f"{SELECTION}{metric}": -score if turned else score}
            for step, score in selection.scores.items()
        ]
    return sorted(rows, key=lambda row: int(row["step"]))


def _mark(config: TrackingConfig, record: Record) -> dict[str, Any]:
    return {
        "tracker": config.name,
        "project": config.project,
        "mode": config.mode if config.name == "wandb" else "offline",  # trackio is always local
        "finished": record.finished,
    }


def _marks(directory: Path, record: Record) -> list[dict[str, Any]]:
    """The notes about this very result."""
    try:
        found = json.loads((directory / TRACKED).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return []
    notes = found if isinstance(found, list) else []
    return [note for note in notes if isinstance(note, dict) and note.get("finished") == record.finished]
