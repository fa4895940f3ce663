"""A sweep whose directory was moved in the middle goes on where it is now."""

from __future__ import annotations

import json
import os
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from tests.support.misbehaving import FIXED, how, unipet, write_study
from unipet.config import LauncherConfig
from unipet.runs.sweep_files import read_jobs
from unipet.sweeps.directory import Sweep, read_sweep, write_sweep
from unipet.sweeps.job_files import Job
from unipet.sweeps.moved import found_again, in_its_place

JOB = Job(
    *(0, ["seed=0"], []),
    {"runs_dir": "runs", "model": {"path": "model"}, "task": {"data_dir": None}, "imports": ["words"]},
    None,
)


@pytest.fixture()
def sweep(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Sweep:
    """Begun in `study`, which holds what its job names."""
    study = tmp_path / "study"
    (study / "model").mkdir(parents=True)
    (study / "words.py").touch()
    made = Sweep(study / "runs/sweeps/s", ["-m"], [], [], 1, study, LauncherConfig(), "s", runs="../..")
    write_sweep(made, [JOB], {})
    monkeypatch.chdir(study)
    return made


def test_what_was_not_moved_stays_as_it_was_typed(sweep: Sweep, tmp_path: Path) -> None:
    assert found_again(sweep, {}) is sweep and in_its_place(sweep, JOB) is JOB
    assert in_its_place(replace(sweep, directory=Path("runs/sweeps/s")), JOB) is JOB
    os.symlink(tmp_path / "study/runs/sweeps", tmp_path / "elsewhere")
    assert in_its_place(replace(sweep, directory=tmp_path / "elsewhere/s"), JOB) is JOB, "another way to the same place"
    assert in_its_place(replace(sweep, runs="../../runs"), JOB) is JOB, "hydra.sweep.dir beside the runs"


def test_moved_with_its_folder_it_goes_on_there(sweep: Sweep, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.move(tmp_path / "study", tmp_path / "new")
    monkeypatch.chdir(tmp_path)
    moved = read_sweep(tmp_path / "new/runs/sweeps/s")
    assert found_again(moved, {}).folder == tmp_path / "new"
    monkeypatch.chdir(tmp_path / "new")
    assert in_its_place(moved, JOB) is JOB


def test_moved_alone_its_paths_begin_where_the_command_is_given(sweep: Sweep, tmp_path: Path) -> None:
    shutil.move(tmp_path / "study/runs", tmp_path / "store")
    place = tmp_path / "store/sweeps/s"
    found = found_again(read_sweep(place), {"unipet": "1"})
    assert found.folder == tmp_path / "study" and read_sweep(place) == found, "and it is written down"
    assert in_its_place(found, JOB).values["runs_dir"] == str(tmp_path / "store")
    shutil.move(tmp_path / "store", tmp_path / "study/old")
    assert in_its_place(read_sweep(tmp_path / "study/old/sweeps/s"), JOB).values["runs_dir"] == "old"


def test_a_run_goes_on_from_its_resume_point_in_the_new_place(tmp_path: Path) -> None:
    here = write_study(tmp_path / "study")
    flags = ["launcher.fail_fast=true", "checkpoint.every=1 steps", "budget.max_steps=4"]
    assert unipet(here, "train", "-m", *FIXED, *flags, how("sigkill once", "fine")).returncode == 1
    shutil.move(here / "runs", tmp_path / "store")
    (sweep,) = (tmp_path / "store/sweeps").iterdir()
    done = unipet(here, "sweep", "resume", str(sweep))
    assert done.returncode == 0 and "relative paths of its jobs begin in" in done.stderr, done.stderr
    assert not (here / "runs").exists(), "nothing is written where it was"
    assert [job.status for job in read_jobs(sweep)] == ["ok", "ok"]
    records = [json.loads((sweep / str(job.run_dir) / "result.json").read_text()) for job in read_jobs(sweep)]
    assert [record["status"] for record in records] == ["ok", "ok"]
    assert sorted(path.parent.parent for path in (tmp_path / "store").glob("*/result.json")) == [tmp_path / "store"] * 2
