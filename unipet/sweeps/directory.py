"""A sweep's directory: every job of it resolved and written, whole, before the first one runs.

The directory is named after what is in it. So the same command finds it again, and does what is missing.
"""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Container, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from unipet.calculus.options import parse_options
from unipet.calculus.yaml_reader import Plain, read_yaml, write_yaml
from unipet.config import LauncherConfig
from unipet.errors import UnipetError
from unipet.output.files import as_file_name, remove_leftovers, temporary_name, write_bytes_atomic
from unipet.runs.identity import APART
from unipet.runs.sweep_files import (
    CLAIMS,
    INDEX,
    JOBS,
    SWEEP,
    WORKERS,
    JobState,
    append_index,
    job_numbers,
    read_outcome,
)
from unipet.sweeps.job_files import Job, job_file, read_job
from unipet.sweeps.search.stage_files import SEARCH, STAGES, TRIALS, last_stage

STAGED = (TRIALS, STAGES, SEARCH)  # what a search has besides


@dataclass(frozen=True)
class _Described:
    """`sweep.yaml`, besides the versions, which are for people."""

    command: list[str]
    flags: list[str]
    swept: list[str]
    jobs: int
    folder: str
    launcher: LauncherConfig
    name: str = ""
    search: str = "none"
    runs: str = ""


@dataclass(frozen=True)
class Sweep:
    """A sweep as `sweep.yaml` describes it."""

    directory: Path
    command: list[str]  # the arguments of `unipet train`
    flags: list[str]  # those of them that a single job needs, too
    swept: list[str]  # keys with several values
    jobs: int
    folder: Path  # where the command was given: relative paths begin there
    launcher: LauncherConfig
    name: str = ""  # says what the jobs compute; by default that of the directory, too
    search: str = "none"  # what decides which jobs come next
    runs: str = ""  # its runs_dir, from its own directory; unknown of older versions

    @property
    def total(self) -> int:
        """How many jobs there are by now: a search adds some when others have ended."""
        last = last_stage(self.directory) if self.search != "none" else None
        return self.jobs if last is None else last.jobs

    @property
    def config_dir(self) -> str | None:
        """The user's directory of groups."""
        return self.flags[1] if self.flags else None


def sweep_name(jobs: Sequence[Job], swept: Sequence[str], own: str = "") -> str:
    """`<what is swept>-<12 hex characters over what the jobs compute>`; `own` tells it from every other sweep."""
    digest = hashlib.sha256(own.encode())
    for job in jobs:
        said = {key: value for key, value in job.values.items() if key not in APART}
        digest.update(repr((_plain(said), job.mistake)).encode())
    keys = "+".join(key.rpartition(".")[2] for key in swept) or "one"
    return f"{as_file_name(keys)[:60]}-{digest.hexdigest()[:12]}"


def _plain(tree: Any) -> Any:
    if isinstance(tree, Mapping):
        return sorted((str(key), _plain(value)) for key, value in tree.items())
    if isinstance(tree, list):
        return [_plain(value) for value in tree]
    return (type(tree) is Plain, str(tree)) if isinstance(tree, str) else tree


def write_sweep(
    sweep: Sweep,
    jobs: Sequence[Job],
    versions: Mapping[str, Any],
    further: Mapping[str, bytes] | None = None,
    events: Sequence[JobState] = (),
) -> bool:
    """Write the directory, whole or not at all; False where it is there already. `further` files by relative path; `events`
    are the first ones of the jobs, if there is more to say than their overrides. Raises `UnipetError` where it cannot."""
    directory = sweep.directory
    if (directory / SWEEP).is_file():
        return False
    new = temporary_name(directory)
    try:
        for name in (JOBS, CLAIMS, WORKERS):
            (new / name).mkdir(parents=True)
        for job in jobs:
            (new / JOBS / f"{job.number}.yaml").write_bytes(job_file(job))
        for name, content in (further or {}).items():
            (new / name).parent.mkdir(exist_ok=True)
            (new / name).write_bytes(content)
        append_index(new, events or [JobState(job.number, overrides=job.overrides, flags=sweep.flags) for job in jobs])
        (new / SWEEP).write_bytes(_sweep_file(sweep, versions))
        try:
            os.rename(new, directory)
        except OSError:
            if not (directory / SWEEP).is_file():  # not another process that was faster
                _fill(new, directory)
    except OSError as error:
        raise UnipetError(f"{directory}: cannot be written ({error.strerror or error}). Set runs_dir=DIR.") from None
    finally:
        shutil.rmtree(new, ignore_errors=True)
    return True


