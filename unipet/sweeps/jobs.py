"""The jobs of a sweep. A job that fails does not stop the sweep, and every job leaves a file that names its run.

`<sweep>/jobs/<n>.json`: overrides, run_id, run directory (relative, so that the whole root may move), status; and for a job
that failed before it had a run directory its record and configuration. Reports read these files, not the memory of
the process, so a job may run anywhere.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from unipet.calculus.yaml_reader import values as yaml_values
from unipet.compose import parse_run_config
from unipet.compose.override import shown
from unipet.config import ModelConfig, RunConfig
from unipet.errors import UnipetError
from unipet.output import libraries, terminal
from unipet.runs.record import ErrorOf, Record, model_label
from unipet.runs.record_files import write_json_atomic

if TYPE_CHECKING:
    from unipet.runs.run import Done


@terminal.screens(libraries.hidden)  # a worker process has not come through the command line's door
@libraries.quiet()
def run_job(
    values: Mapping[str, Any], sweep: Path, number: int, overrides: Sequence[str], flags: Sequence[str] = ()
) -> dict[str, Any]:
    """Run job `number` of `sweep` and return its job file's content. Raises nothing but KeyboardInterrupt."""
    job: dict[str, Any] = {"job": number, "overrides": [shown(text) for text in overrides], "flags": list(flags)}
    job["status"] = "running"
    try:
        config = parse_run_config.configured(values)
        config.tracking.group = config.tracking.group or sweep.name

        def announce(directory: Path) -> None:
            job["run_dir"] = os.path.relpath(directory, sweep)
            write_job(sweep, job)

        done = train(config, announce)
        record = done.record
        job["run_dir"] = os.path.relpath(done.directory, sweep)
    except (Exception, SystemExit) as error:  # a job's failure is a result; the sweep goes on
        record = failed_record(values, error)
        job.update(
            run_dir=None, record=record.to_dict(), config=yaml_values(values)
        )  # an older result in that directory is not this job's
    job.update(run_id=record.run_id, status=record.status)
    write_job(sweep, job)
    return {**job, "record": record}


def train(config: RunConfig, announce: Callable[[Path], None] = lambda directory: None) -> Done:
    """One run, by the room that knows how. Imported here: a mistake in the configuration costs no import of torch."""
    from unipet.runs.run import perform

    try:
        return perform(config, announce)
    except OSError as error:  # a full or read-only disk, a directory that cannot be made
        raise UnipetError(f"runs_dir={config.runs_dir}: {error}. Make room, or set another runs_dir.") from error


def write_job(sweep: Path, job: Mapping[str, Any]) -> None:
    """The job's file, whole."""
    path = sweep / "jobs" / f"{job['job']}.json"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_json_atomic(path, dict(job))
    except OSError as error:
        raise UnipetError(f"{path}: cannot be written ({error.strerror or error}). Set another runs_dir.") from None


def failed_record(values: Mapping[str, Any], error: BaseException) -> Record:
    """A record for a job that failed before its run began: what is known of it, and why."""
    seed, model = values.get("seed"), values.get("model")
    return Record(
        status="failed",
        method=_name(values, "method"),
        task=_name(values, "task"),
        model=model_label(parse_run_config.build(ModelConfig, model, "model")) if isinstance(model, Mapping) else None,
        budget=_name(values, "budget"),
        seed=seed if type(seed) is int else None,
        error=ErrorOf(type(error).__name__, str(error) or type(error).__name__),
    )


def _name(values: Mapping[str, Any], group: str) -> str | None:
    chosen = values.get(group)
    return str(chosen["name"]) if isinstance(chosen, Mapping) and "name" in chosen else None


def progress(job: int, total: int | None, overrides: Sequence[str], swept: Sequence[str]) -> None:
    """`[3/15] method=NAME seed=2` on stderr: what differs between the jobs."""
    typed = [shown(text) for text in overrides]
    differing = [
        text
        for text in typed
        if text.split("=", 1)[0] in swept or (text.startswith("model.path=") and "model" in swept)
    ]
    print(f"[{job + 1}/{total or '?'}] {' '.join(differing or typed)}", file=sys.stderr, flush=True)
