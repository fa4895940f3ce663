"""One job of a sweep, from its configuration to its outcome. A job that fails does not stop the sweep.

Reports read what jobs leave in the sweep's directory (`runs/sweep_files.py`), not the memory of the process, so a job may
run anywhere.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from unipet.calculus.yaml_reader import values as yaml_values
from unipet.compose import parse_run_config
from unipet.config import ModelConfig, RunConfig
from unipet.errors import UnipetError
from unipet.output import libraries, terminal
from unipet.runs.record import ErrorOf, Record, TrialOf, model_label
from unipet.runs.record_files import write_json_atomic
from unipet.runs.run_directory import Busy
from unipet.runs.sweep_files import JOBS, RUNNING, JobState, append_index
from unipet.runs.versions import now

if TYPE_CHECKING:
    from unipet.runs.run import Done
    from unipet.runs.shared import Shared


@dataclass(frozen=True)
class Task:
    """What is to be done: job `number` of a sweep, and for whom."""

    sweep: Path
    number: int
    overrides: Sequence[str]  # as one would type them
    flags: Sequence[str] = ()
    worker: str = "hydra"  # a launcher of Hydra's own
    attempt: int = 1

    def state(self, status: str, **known: Any) -> JobState:
        """What is known of the job."""
        state = JobState(self.number, status, worker=self.worker, attempt=self.attempt, **known)
        state.overrides, state.flags = list(self.overrides), list(self.flags)
        return state


@terminal.screens(libraries.hidden)  # a worker process has not come through the command line's door
@libraries.quiet()
def run_job(
    values: Mapping[str, Any], task: Task, mistake: str | None = None, shared: Shared | None = None
) -> JobState:
    """Run a job and return its outcome, with its record. `mistake` is what its configuration has been found to be wrong with;
    `shared` is what the jobs of this process have in common.

    Raises nothing but KeyboardInterrupt, and `Busy` while another process is doing the same run.
    """
    began = time.monotonic()
    job = task.state(RUNNING, started=now())
    try:
        if mistake is not None:
            raise UnipetError(mistake)
        config = parse_run_config.configured(values)
        config.tracking.group = config.tracking.group or task.sweep.name

        def announce(directory: Path) -> None:
            job.run_dir = os.path.relpath(directory, task.sweep)
            append(task.sweep, job)

        done = train(config, announce, shared)
        job.record, job.run_dir = done.record, os.path.relpath(done.directory, task.sweep)
    except Busy:
        raise
    except (Exception, SystemExit) as error:  # a job's failure is a result; the sweep goes on
        job.record = failed_record(values, ErrorOf(type(error).__name__, str(error) or type(error).__name__))
        job.run_dir, job.config = None, yaml_values(values)  # an older result in that directory is not this job's
    job.run_id, job.status, job.reason = job.record.run_id, job.record.status, reason(job.record)
    job.finished, job.seconds = now(), round(time.monotonic() - began, 3)
    return job


def reason(record: Record) -> str | None:
    """Why a record is not "ok", in one line."""
    said = record.reason or (f"{record.error.type}: {record.error.message}" if record.error is not None else None)
    return None if said is None else " ".join(said.split())


def train(
    config: RunConfig, announce: Callable[[Path], None] = lambda directory: None, shared: Shared | None = None
) -> Done:
    """One run, by the room that knows how. Imported here: a mistake in the configuration costs no import of torch."""
    from unipet.runs.run import perform

    try:
        return perform(config, announce, shared)
    except OSError as error:  # a full or read-only disk, a directory that cannot be made
        raise UnipetError(f"runs_dir={config.runs_dir}: {error}. Make room, or set another runs_dir.") from error


def append(sweep: Path, job: JobState) -> None:
    """A line of the index. It may be lost; the job goes on."""
    with suppress(OSError):
        append_index(sweep, [job.event()])


def write_outcome(sweep: Path, job: JobState) -> None:
    """The job's outcome, whole, and its line of the index. Raises `UnipetError` where it cannot be written."""
    path = sweep / JOBS / f"{job.job}.json"
    outcome = job if job.run_dir is None else replace(job, record=None)  # its directory holds the record
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_json_atomic(path, outcome.to_dict())
    except OSError as error:
        raise UnipetError(f"{path}: cannot be written ({error.strerror or error}). Set another runs_dir.") from None
    append(sweep, job)


def failed_record(values: Mapping[str, Any], error: ErrorOf) -> Record:
    """A record for a job that failed before its run began: what is known of it, and why."""
    seed, model, trial = values.get("seed"), values.get("model"), values.get("trial")
    return Record(
        status="failed",
        method=_name(values, "method"),
        task=_name(values, "task"),
        model=model_label(parse_run_config.build(ModelConfig, model, "model")) if isinstance(model, Mapping) else None,
        budget=_name(values, "budget"),
        seed=seed if type(seed) is int else None,
        trial=TrialOf.from_dict(dict(trial)) if isinstance(trial, Mapping) else TrialOf(),
        error=error,
    )


def _name(values: Mapping[str, Any], group: str) -> str | None:
    chosen = values.get(group)
    return str(chosen["name"]) if isinstance(chosen, Mapping) and "name" in chosen else None
