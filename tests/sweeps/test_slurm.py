"""`launcher=slurm`: an array of workers, submitted and left alone; what becomes of it when tasks are preempted or killed."""

from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.misbehaving import FIXED, how, processes_of, states, swept, unipet, wait_for, write_study
from tests.support.slurm import Slurm
from unipet.cli.main import main
from unipet.config import LauncherConfig
from unipet.errors import UnipetError
from unipet.runs.record_files import RESULT, read_record
from unipet.runs.sweep_files import index_events, read_jobs
from unipet.sweeps.claims import attempts, read_claim
from unipet.sweeps.launchers import check_launcher

pytest.importorskip("submitit", reason="launcher=slurm submits through submitit: pip install unipet[slurm]")

ARRAY = [*FIXED, "launcher=slurm", "launcher.workers=2"]
LONG = 240.0  # seconds that a sweep of a few tiny jobs may take here


@pytest.fixture()
def here(tmp_path: Path) -> Path:
    return write_study(tmp_path)


@pytest.fixture()
def slurm(tmp_path: Path) -> Iterator[Slurm]:
    cluster = Slurm(tmp_path / "slurm")
    yield cluster
    cluster.end()


def submit(here: Path, slurm: Slurm, *more: str) -> Path:
    """Submit a sweep. The command returns at once, with 0."""
    done = unipet(here, "train", "-m", *ARRAY, *more, env=slurm.environment)
    assert done.returncode == 0, done.stderr
    assert "to follow: unipet sweep status runs/sweeps/" in done.stdout
    return swept(here)


def ok_exactly_once(sweep: Path) -> None:
    jobs = read_jobs(sweep)
    assert {job.status for job in jobs} == {"ok"}, [job.reason for job in jobs]
    ends = [event.job for event in index_events(sweep) if event.over]
    assert sorted(ends) == [job.job for job in jobs]


@pytest.mark.slow
def test_an_array_does_the_jobs_and_a_last_task_the_table(here: Path, slurm: Slurm) -> None:
    flags = ["launcher.partition=gpu", "launcher.account=us", "launcher.time=30", "launcher.gpus=1", "launcher.cpus=4"]
    flags += ["launcher.memory_gib=7.5", "launcher.sbatch={qos: high, exclusive: true}"]
    sweep = submit(here, slurm, *flags, how("fine", "raise", "segfault"))
    assert slurm.jobs() == ["100", "101"] and not slurm.done("101")
    array, last = slurm.options("100"), slurm.options("101")
    assert array["array"] == "0-1%2" and last["dependency"] == "afterany:100" and "array" not in last
    for told in (array, last):
        assert (told["partition"], told["account"], told["time"], told["qos"]) == ("gpu", "us", "30", "high")
        assert (told["gpus-per-node"], told["cpus-per-task"], told["mem"]) == ("1", "4", "7680MB")
        assert told["signal"] == "USR2@150" and {"requeue", "exclusive"} <= set(told)
    again = unipet(here, "sweep", "resume", str(sweep), env=slurm.environment)
    assert "its tasks are queued or running already (job 100, 101)" in again.stdout and slurm.jobs() == ["100", "101"]
    wait_for(lambda: slurm.done("101"), LONG)
    ends = {word: state.status for word, state in states(here).items()}
    assert ends == {"fine": "ok", "raise": "failed", "segfault": "failed"}
    text = (sweep / "comparison.txt").read_text()
    assert "RuntimeError: boom" in text and "SIGSEGV" in text
    assert not processes_of(sweep) and not attempts(sweep)
    assert unipet(here, "sweep", "status", str(sweep)).returncode == 1
    assert "3 jobs, 2 failed" in (sweep / "slurm" / "101_0_log.out").read_text()


def slow_sweep(here: Path, slurm: Slurm) -> Path:
    """Two jobs of about ten seconds each, both in training."""
    sweep = submit(here, slurm, "budget.max_steps=20", how("slow"), "seed=0,1")
    logs = [sweep / "slurm" / f"100_{task}_0_log.err" for task in (0, 1)]
    wait_for(lambda: all(log.exists() and "training: step" in log.read_text() for log in logs), LONG)
    return sweep


def task_of(sweep: Path, job: int) -> str:
    """The task that runs a job: its worker is named after it."""
    owner = read_claim(sweep, job, attempts(sweep)[job]).owner
    assert owner is not None
    return f"100_{owner.worker.split('-')[1]}"


@pytest.mark.slow
def test_a_signal_before_the_time_limit_queues_the_task_again(here: Path, slurm: Slurm) -> None:
    sweep = slow_sweep(here, slurm)
    for task in ("100_0", "100_1"):
        slurm.signal(task, signal.SIGUSR2)
    wait_for(lambda: slurm.done("101"), LONG)
    assert slurm.starts("100_0") == slurm.starts("100_1") == 2 and slurm.starts("101") == 1
    ok_exactly_once(sweep)
    records = [read_record(sweep / str(job.run_dir) / RESULT) for job in read_jobs(sweep)]
    assert all(record.resumed for record in records), "from their resume points"
    assert not processes_of(sweep) and not attempts(sweep)


