"""Watching worker processes: what two signals ask for, and whose time counts. tests/sweeps/test_isolation.py lets workers die in
every other way."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from unipet.config import LauncherConfig
from unipet.sweeps.claims import Owner, claim
from unipet.sweeps.directory import Sweep, write_sweep
from unipet.sweeps.job_files import Job
from unipet.sweeps.supervisor import ASLEEP_S, START_S, Slot, Supervisor, heard
from unipet.training.stopping import MOMENT_S


def test_a_later_second_signal_kills_the_workers(tmp_path: Path) -> None:
    with subprocess.Popen(["sleep", "1000"]) as worker:
        sweep = Sweep(tmp_path, ["-m"], [], ["seed"], 1, tmp_path, LauncherConfig())
        supervisor = Supervisor(sweep, [Slot("a", process=worker)])
        supervisor._asked_to_end(signal.SIGTERM, None)
        supervisor._asked_to_end(signal.SIGINT, None)
        assert worker.poll() is None, "two signals within a moment are one wish"
        supervisor.asked_at -= 2 * MOMENT_S
        supervisor._asked_to_end(signal.SIGINT, None)
        assert worker.wait(10) == -signal.SIGKILL and supervisor.ended_by == signal.SIGTERM


@pytest.fixture()
def watched(tmp_path: Path) -> Iterator[Supervisor]:
    """A worker at job 0, with a limit of 30 s for a job, and 20 s without a sign of life."""
    launcher, values = LauncherConfig(timeout=30.0, fail_fast=True), {"method": {"name": "m"}, "task": {"name": "t"}}
    sweep = Sweep(tmp_path / "sweep", ["-m"], [], ["seed"], 1, tmp_path, launcher)
    write_sweep(sweep, [Job(0, ["seed=0"], ["seed=0"], values, None)], {})
    with subprocess.Popen(["sleep", "1000"]) as worker:
        owner = Owner("a", Owner.this("").host, worker.pid, Owner.this("").processes)
        assert claim(sweep.directory, 0, owner, 1) is not None
        yield Supervisor(sweep, [Slot("a", process=worker)], stale_s=20.0)
        worker.kill()


def watch(supervisor: Supervisor, seconds: float, beats: bool = True, looks: int = 10) -> str:
    """Let time go by between some looks; why the job has failed, or nothing."""
    directory = supervisor.sweep.directory
    for _ in range(looks):
        supervisor.looked_at -= seconds / looks
        if beats:
            (directory / "claims" / "0.1").exists() and os.utime(directory / "claims" / "0.1", (0, supervisor.awake))
        supervisor._look_at_claims()
    outcome = directory / "jobs" / "0.json"
    return json.loads(outcome.read_text())["reason"] if outcome.exists() else ""


def test_a_job_without_a_sign_of_life_hangs(watched: Supervisor) -> None:
    assert watch(watched, 18, beats=False) == "" and "Hang: it gave no sign of life for 20 s" in watch(
        watched, 5, False
    )


def test_the_time_in_which_everything_was_stopped_does_not_count(watched: Supervisor) -> None:
    """Ctrl-Z and `fg`, or a laptop that slept: the workers had no time, either."""
    assert watch(watched, 1) == ""
    for _ in range(5):
        assert watch(watched, 10 * ASLEEP_S, beats=False, looks=1) == "", "neither a hang nor a timeout"
    assert "Hang" in watch(watched, 25, beats=False)


def test_a_limit_is_for_the_job_and_not_for_the_imports_of_a_new_process(watched: Supervisor) -> None:
    assert watch(watched, START_S + 20) == "" and f"launcher.timeout=30 s, and than the {START_S:g} s" in watch(
        watched, 20
    )


def test_a_process_that_has_done_a_job_has_no_time_to_begin(watched: Supervisor) -> None:
    watched.slots[0].fresh = False
    assert watch(watched, 25) == "" and watch(watched, 10) == "Timeout: it took longer than launcher.timeout=30 s"


def test_whoever_says_nohup_wants_the_sweep_to_outlive_the_terminal() -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_DFL)  # nohup may have started the tests
    try:
        assert signal.SIGHUP in heard()
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
        assert heard() == [signal.SIGINT, signal.SIGTERM]
    finally:
        signal.signal(signal.SIGHUP, before)
