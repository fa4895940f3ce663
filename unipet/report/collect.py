"""Find the runs below a directory and read their records."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from unipet.calculus.yaml_reader import read_yaml
from unipet.errors import UnipetError
from unipet.report.identity import distinct
from unipet.runs.record import Record
from unipet.runs.record_files import CONFIG, RESULT, read_record, record_files
from unipet.runs.sweep_files import PENDING, is_sweep, read_jobs

NO_RECORD = "no record"  # status of a job whose run is gone


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
    """The jobs of one sweep directory that have begun, in job order, those that failed before they had a run directory
    included."""
    entries = []
    for state in read_jobs(directory):
        overrides, flags = tuple(state.overrides), tuple(state.flags)
        run = directory / state.run_dir if state.run_dir else None
        if run is not None and (run / RESULT).is_file():
            entries.append(read_run(run, overrides, flags))
        elif state.status != PENDING:
            status = NO_RECORD if state.over else state.status  # its directory is gone
            record = state.record or Record(status=status, reason=state.reason)
            entries.append(Entry(record, state.config or {}, overrides, None, flags))
    return entries


def collect(directory: Path) -> list[Entry]:
    """All runs of a sweep directory, or every `result.json` below any other directory; every run once.

    Raises `UnipetError` when the directory does not exist or holds no run.
    """
    if not directory.is_dir():
        raise UnipetError(f"{directory}: no such directory. Give the directory of your runs, for example `runs`.")
    if is_sweep(directory):
        return collect_sweep(directory)
    sweeps = sorted(path.parent for path in directory.rglob("jobs") if path.is_dir() and is_sweep(path.parent))
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
