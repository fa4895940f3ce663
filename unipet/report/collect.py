"""Find the runs below a directory and read their records."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from unipet.errors import UnipetError
from unipet.report.identity import distinct
from unipet.runs.record import Record
from unipet.runs.record_files import ATTEMPT, RESULT, record_files
from unipet.runs.record_index import read_runs
from unipet.runs.sweep_files import JOBS, PENDING, JobState, is_sweep, read_jobs

NO_RECORD = "no record"  # status of a job whose run is gone
UNREADABLE = "unreadable"  # status of a run whose record or configuration cannot be read


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


def read_entries(asked: Sequence[tuple[Path, tuple[str, ...], tuple[str, ...]]]) -> list[Entry]:
    """The runs in these directories, each with the overrides and flags of its job. One that cannot be read has the status
    `UNREADABLE` and says why."""
    broken: dict[Path, UnipetError] = {}
    runs = {run.directory: run for run in read_runs([directory for directory, _, _ in asked], broken.__setitem__)}
    entries = []
    for directory, overrides, flags in asked:
        if (run := runs.get(directory)) is not None:
            entries.append(Entry(run.record, run.config, overrides, directory, flags))
        else:
            record = Record(status=UNREADABLE, reason=str(broken[directory]))
            entries.append(Entry(record, {}, overrides, directory, flags))
    return entries


def collect_sweep(directory: Path) -> list[Entry]:
    """The reported runs of one sweep directory in job order. A run of several jobs comes once."""
    return reported(distinct(collect_jobs(directory)))


def is_trial(entry: Entry) -> bool:
    """Whether a run was made to choose by, and is scored on the split that is never reported."""
    return entry.record.trial.scored_on == "selection"


def reported(entries: Sequence[Entry]) -> list[Entry]:
    """The runs that enter tables."""
    return [entry for entry in entries if not is_trial(entry)]


def trials(directory: Path) -> list[Entry]:
    """The trials of searches in or below a directory, each once in every search: two may have run the same."""
    sweeps = [directory] if is_sweep(directory) else sweeps_below(directory)
    told = [entry for sweep in sweeps for entry in collect_jobs(sweep) if is_trial(entry)]
    known = {entry.directory.resolve() for entry in told if entry.directory is not None}
    others = [
        entry
        for entry in _all_runs(directory)
        if is_trial(entry) and (entry.directory is None or entry.directory.resolve() not in known)
    ]
    once: dict[object, Entry] = {}
    for number, entry in enumerate([*told, *others]):
        trial, run = entry.record.trial, entry.record.run_id or number
        once[trial.search, trial.study, trial.number, trial.until, entry.record.seed, run] = entry
    return list(once.values())


def collect_jobs(directory: Path) -> list[Entry]:
    """The jobs of one sweep directory that have begun, in job order, those that failed before they had a run directory
    included."""
    states = read_jobs(directory)
    recorded = [(state, run) for state in states if (run := _run_of(directory, state)) is not None]
    entries = read_entries([(run, tuple(state.overrides), tuple(state.flags)) for state, run in recorded])
    by_job = {state.job: _told(entry, state) for (state, _), entry in zip(recorded, entries, strict=True)}
    begun = (state for state in states if state.job in by_job or state.status != PENDING or state.record is not None)
    return [by_job.get(state.job) or _without_run(state) for state in begun]


def _told(entry: Entry, state: JobState) -> Entry:
    """A run as what this sweep's search asked for it, also where another one had run it before."""
    if state.told is None:
        return entry
    return replace(entry, record=replace(entry.record, trial=state.told))


def _run_of(sweep: Path, state: JobState) -> Path | None:
    """The directory of a job's run, where there is a record in it."""
    if state.run_dir is None:
        return None
    run, short = sweep / state.run_dir, Path(os.path.normpath(sweep / state.run_dir))
    if not (run / RESULT).is_file():
        return None
    if (
        not state.over and (run / ATTEMPT / RESULT).is_file()
    ):  # a repetition that has not ended: the result there is an older one
        return run / ATTEMPT
    return short if short.is_dir() and short.samefile(run) else run  # another place, where a link leads to the sweep


def _without_run(state: JobState) -> Entry:
    """A job as its outcome alone tells it; the directory of its run is gone, or was never there."""
    record = state.record or Record(status=NO_RECORD if state.over else state.status, reason=state.reason)
    return Entry(record, state.config or {}, tuple(state.overrides), None, tuple(state.flags))


def collect(directory: Path) -> list[Entry]:
    """All runs of a sweep directory, or every `result.json` below any other directory; every run once. Trials of a search, which
    are scored on the selection split, are left out.

    Raises `UnipetError` when the directory does not exist, holds no run, or none that can be read.
    """
    entries = _all_runs(directory)
    if entries and all(entry.record.status == UNREADABLE for entry in entries):
        raise UnipetError(str(entries[0].record.reason))
    if entries and not reported(entries):
        raise UnipetError(
            f"{directory}: {len(entries)} trials of a search and no final run yet, so there is nothing to report. "
            "`unipet sweep status` says how far a search is; `unipet runs` lists its trials."
        )
    return reported(entries)


def _all_runs(directory: Path) -> list[Entry]:
    if not directory.is_dir():
        raise UnipetError(f"{directory}: no such directory. Give the directory of your runs, for example `runs`.")
    if is_sweep(directory):
        return distinct(collect_jobs(directory))
    jobs = [entry for sweep in sweeps_below(directory) for entry in collect_jobs(sweep)]
    entries = read_entries([(path.parent, (), ()) for path in record_files(directory)])
    if entries:
        entries = [*with_overrides(entries, jobs), *never_begun(jobs)]
    else:  # a directory of sweeps: they point to runs elsewhere
        entries = jobs
    if not entries:
        raise UnipetError(
            f"{directory}: no {RESULT} below it, so there is nothing to report. Run `unipet train` first."
        )
    return distinct(entries)


def sweeps_below(directory: Path) -> list[Path]:
    """The sweeps' directories below a directory, or the directory itself."""
    folders = (Path(folder) for folder, inside, _ in os.walk(directory) if JOBS in inside)
    return sorted(folder for folder in folders if is_sweep(folder))


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
