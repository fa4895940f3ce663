"""A sweep's directory: whole or absent, every job in it as it was composed, and its files in step with each other."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.support.running import LOW_RANK, write_world
from unipet.compose.composer import composer
from unipet.compose.expand import sweep_jobs
from unipet.compose.overrides import plan
from unipet.config import LauncherConfig
from unipet.errors import UnipetError
from unipet.runs.sweep_files import INDEX, JOBS, JobState, append_index, index_events, read_jobs
from unipet.sweeps.directory import Sweep, read_sweep, reopen, sweep_name, write_sweep
from unipet.sweeps.job_files import Job, job_config, read_job


def jobs_of(*texts: str) -> list[Job]:
    with composer(None) as composing:
        expanded = list(sweep_jobs(plan(texts, True, composing), composing))
    return [Job(each.number, each.overrides, each.differing, each.values, each.mistake) for each in expanded]


def sweep_in(directory: Path, count: int) -> Sweep:
    return Sweep(directory, ["-m"], [], ["seed"], count, directory.parent, LauncherConfig(retries=2), "seed-1")


@pytest.fixture()
def written(tmp_path: Path) -> tuple[Path, list[Job]]:
    jobs = jobs_of("method=lora,bitfit", "seed=0,1", "task.max_length=32", "optim.lr=1e-3")
    assert write_sweep(sweep_in(tmp_path / "s", len(jobs)), jobs, {"unipet": "1"})
    return tmp_path / "s", jobs


def test_what_is_read_is_what_was_written(written: tuple[Path, list[Job]]) -> None:
    directory, jobs = written
    assert read_sweep(directory) == sweep_in(directory, len(jobs))
    for job in jobs:
        again = read_job(directory, job.number)
        assert (again.overrides, again.differing, again.mistake) == (job.overrides, job.differing, None)
        assert job_config(again) == job_config(job)
    assert [job_config(job).seed for job in jobs] == [0, 1, 0, 1] and jobs[0].differing == ["method=lora", "seed=0"]
    assert [state.status for state in read_jobs(directory)] == ["pending"] * 4


def test_an_unquoted_scalar_of_a_method_stays_as_it_was_written(tmp_path: Path) -> None:
    jobs = jobs_of("method=lora", "++method.insertions.attention.function.init='no'", "seed=0,1")
    write_sweep(sweep_in(tmp_path / "s", 2), jobs, {})
    for job in (jobs[0], read_job(tmp_path / "s", 0)):
        assert job_config(job).method["insertions"]["attention"]["function"]["init"] == "no"


def test_a_job_with_a_mistake_keeps_it(tmp_path: Path) -> None:
    job = Job(0, ["seed=0"], [], {}, "seed: -1 given; allowed: more.")
    write_sweep(sweep_in(tmp_path / "s", 1), [job], {})
    with pytest.raises(UnipetError, match="seed: -1 given"):
        job_config(read_job(tmp_path / "s", 0))


def test_a_second_writer_leaves_the_first_one_s_directory(written: tuple[Path, list[Job]]) -> None:
    directory, jobs = written
    before = (directory / INDEX).read_bytes()
    assert not write_sweep(sweep_in(directory, 1), jobs[:1], {}) and (directory / INDEX).read_bytes() == before
    assert [path.name for path in directory.parent.iterdir()] == ["s"], "nothing half-written is left"


def test_names_follow_what_is_computed() -> None:
    name = sweep_name(jobs_of("method=lora", "seed=0,1"), ["seed"])
    assert name.startswith("seed-") and name == sweep_name(jobs_of("method=lora", "seed=0,1"), ["seed"])
    assert name == sweep_name(jobs_of("method=lora", "seed=0,1", "runs_dir=x", "launcher.retries=3"), ["seed"])
    assert name != sweep_name(jobs_of("method=lora", "seed=0,2"), ["seed"])
    assert name != sweep_name(jobs_of("method=lora", "seed=0,1", "optim.lr=1e-3"), ["seed"])


def test_an_outcome_counts_without_its_line_and_a_line_without_its_outcome_does_not(
    written: tuple[Path, list[Job]],
) -> None:
    directory, _ = written
    (directory / JOBS / "0.json").write_text(
        json.dumps({"job": 0, "status": "ok", "run_dir": "../r", "overrides": ["a=1"]})
    )
    append_index(directory, [JobState(1, "ok", run_dir="../q")])
    with open(directory / INDEX, "a") as file:
        file.write('not json\n{"job": 2, "status": "o')
    states = read_jobs(directory)
    assert [state.status for state in states] == ["ok", "pending", "pending", "pending"]
    assert states[0].run_dir == "../r" and states[1].overrides[:2] == ["method=lora", "seed=1"]


def test_a_torn_line_costs_no_other_one(written: tuple[Path, list[Job]]) -> None:
    """A process was killed, or a disk was full, in the middle of a line."""
    directory, _ = written
    with open(directory / INDEX, "a") as file:
        file.write('{"job": 2, "status": "o')
    append_index(directory, [JobState(3, "running"), JobState(1, "running")])
    assert [event.job for event in index_events(directory)][-2:] == [3, 1]
    append_index(directory, [JobState(0, "running")])
    assert b"\n\n" not in (directory / INDEX).read_bytes()


def test_failures_are_taken_back_results_stay(written: tuple[Path, list[Job]]) -> None:
    directory, _ = written
    for job, status in enumerate(("ok", "failed", "skipped", "interrupted")):
        (directory / JOBS / f"{job}.json").write_text(json.dumps({"job": job, "status": status, "run_dir": None}))
    reopen(directory, results_too=False)
    assert sorted(path.name for path in (directory / JOBS).glob("*.json")) == ["0.json", "2.json"]
    (directory / JOBS / "2.json").write_text('{"job": 2, "sta')
    reopen(directory, results_too=False)
    assert sorted(path.name for path in (directory / JOBS).glob("*.json")) == ["0.json"], "half of a file is no outcome"
    reopen(directory, results_too=True)
    assert not list((directory / JOBS).glob("*.json"))


def test_another_directory_is_no_sweep(tmp_path: Path) -> None:
    with pytest.raises(UnipetError, match=r"not the directory of a sweep: it has no sweep\.yaml"):
        read_sweep(tmp_path)
    (tmp_path / "sweep.yaml").write_text("command: 3\n")
    with pytest.raises(UnipetError, match=r"sweep\.yaml: not the description of a sweep"):
        read_sweep(tmp_path)


def test_a_user_s_own_files_are_composed_once_for_all_jobs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import hydra

    calls = []
    real = hydra.compose
    monkeypatch.setattr(hydra, "compose", lambda *args, **kwargs: calls.append(args) or real(*args, **kwargs))
    write_world(tmp_path, {"method/mine": LOW_RANK})
    with composer(str(tmp_path / "mine")) as composing:
        todo = plan(["method=mine,lora", "seed=0,1,2", "optim.lr=1e-3,1e-2"], True, composing)
        jobs = list(sweep_jobs(todo, composing))
    assert len(jobs) == 12 and len(calls) == 2, "once for each choice of groups"
