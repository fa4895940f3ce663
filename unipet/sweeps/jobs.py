"""One job of a sweep, from its configuration to its outcome. A job that fails does not stop the sweep.

Reports read what jobs leave in the sweep's directory (`runs/sweep_files.py`), not the memory of the process, so a job may
run anywhere.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from unipet.calculus.yaml_reader import values as yaml_values
from unipet.compose import parse_run_config
from unipet.compose.override import shown
from unipet.config import ModelConfig, RunConfig
from unipet.errors import UnipetError
from unipet.output import libraries, terminal
from unipet.runs.record import model_label, now, write_json_atomic
from unipet.runs.run_directory import Busy
from unipet.runs.sweep_files import JOBS, RUNNING, append_index

if TYPE_CHECKING:
    from unipet.runs.run import Done


@dataclass(frozen=True)
class Task:
    """What is to be done: job `number` of a sweep, and for whom."""

    sweep: Path
    number: int
    overrides: Sequence[str]
    flags: Sequence[str] = ()
    worker: str = "hydra"  # a launcher of Hydra's own
    attempt: int = 1


@terminal.screens(libraries.hidden)  # a worker process has not come through the command line's door
@libraries.quiet()
def run_job(values: Mapping[str, Any], task: Task, mistake: str | None = None) -> dict[str, Any]:
    """Run a job and return its outcome, with its record. `mistake` is what its configuration has been found to be wrong with.

    Raises nothing but KeyboardInterrupt, and `Busy` while another process is doing the same run.
    """
    began, started = time.monotonic(), now()
    outcome: dict[str, Any] = {
        "job": task.number,
        "status": RUNNING,
        "overrides": [shown(text) for text in task.overrides],
        "flags": list(task.flags),
        "worker": task.worker,
        "attempt": task.attempt,
        "started": started,
    }
    try:
        if mistake is not None:
            raise UnipetError(mistake)
        config = parse_run_config.configured(values)
        config.tracking.group = config.tracking.group or task.sweep.name

        def announce(directory: Path) -> None:
            outcome["run_dir"] = os.path.relpath(directory, task.sweep)
            append(task.sweep, outcome)

        done = train(config, announce)
        record = done.record
        outcome["run_dir"] = os.path.relpath(done.directory, task.sweep)
    except Busy:
        raise
    except (Exception, SystemExit) as error:  # a job's failure is a result; the sweep goes on
        record = failed_record(values, error)
        # An older result in that directory is not this job's.
        outcome.update(run_dir=None, record=record, config=yaml_values(values))
    outcome.update(run_id=record.get("run_id"), status=record["status"], reason=reason(record))
    outcome.update(finished=now(), seconds=round(time.monotonic() - began, 3))
    return {**outcome, "made": record}


def reason(record: Mapping[str, Any]) -> str | None:
    """Why a record is not "ok", in one line."""
    error = record.get("error") or {}
    said = record.get("reason") or (f"{error.get('type')}: {error.get('message')}" if error else None)
    return None if said is None else " ".join(str(said).split())


def train(config: RunConfig, announce: Callable[[Path], None] = lambda directory: None) -> Done:
    """One run, by the room that knows how. Imported here: a mistake in the configuration costs no import of torch."""
    from unipet.runs.run import perform

    try:
        return perform(config, announce)
    except OSError as error:  # a full or read-only disk, a directory that cannot be made
        raise UnipetError(f"runs_dir={config.runs_dir}: {error}. Make room, or set another runs_dir.") from error


def append(sweep: Path, event: Mapping[str, Any]) -> None:
    """A line of the index: what is left out stands in the outcome. The index may be lost; the job goes on."""
    line = {key: value for key, value in event.items() if key not in ("record", "config", "made", "overrides", "flags")}
    with suppress(OSError):
        append_index(sweep, [line])


def write_outcome(sweep: Path, outcome: Mapping[str, Any]) -> None:
    """The job's outcome, whole, and its line of the index. Raises `UnipetError` where it cannot be written."""
    path = sweep / JOBS / f"{outcome['job']}.json"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_json_atomic(path, {key: value for key, value in outcome.items() if key != "made"})
    except OSError as error:
        raise UnipetError(f"{path}: cannot be written ({error.strerror or error}). Set another runs_dir.") from None
    append(sweep, outcome)


def failed_record(values: Mapping[str, Any], error: BaseException) -> dict[str, Any]:
    """A record for a job that failed before its run began: what is known of it, and why."""
    names = {
        key: part.get("name")
        for key in ("method", "task", "model", "budget")
        if isinstance(part := values.get(key), Mapping)
    }
    if isinstance(model := values.get("model"), Mapping):
        names["model"] = model_label(parse_run_config.build(ModelConfig, model, "model"))
    return {
        "status": "failed",
        "run_id": None,
        **names,
        "seed": values.get("seed"),
        "error": {"type": type(error).__name__, "message": str(error) or type(error).__name__},
    }
