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

import errno
import json
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from unipet.errors import UnipetError
from unipet.output.json_object import JsonObject, WrongType, added_later
from unipet.runs.record import Record
from unipet.runs.record_files import mistyped
from unipet.runs.trial_of import TrialOf

SWEEP, JOBS, CLAIMS, INDEX, WORKERS = "sweep.yaml", "jobs", "claims", "index.jsonl", "workers"
PENDING, RUNNING = "pending", "running"  # what a job is before it has an outcome
#: Statuses of a record that are results. Any other outcome is one that `resume` tries again.
RESULTS = ("ok", "skipped", "exceeded")


@dataclass
class JobState(JsonObject):
    """What a sweep's directory says of one job: a line of its index, or its outcome. What is not known is not written."""

    job: int = 0
    status: str = added_later(PENDING)  # pending | running | that of its record
    overrides: list[str] = added_later(factory=list)  # all of them, as one would type them
    flags: list[str] = added_later(factory=list)  # of the command line, such as --config-dir DIR
    run_id: str | None = added_later(None)
    run_dir: str | None = added_later(None)  # relative to the sweep's directory: the whole root may move
    reason: str | None = added_later(None)  # of an outcome that is no result
    role: str | None = added_later(None)  # in a search: trial or final
    study: int | None = added_later(None)  # and of which study it is
    trial: int | None = added_later(None)  # which trial of it
    told: TrialOf | None = added_later(None)  # what its run is in this search; another one may have run it first
    worker: str | None = added_later(None)
    attempt: int | None = added_later(None)
    started: str | None = added_later(None)
    finished: str | None = added_later(None)
    seconds: float | None = added_later(None)  # from claim to outcome
    record: Record | None = added_later(None)  # in an outcome's file only where no run directory holds it
    config: dict[str, Any] | None = added_later(None)  # the same

    @property
    def over(self) -> bool:
        """Whether the job has an outcome."""
        return self.status not in (PENDING, RUNNING)

    @property
    def failed(self) -> bool:
        """Whether its outcome is no result."""
        return self.over and self.status not in RESULTS

    def event(self) -> JobState:
        """What the index says of it: without what stands in other files."""
        return replace(self, overrides=[], flags=[], record=None, config=None)


def read_outcome(path: Path) -> JobState:
    """One `jobs/<n>.json`. Raises `UnipetError` naming the file when it is not one."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UnipetError(f"{path}: cannot be read as JSON ({error}). Delete it and run that job again.") from None
    if not isinstance(content, dict) or "job" not in content:
        raise UnipetError(f"{path}: not the outcome of a job, which is a JSON object with the key 'job'. Delete it.")
    try:
        return JobState.from_dict(content)
    except WrongType as error:
        raise mistyped(path, error) from None


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
        if (before := states.get(event.job)) is not None:
            event.overrides, event.flags = event.overrides or before.overrides, event.flags or before.flags
            if event.role is None:
                event = replace(event, **_in_search(before))
        states[event.job] = event
    over = job_numbers(sweep, ".json")
    for job in over:
        state = states.get(job)
        known = (
            state is not None and state.over and state.run_dir is not None
        )  # else the record is in the outcome alone
        if not known or not states[job].overrides:  # launchers of Hydra write no index before the jobs
            known_as = _in_search(states.get(job, JobState(job)))
            states[job] = replace(read_outcome(sweep / JOBS / f"{job}.json"), **known_as)
    for job, state in states.items():
        if state.over and job not in over:  # its outcome was taken back: it runs again
            states[job] = JobState(job, overrides=state.overrides, flags=state.flags, **_in_search(state))
    return [states[job] for job in sorted(states)]


def _in_search(state: JobState) -> dict[str, Any]:
    """What a job is in a search, which only its first event says."""
    return {name: getattr(state, name) for name in ("role", "study", "trial", "told")}


def index_events(sweep: Path, start: int = 0) -> Iterator[JobState]:
    """The events of the index from byte `start` on."""
    return map_events(index_lines(sweep, start)[0])


def map_events(lines: Iterable[bytes]) -> Iterator[JobState]:
    """Lines of the index as events. What is not whole, or no event, is passed over."""
    for line in lines:
        try:
            event = JobState.from_dict(json.loads(line))
        except (ValueError, WrongType):
            continue
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


def append_index(sweep: Path, events: Iterable[JobState]) -> None:
    """Append events by one write, so that no other process's line comes between. Raises OSError."""
    lines = "".join(json.dumps(event.to_dict(), allow_nan=False) + "\n" for event in events).encode()
    with open(sweep / INDEX, "a+b", buffering=0) as file:
        if file.tell() and os.pread(file.fileno(), 1, file.tell() - 1) != b"\n":
            lines = b"\n" + lines  # a process died, or a disk was full, in the middle of a line
        if file.write(lines) != len(lines):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def is_sweep(directory: Path) -> bool:
    """Whether `directory` is a sweep's."""
    return (directory / SWEEP).is_file() or bool(job_numbers(directory, ".json"))
