"""Find the runs below a directory and read their records."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from unipet.calculus.yaml_reader import read_yaml
from unipet.errors import UnipetError
from unipet.report.identity import distinct
from unipet.runs.json_object import JsonObject, WrongType
from unipet.runs.record import Record
from unipet.runs.record_files import CONFIG, RESULT, mistyped, read_record, record_files

NO_RECORD = "no record"  # status of a job that left none


@dataclass(frozen=True)
class Entry:
    """One run as a report sees it: its record, its resolved configuration, in a sweep its overrides, and its directory.

    `directory` is None for a job that failed before it had one.
    """

    record: Record
    config: Mapping[str, Any] = field(default_factory=dict)
    overrides: tuple[str, ...] = ()
    directory: Path | None = field(default=None, compare=False)
    flags: tuple[str, ...] = ()  # of the sweep's command line, such as --config-dir DIR

    def setting(self, key: str) -> Any:
        """The configuration's value at a dotted key; None where it has none."""
        value: Any = self.config
        for part in key.split("."):
            if not isinstance(value, Mapping) or part not in value:
                return None
            value = value[part]
        return value


@dataclass
class Job(JsonObject):
    """A sweep's `jobs/<n>.json`, as far as a report reads it."""

    job: int = 0
    overrides: list[str] = field(default_factory=list)
    flags: list[str] = field(default_factory=list)
    run_dir: str | None = None  # None: it failed before it had one; then its record and configuration are here
    record: Record | None = None
    config: dict[str, Any] = field(default_factory=dict)


def read_job(path: Path) -> Job:
    """A job file. Raises `UnipetError` naming the file when it is not one."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UnipetError(f"{path}: cannot be read as JSON ({error}). Delete it or run that job again.") from None
    try:
        return Job.from_dict(content)
    except WrongType as error:
        raise mistyped(path, error) from None


def read_config(path: Path) -> dict[str, Any]:
    """A run's config.yaml, or {} where there is none."""
    if not path.is_file():
        return {}
    value = read_yaml(path)
    return value if isinstance(value, dict) else {}


def read_run(directory: Path, overrides: tuple[str, ...] = (), flags: tuple[str, ...] = ()) -> Entry:
    """The run in `directory`."""
    return Entry(read_record(directory / RESULT), read_config(directory / CONFIG), overrides, directory, flags)


def collect_sweep(directory: Path) -> list[Entry]:
    """The runs of one sweep directory in job order. A run of several jobs comes once."""
    return distinct(collect_jobs(directory))


def collect_jobs(directory: Path) -> list[Entry]:
    """The jobs of one sweep directory in job order, also those that failed before they had a run directory."""
    entries = []
    for job in sorted(map(read_job, directory.glob("jobs/*.json")), key=lambda job: job.job):
        overrides, flags = tuple(job.overrides), tuple(job.flags)
        run = directory / job.run_dir if job.run_dir else None
        if run is not None and (run / RESULT).is_file():
            entries.append(read_run(run, overrides, flags))
        else:
            entries.append(Entry(job.record or Record(status=NO_RECORD), job.config, overrides, None, flags))
    return entries


def collect(directory: Path) -> list[Entry]:
    """All runs of a sweep directory, or every `result.json` below any other directory; every run once.

    Raises `UnipetError` when the directory does not exist or holds no run.
    """
    if not directory.is_dir():
        raise UnipetError(f"{directory}: no such directory. Give the directory of your runs, for example `runs`.")
    if any(directory.glob("jobs/*.json")):
        return collect_sweep(directory)
    sweeps = sorted({path.parent.parent for path in directory.rglob("jobs/*.json")})
    jobs = [entry for sweep in sweeps for entry in collect_jobs(sweep)]
    entries = [read_run(path.parent) for path in record_files(directory)]
    if entries:
        entries = [*with_overrides(entries, jobs), *never_begun(jobs)]
    else:  # a directory of sweeps: they point to runs elsewhere
        entries = jobs
    if not entries:
        raise UnipetError(
            f"{directory}: no {RESULT} below it, so there is nothing to report. Run `unipet train` first."
        )
    return distinct(entries)


def with_overrides(entries: Sequence[Entry], jobs: Sequence[Entry]) -> list[Entry]:
    """The runs, each with the overrides of the last job that ran it."""
    typed = {job.directory.resolve(): (job.overrides, job.flags) for job in jobs if job.directory is not None}
    own = [
        typed.get(entry.directory.resolve(), ((), ())) if entry.directory else (entry.overrides, entry.flags)
        for entry in entries
    ]
    return [
        replace(entry, overrides=overrides, flags=flags) for entry, (overrides, flags) in zip(entries, own, strict=True)
    ]


def never_begun(jobs: Sequence[Entry]) -> list[Entry]:
    """Jobs that failed before they had a run directory. Each command line counts once, by its last job."""
    last = {job.overrides: job for job in jobs}
    return [job for job in last.values() if job.directory is None and job.record.status == "failed"]