@pytest.mark.slow
def test_a_preempted_task_gives_its_job_back_and_waits_to_be_queued(here: Path, slurm: Slurm) -> None:
    sweep = slow_sweep(here, slurm)
    task = task_of(sweep, 0)
    slurm.requeue(task)
    slurm.signal(task, signal.SIGTERM)
    wait_for(lambda: 0 not in attempts(sweep), LONG)
    assert slurm.starts(task) == 1, "it does not end by itself"
    slurm.signal(task, signal.SIGKILL)
    wait_for(lambda: slurm.done("101"), LONG)
    assert slurm.starts(task) == 2
    ok_exactly_once(sweep)


@pytest.mark.slow
def test_the_last_task_does_what_killed_tasks_left(here: Path, slurm: Slurm) -> None:
    sweep = slow_sweep(here, slurm)
    for task in ("100_0", "100_1"):
        slurm.signal(task, signal.SIGKILL)
    wait_for(lambda: slurm.done("101"), LONG)
    ok_exactly_once(sweep)
    assert (sweep / "comparison.txt").is_file()


@pytest.mark.slow
def test_cancelling_empties_the_queue(here: Path, slurm: Slurm) -> None:
    sweep = slow_sweep(here, slurm)
    done = unipet(here, "sweep", "cancel", str(sweep), env=slurm.environment)
    assert done.returncode == 0 and "SLURM was asked to end job 100, 101." in done.stdout
    wait_for(lambda: slurm.done("100") and slurm.done("101"), LONG)
    assert not processes_of(sweep) and not attempts(sweep) and slurm.starts("101") == 0
    assert not [job for job in read_jobs(sweep) if job.status == "ok"]


@pytest.mark.slow
def test_submitits_local_executor_takes_the_same_tasks(here: Path) -> None:
    with open(here / "said", "w") as said:
        line = [
            "train",
            "-m",
            *ARRAY,
            "launcher.cluster=local",
            "budget.max_steps=20",
            how("slow", "raise"),
            "seed=0,1",
        ]
        done = unipet(here, *line, stdout=said, stderr=said)
    assert done.returncode == 0, (here / "said").read_text()
    assert "submitted on this machine: 2 workers for 4 jobs" in (here / "said").read_text()
    sweep = swept(here)
    wait_for(lambda: read_jobs(sweep)[0].status == "running", LONG)
    owner = read_claim(sweep, 0, 1).owner
    assert owner is not None
    task = int(Path(f"/proc/{owner.pid}/stat").read_text().rpartition(")")[2].split()[1])
    os.kill(task, signal.SIGUSR2)  # the worker's parent is the task
    wait_for((sweep / "comparison.txt").is_file, LONG)
    assert [job.status for job in read_jobs(sweep)] == ["ok", "ok", "failed", "failed"]
    assert (task_log := list((sweep / "slurm").glob("*_log.out"))) and any(
        "Requeued job" in x.read_text() for x in task_log
    )
    wait_for(lambda: not processes_of(sweep))


def test_what_cannot_be_submitted_is_said_before_anything_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PATH", str(tmp_path))
    command = ["train", "-m", "seed=0,1", "launcher=slurm"]
    assert main(command) != 0
    assert "launcher=slurm: the command sbatch is not on this machine" in capsys.readouterr().err
    monkeypatch.setitem(sys.modules, "submitit", None)
    assert main(command) != 0
    assert "pip install 'unipet[slurm]'" in capsys.readouterr().err
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize(
    ("launcher", "said"),
    [
        (LauncherConfig("slurm", sbatch={"time": "3"}), "launcher.sbatch.time: launcher.time sets this option"),
        (LauncherConfig("slurm", sbatch={"cpus_per_task": "3"}), "launcher.sbatch.cpus_per_task: launcher.cpus sets"),
        (
            LauncherConfig("local", partition="gpu"),
            "launcher.partition=gpu: given, but launcher=local does not read it",
        ),
        (LauncherConfig("local", workers=2), "launcher.workers=2: given, but launcher=local does not read it"),
        (LauncherConfig("slots", isolate=False), "launcher.isolate=false: given, but launcher=slots"),
    ],
)
def test_an_option_that_would_not_be_read_is_refused(launcher: LauncherConfig, said: str) -> None:
    with pytest.raises(UnipetError, match=said):
        check_launcher(launcher)


@pytest.mark.slow
def test_what_sbatch_says_is_the_error(here: Path, slurm: Slurm) -> None:
    (slurm.bin / "sbatch").write_text("#!/bin/sh\necho 'Invalid partition name specified' >&2\nexit 1\n")
    done = unipet(here, "train", "-m", *ARRAY, how("fine", "raise"), env=slurm.environment)
    assert done.returncode != 0 and "Traceback" not in done.stderr
    assert "sbatch has not taken the job" in done.stderr and "Invalid partition name specified" in done.stderr
    assert json.loads(unipet(here, "sweep", "status", str(swept(here)), "--json").stdout)["counts"] == {"pending": 2}
