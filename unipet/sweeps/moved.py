"""A sweep whose directory was moved: where the relative paths of its jobs begin now, and where its runs are."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path

from unipet.sweeps.claims import living
from unipet.sweeps.directory import Sweep, renew
from unipet.sweeps.job_files import Job, read_job


def found_again(sweep: Sweep, versions: Mapping[str, str]) -> Sweep:
    """The sweep with the folder in which its relative paths begin: the one that `sweep.yaml` names, or this process's own where
    that one has less of what the jobs name. Then the directory was moved without its folder, and says so from now on."""
    every = (read_job(sweep.directory, number) for number in range(sweep.total))
    first = next((job for job in every if job.mistake is None), None)
    if first is None or living(sweep.directory):
        return sweep
    named = list(_relative_paths(sweep, first))
    folder = max((sweep.folder, Path.cwd()), key=lambda place: (place.is_dir(), _there(place, named)))
    if folder == sweep.folder:
        return sweep
    print(f"the sweep was moved; the relative paths of its jobs begin in {folder}", file=sys.stderr)
    there = replace(sweep, folder=folder)
    renew(there, [], versions)
    return there


def in_its_place(sweep: Sweep, job: Job) -> Job:
    """A job whose run goes where the sweep's runs are: the directory around the sweep, wherever that was moved."""
    up = Path(sweep.runs).parts
    if job.mistake is not None or not up or set(up) != {os.pardir}:
        return job  # hydra.sweep.dir has put the sweep elsewhere
    directory = Path(os.path.abspath(sweep.directory))
    for spelled in (directory, directory.resolve()):
        expected = Path(str(job.values["runs_dir"]), *spelled.parts[-len(up) :])
        if expected.is_dir() and expected.samefile(directory):
            return job
    root = directory.parents[len(up) - 1]
    runs_dir = os.path.relpath(root) if root.is_relative_to(Path.cwd()) else str(root)
    return replace(job, values={**job.values, "runs_dir": runs_dir})


def _relative_paths(sweep: Sweep, job: Job) -> Iterator[str]:
    """What a job reads by a relative path: groups of the user's own, base model, data, modules beside them."""
    for path in (sweep.config_dir, job.values["model"]["path"], job.values["task"]["data_dir"]):
        if path and not os.path.isabs(str(path)):
            yield str(path)
    for module in job.values["imports"]:
        yield f"{str(module).replace('.', '/')}.py"


def _there(folder: Path, paths: list[str]) -> int:
    """How many of these paths there are in a folder."""
    return sum((folder / path).exists() for path in paths)