def _sweep_file(sweep: Sweep, versions: Mapping[str, Any]) -> bytes:
    described = {
        "name": sweep.name,
        "command": sweep.command,
        "flags": sweep.flags,
        "swept": sweep.swept,
        "jobs": sweep.jobs,
        "search": sweep.search,
        "runs": sweep.runs,
        "folder": os.path.relpath(sweep.folder, sweep.directory),
        "launcher": vars(sweep.launcher),
        "versions": versions,
    }
    return write_yaml(described).encode()


def renew(sweep: Sweep, jobs: Sequence[Job], versions: Mapping[str, Any]) -> None:
    """Let the directory say what the command says now. The jobs compute the same; how they are tracked, launched and
    resumed, and where the command was given, may have changed. Raises `UnipetError` where it cannot be written."""
    try:
        changed = []
        for job in jobs:
            path, content = sweep.directory / JOBS / f"{job.number}.yaml", job_file(job)
            if path.read_bytes() != content:
                write_bytes_atomic(path, content)
                changed.append(JobState(job.number, overrides=job.overrides, flags=sweep.flags))
        append_index(sweep.directory, changed)
        write_bytes_atomic(sweep.directory / SWEEP, _sweep_file(sweep, versions))
    except OSError as error:
        raise UnipetError(
            f"{sweep.directory}: cannot be written ({error.strerror or error}). Set runs_dir=DIR."
        ) from None


def _fill(new: Path, directory: Path) -> None:
    """Put a sweep into a directory of the user's own (`hydra.sweep.dir`) that has other things in it; `sweep.yaml` last."""
    for name in (*STAGED, JOBS, CLAIMS, WORKERS, INDEX, SWEEP):
        if (directory / name).exists():
            raise OSError(f"{name} of another sweep is in it")
        if (new / name).exists():
            os.rename(new / name, directory / name)


def read_sweep(directory: Path) -> Sweep:
    """What `sweep.yaml` in `directory` says. Raises `UnipetError` when there is none."""
    path = directory / SWEEP
    if not path.is_file():
        raise UnipetError(
            f"{directory}: not the directory of a sweep: it has no {SWEEP}. `unipet train -m` makes one below "
            "<runs_dir>/sweeps and prints its name."
        )
    content = read_yaml(path)
    try:
        said = parse_options(_Described, content, "sweep", "the description of a sweep", ignore=("versions",))
    except UnipetError as error:
        raise UnipetError(
            f"{path}: not the description of a sweep: {error} Or give the sweep's command again."
        ) from None
    return Sweep(
        directory=directory,
        command=said.command,
        flags=said.flags,
        swept=said.swept,
        jobs=said.jobs,
        folder=Path(os.path.normpath(directory / said.folder)),
        launcher=said.launcher,
        name=said.name or directory.name,  # of an older version
        search=said.search,
        runs=said.runs,
    )


def most_gpus(sweep: Sweep) -> int:
    """The largest `budget.gpus` of the sweep's jobs: any worker may take any of them."""
    jobs = (read_job(sweep.directory, number) for number in range(sweep.jobs))
    return max((int(job.values["budget"]["gpus"]) for job in jobs if job.mistake is None), default=1)


def reopen(directory: Path, results_too: bool, decided: Container[int] = ()) -> None:
    """Take back the outcomes that are no results, so that these jobs run again; not those of `decided` jobs, from which a
    search has gone on.

    With `results_too` those as well: their jobs then look whether the finished run is still the one that they ask for. Data
    or a base model may have changed since. While other workers are at the sweep, its results stay.
    """
    for written_in in (directory.parent, directory, directory / JOBS):
        remove_leftovers(written_in)
    for number in sorted(job_numbers(directory, ".json")):
        path = directory / JOBS / f"{number}.json"
        try:
            again = results_too or read_outcome(path).failed
        except UnipetError:  # not whole: as if it were not there
            again = True
        if again and number not in decided:
            path.unlink(missing_ok=True)


def take_back(directory: Path, jobs: Iterable[int]) -> None:
    """Take back the outcomes of these jobs: they run again."""
    for number in jobs:
        (directory / JOBS / f"{number}.json").unlink(missing_ok=True)
