"""Jobs whose worker ended before it could write an outcome: killed, crashed, or hanging. Somebody else writes it."""

from __future__ import annotations

import signal
from pathlib import Path

from unipet.calculus.yaml_reader import values as yaml_values
from unipet.errors import UnipetError
from unipet.output.exit_codes import how_it_ended as how_it_ended
from unipet.runs.record import ErrorOf, Record
from unipet.runs.record_files import ATTEMPT, RESULT, read_record, write_record
from unipet.runs.sweep_files import RUNNING, JobState, index_events
from unipet.runs.versions import now
from unipet.sweeps.job_files import Job
from unipet.sweeps.jobs import Task, failed_record

#: Ends of a worker that are no fault of its job: with `launcher.retries` it is tried again.
NOT_ITS_FAULT = (signal.SIGKILL, signal.SIGTERM, signal.SIGHUP, signal.SIGBUS)


def lost_outcome(job: Job, task: Task, kind: str, why: str) -> JobState:
    """The outcome of a job whose worker wrote none: `kind` names what happened, `why` says it in words."""
    error, begun = ErrorOf(kind, why), _begun(task.sweep, job.number)
    state = task.state("failed", reason=f"{kind}: {why}", started=begun.started, finished=now())
    if begun.run_dir is not None and (record := mark_failed(task.sweep / begun.run_dir, error)) is not None:
        state.run_dir, state.run_id, state.record = begun.run_dir, record.run_id, record
    else:
        state.record, state.config = failed_record(job.values, error), yaml_values(job.values)
    return state


def _begun(sweep: Path, number: int) -> JobState:
    """The last thing that the job's worker said of it."""
    last = JobState(number)
    for event in index_events(sweep):
        if event.job == number and event.status == RUNNING:
            last = event
    return last


def mark_failed(directory: Path, error: ErrorOf) -> Record | None:
    """Write into the record of a run that was being done when its process ended why it is not finished. The record, unless an
    earlier result is in its place."""
    for place in (directory / ATTEMPT, directory):
        try:
            record = read_record(place / RESULT)
        except UnipetError:
            continue
        if record.status == RUNNING:
            record.status, record.error, record.finished = "failed", error, now()
            try:
                write_record(place / RESULT, record)
            except OSError:  # a full disk: the outcome alone says it
                return None
            return record if place == directory else None
    return None
