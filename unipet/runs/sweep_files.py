"""The files of a sweep's directory, and what they say of its jobs.

    sweep.yaml         the command, what is swept, how many jobs, versions
    jobs/<n>.yaml      the resolved configuration of job n, written before any job runs
    jobs/<n>.json      the outcome of job n
    claims/<n>.<k>     job n is being run: the k-th attempt, by whom; the file's time is the owner's sign of life
    index.jsonl        one line for each event of a job, only ever appended to
    workers/           one file for each worker: its log, and the job that it is at

The outcomes are the truth. The index is for reading fast: a line that is lost is made up for by the outcome.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from unipet.errors import UnipetError

SWEEP, JOBS, CLAIMS, INDEX, WORKERS = "sweep.yaml", "jobs", "claims", "index.jsonl", "workers"
PENDING, RUNNING = "pending", "running"  # what a job is before it has an outcome
#: Statuses of a record that are results. Any other outcome is one that `resume` tries again.
RESULTS = ("ok", "skipped", "exceeded")


@dataclass(frozen=True)
class JobState:
    """What a sweep's directory says of one job.

    `status` is "pending", "running", or that of its record. `run_dir` is relative to the sweep's directory, so that the
    whole root may move; it is null for a job that failed before it had one: `record` and `config` then hold what is known.
    """

    job: int
    status: str = PENDING
    overrides: tuple[str, ...] = ()
    flags: tuple[str, ...] = ()  # of the command line, such as --config-dir DIR
    run_id: str | None = None
    run_dir: str | None = None
    reason: str | None = None  # of an outcome that is no result
    worker: str | None = None
    attempt: int = 0
    started: str | None = None
    finished: str | None = None
    seconds: float | None = None  # from claim to outcome
    record: Mapping[str, Any] = field(default_factory=dict)
    config: Mapping[str, Any] = field(default_factory=dict)

    @property
    def over(self) -> bool:
        """Whether the job has an outcome."""
        return self.status not in (PENDING, RUNNING)

    @property
    def failed(self) -> bool:
        """Whether its outcome is no result."""
        return self.over and self.status not in RESULTS


_FIELDS = frozenset(JobState.__dataclass_fields__)
_LISTS = ("overrides", "flags")


def job_state(values: Mapping[str, Any]) -> JobState:
    """One JSON object of the index or of an outcome; keys that a later version added are left out."""
    known = {key: value for key, value in values.items() if key in _FIELDS}
    known |= {key: tuple(known[key]) for key in _LISTS if key in known}
    return JobState(**{**known, "job": int(known["job"])})


def read_outcome(path: Path) -> JobState:
    """One `jobs/<n>.json`. Raises `UnipetError` naming the file when it is not one."""
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UnipetError(f"{path}: cannot be read as JSON ({error}). Delete it and run that job again.") from None
    if not isinstance(values, dict) or "job" not in values:
        raise UnipetError(f"{path}: not the outcome of a job, which is a JSON object with the key 'job'. Delete it.")
    return job_state(values)


def job_numbers(sweep: Path, ending: str) -> set[int]:
    """The jobs that have a file `jobs/<n><ending>`."""
    try:
        names = os.listdir(sweep / JOBS)
    except FileNotFoundError:
        return set()
    stems = (name.removesuffix(ending) for name in names if name.endswith(ending))
    return {int(stem) for stem in stems if stem.isdecimal()}


def read_jobs(sweep: Path) -> list[JobState]:
    """Every job of the sweep in `sweep`, in order of number."""
    states = {job: JobState(job) for job in job_numbers(sweep, ".yaml")}
    for event in index_events(sweep):
        job = int(event["job"])
        before = states.get(job, JobState(job))
        kept = {key: getattr(before, key) for key in _LISTS}
        states[job] = job_state({**kept, **event})
    over = job_numbers(sweep, ".json")
    for job in over:
        state = states.get(job)
        # A record that no run directory holds is in the outcome alone.
        if state is None or not state.over or state.run_dir is None:
            states[job] = read_outcome(sweep / JOBS / f"{job}.json")
    for job, state in states.items():
        if state.over and job not in over:  # its outcome was taken back: it runs again
            states[job] = JobState(job, overrides=state.overrides, flags=state.flags)
    return [states[job] for job in sorted(states)]


def index_events(sweep: Path, start: int = 0) -> Iterator[dict[str, Any]]:
    """The events of the index from byte `start` on. A line that is not whole, or no event, is passed over."""
    for line in index_lines(sweep, start)[0]:
        try:
            event = json.loads(line)
        except ValueError:
            continue
        if isinstance(event, dict) and isinstance(event.get("job"), int):
            yield event


def index_lines(sweep: Path, start: int = 0) -> tuple[list[bytes], int]:
    """The whole lines of the index from byte `start` on, and the byte at which the next ones will begin."""
    try:
        with open(sweep / INDEX, "rb") as file:
            file.seek(start)
            content = file.read()
    except FileNotFoundError:
        return [], start
    end = content.rfind(b"\n") + 1
    return content[:end].splitlines(), start + end


def append_index(sweep: Path, events: Sequence[Mapping[str, Any]]) -> None:
    """Append events by one write, so that no other process's line comes between. Raises OSError."""
    lines = "".join(json.dumps(event, allow_nan=False) + "\n" for event in events).encode()
    file = os.open(sweep / INDEX, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o666)
    try:
        os.write(file, lines)
    finally:
        os.close(file)


def is_sweep(directory: Path) -> bool:
    """Whether `directory` is a sweep's."""
    return (directory / SWEEP).is_file() or bool(job_numbers(directory, ".json"))
