"""Jobs whose worker ended before it could write an outcome: killed, crashed, or hanging. Somebody else writes it."""

from __future__ import annotations

import signal
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from unipet.calculus.yaml_reader import values as yaml_values
from unipet.errors import UnipetError
from unipet.runs import record as records
from unipet.runs.record import now, read_record, write_json_atomic
from unipet.runs.sweep_files import RUNNING, index_events
from unipet.sweeps.directory import Job
from unipet.sweeps.jobs import Task, failed_record

#: What a signal usually means for a training job.
SIGNALS = {
    signal.SIGKILL: "by whoever watches memory (out of memory), or by hand",
    signal.SIGSEGV: "a segmentation fault: a library broke, not Python code",
    signal.SIGABRT: "a library gave up",
    signal.SIGBUS: "a file that was mapped into memory shrank, or the shared memory is full",
    signal.SIGTERM: "by whoever manages this machine, or by hand",
}
#: Ends of a worker that are no fault of its job: with `launcher.retries` it is tried again.
NOT_ITS_FAULT = (signal.SIGKILL, signal.SIGTERM, signal.SIGHUP, signal.SIGBUS)


def how_it_ended(code: int) -> str:
    """The end of a process in words, from its exit code as `subprocess` has it."""
    if code >= 0:
        return f"its process ended with exit code {code}"
    try:
        name = signal.Signals(-code)
    except ValueError:
        return f"its process was ended by signal {-code}"
    said = SIGNALS.get(name)
    return f"its process was ended by {name.name}" + (f" ({said})" if said else "")


def lost_outcome(job: Job, task: Task, kind: str, why: str) -> dict[str, Any]:
    """The outcome of a job whose worker wrote none: `kind` names what happened, `why` says it in words."""
    error = {"type": kind, "message": why}
    begun = _begun(task.sweep, job.number)
    directory = None if begun.get("run_dir") is None else task.sweep / str(begun["run_dir"])
    outcome: dict[str, Any] = {
        "job": job.number,
        "status": "failed",
        "overrides": job.overrides,
        "flags": list(task.flags),
        "worker": task.worker,
        "attempt": task.attempt,
        "reason": f"{kind}: {why}",
        "started": begun.get("started"),
        "finished": now(),
    }
    if directory is not None and mark_failed(directory, error):
        return {**outcome, "run_dir": begun["run_dir"], "run_id": read_record(directory / records.RESULT)["run_id"]}
    record = {**failed_record(job.values, UnipetError(why)), "error": error}
    return {**outcome, "run_dir": None, "run_id": None, "record": record, "config": yaml_values(job.values)}


def _begun(sweep: Path, number: int) -> dict[str, Any]:
    """The last thing that the job's worker said of it."""
    last: dict[str, Any] = {}
    for event in index_events(sweep):
        if event["job"] == number and event.get("status") == RUNNING:
            last = event
    return last


def mark_failed(directory: Path, error: Mapping[str, str]) -> bool:
    """Write into the record of a run that was being done when its process ended why it is not finished; whether there is
    such a record."""
    for place in (directory / records.ATTEMPT, directory):
        path = place / records.RESULT
        try:
            record = read_record(path)
        except UnipetError:
            continue
        if record["status"] == RUNNING:
            record.update(status="failed", error=dict(error), finished=now())
            write_json_atomic(path, record)
            return place == directory
    return False
