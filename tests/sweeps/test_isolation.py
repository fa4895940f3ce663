"""Whatever a job does to its process, it fails alone, with a reason and the command that repeats it."""

from __future__ import annotations

import json
import os
import shlex
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import pytest

from tests.support.misbehaving import FIXED, begun, how, processes_of, states, swept, unipet, wait_for, write_study
from unipet.runs.sweep_files import read_jobs


@pytest.fixture()
def here(tmp_path: Path) -> Path:
    return write_study(tmp_path)


ENDS = {
    "sigkill": "WorkerDied: its process was ended by SIGKILL",
    "segfault": "WorkerDied: its process was ended by SIGSEGV",
    "sys.exit": "SystemExit: 3",
    "os._exit": "WorkerDied: its process ended with exit code 4",
    "hang": "Timeout: it took longer than launcher.timeout=",
    "raise": "RuntimeError: boom",
    "nan": "the loss became nan",
}


@pytest.mark.parametrize("launcher", ["local", "slots", "packed"])
def test_each_fails_alone_with_its_reason(here: Path, launcher: str) -> None:
    own = {"slots": ["launcher.workers=2"], "packed": ["launcher.pack=8"]}.get(launcher, [])
    flags = [f"launcher={launcher}", "launcher.timeout=10", *own]
    done = unipet(here, "train", "-m", *FIXED, *flags, how("fine", *ENDS))
    assert done.returncode == 1, done.stderr
    found = states(here)
    assert found["fine"].status == "ok"
    for word, reason in ENDS.items():
        state = found[word]
        assert state.status == "failed" and reason in str(state.reason), (word, state)
        assert reason.split(": ")[-1] in done.stdout, "the table says why"
    assert "8 jobs, 7 failed" in done.stdout and "Traceback" not in done.stderr
    assert not processes_of(swept(here)) and not list((swept(here) / "claims").iterdir())
    status = unipet(here, "sweep", "status", str(swept(here)), "--json")
    said = json.loads(status.stdout)
    assert status.returncode == 1 and said["counts"] == {"ok": 1, "failed": 7}
    assert all(job["repeat"].endswith("--config-dir mine") and " task=tiny " in job["repeat"] for job in said["failed"])
    again = next(job["repeat"] for job in said["failed"] if "RuntimeError" in job["reason"])
    repeated = unipet(here, *shlex.split(again)[1:])
    assert repeated.returncode == 1 and "RuntimeError: boom" in repeated.stdout
    records = [json.loads(path.read_text()) for path in (here / "runs").glob("*/result.json")]
    assert not [record for record in records if record["status"] == "running"], "no record says that it still runs"


def test_only_what_is_not_the_job_s_fault_is_tried_again(here: Path) -> None:
    done = unipet(here, "train", "-m", *FIXED, "launcher.retries=1", how("sigkill once", "segfault"))
    assert done.returncode == 1
    found = states(here)
    assert {word: state.status for word, state in found.items()} == {"sigkill once": "ok", "segfault": "failed"}


def test_the_first_failure_can_end_the_sweep(here: Path) -> None:
    done = unipet(here, "train", "-m", *FIXED, "launcher.fail_fast=true", how("raise", "fine"))
    assert done.returncode == 1 and "launcher.fail_fast: job 1 failed" in done.stderr
    assert [state.status for state in read_jobs(swept(here))] == ["failed", "pending"]
    assert unipet(here, "sweep", "resume", str(swept(here))).returncode == 1, "the failed one is tried first"


def test_a_process_that_is_stopped_hangs(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing gives a sign of life, so no timeout is needed to see it; the time without one is short here."""
    from unipet.sweeps import launchers, supervisor
    from unipet.sweeps.directory import read_sweep

    first = unipet(here, "train", "-m", *FIXED, "launcher.fail_fast=true", how("raise", "stopped"))
    assert first.returncode == 1
    monkeypatch.chdir(here)
    sweep = read_sweep(swept(here))
    (sweep.directory / "stop").unlink()
    supervisor.Supervisor(sweep, [supervisor.Slot(launchers.worker_name())], stale_s=20.0).run()
    assert "Hang: it gave no sign of life for 20 s" in str(
        next(s for w, s in states(here).items() if "stopped" in w).reason
    )


def test_cancelling_lets_workers_write_and_end(here: Path) -> None:
    line = [sys.executable, "-m", "unipet", "train", "-m", *FIXED, "budget.max_steps=2000", how("slow", "fine")]
    running = subprocess.Popen(line, cwd=here, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        wait_for(lambda: begun(here) and "running" in {s.status for s in read_jobs(swept(here))})
        time.sleep(5)
        cancelled = unipet(here, "sweep", "cancel", str(swept(here)))
        assert cancelled.returncode == 0 and "1 worker was asked to end on this machine" in cancelled.stdout
        running.communicate(timeout=120)
    finally:
        running.kill()
        running.communicate()
    assert not processes_of(swept(here))
    assert "stopped: cancelled" in unipet(here, "sweep", "status", str(swept(here))).stdout
    assert not [state for state in read_jobs(swept(here)) if state.status == "ok"]


def test_killing_the_command_ends_its_workers(here: Path) -> None:
    line = [sys.executable, "-m", "unipet", "train", "-m", *FIXED, "budget.max_steps=2000", how("slow", "fine")]
    running = subprocess.Popen([*line, "launcher=slots", "launcher.workers=2"], cwd=here, stderr=subprocess.DEVNULL)
    try:
        wait_for(lambda: begun(here) and bool(processes_of(swept(here))))
        time.sleep(5)
        os.kill(running.pid, signal.SIGKILL)
        running.wait()
        wait_for(lambda: not processes_of(swept(here)))
    finally:
        running.kill()
        running.communicate()


@pytest.mark.parametrize(
    ("sign", "group", "said"),
    [
        (signal.SIGTERM, False, "SIGTERM"),
        (signal.SIGTERM, True, "SIGTERM"),
        (signal.SIGINT, True, "SIGINT (Ctrl-C)"),
        (signal.SIGINT, False, "SIGINT (Ctrl-C)"),
        (signal.SIGHUP, True, "SIGHUP (its terminal was closed)"),
    ],
)
def test_a_signal_ends_it_in_order(here: Path, sign: int, group: bool, said: str) -> None:
    """To the command alone, or as a terminal and a scheduler send it: to its whole process group."""
    line = [sys.executable, "-m", "unipet", "train", "-m", *FIXED, "budget.max_steps=2000", how("slow", "fine")]
    heard = partial(signal.signal, signal.SIGHUP, signal.SIG_DFL)  # nohup may have started the tests
    running = subprocess.Popen(
        line,
        cwd=here,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        preexec_fn=heard,
    )
    try:
        wait_for(lambda: any(path.stat().st_size for path in (here / "runs").glob("mine-*/metrics.jsonl")))
        (os.killpg if group else os.kill)(running.pid, sign)
        out, err = running.communicate(timeout=120)
    finally:
        running.kill()
        running.communicate()
    assert running.returncode == 128 + sign and f"error: interrupted by {said}" in err
    assert "2 jobs, 1 interrupted, 1 never started" in out
    (run,) = (path.parent for path in (here / "runs").glob("mine-*/metrics.jsonl"))
    assert f"interrupted by {said} after step " in out and list((run / "resume").glob("*.json")), "with a resume point"
    assert f"unipet train resume={run.relative_to(here)}\n" in out, "as short as it was typed"
    assert not processes_of(swept(here)) and not list((swept(here) / "claims").iterdir())
