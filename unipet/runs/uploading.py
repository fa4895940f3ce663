"""Uploading a finished run to a tracker from its record, once, under the id that live tracking would have used.

`tracked.json` in the run's directory lists where its result has been uploaded: tracker, project, mode, and the time at which
that result was finished. A repeated run has another time, so it is uploaded again.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from unipet.config import TrackingConfig
from unipet.runs.record import Record
from unipet.runs.record_files import METRICS, write_json_atomic
from unipet.runs.tracking import open_tracker
from unipet.training.history import SELECTION, read_steps, tracked

TRACKED = "tracked.json"


def mark(config: TrackingConfig, record: Record, directory: Path) -> None:
    """Note in `tracked.json` that the result in `directory` is tracked. Without the note it would be uploaded again."""
    try:
        write_json_atomic(directory / TRACKED, [*_marks(directory, record), _mark(config, record)])
    except OSError as error:
        print(f"warning: {directory / TRACKED} cannot be written ({error.strerror or error}).", file=sys.stderr)


def upload(config: TrackingConfig, record: Record, resolved: Mapping[str, Any], directory: Path) -> None:
    """Upload the finished run in `directory`: configuration, the history in metrics.jsonl, and summary.

    Does nothing without a tracker, or if this result has been uploaded to it before. Prints one line. Raises `UnipetError`
    as `check_tracking`.
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
    """The lines of metrics.jsonl, sorted by step. If it lacks the scores of checkpoints, they are taken from the record."""
    rows = read_steps(directory / METRICS)
    selection = record.data.selection
    if not any(key.startswith(SELECTION) for row in rows for key in row):
        from unipet.tasks import LOSS
        from unipet.tasks import METRICS as KNOWN

        metric = selection.metric
        turned = metric == LOSS or (
            metric in KNOWN and not KNOWN[metric].higher_is_better
        )  # recorded so that more is better
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
    """The notes in `tracked.json` about this result, not about an earlier one."""
    try:
        found = json.loads((directory / TRACKED).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return []
    notes = found if isinstance(found, list) else []
    return [note for note in notes if isinstance(note, dict) and note.get("finished") == record.finished]
