"""Whatever a job does to its process, it fails alone, with a reason and the command that repeats it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from tests.support.running import TINY_TASK, write_world
from unipet.runs.sweep_files import JobState, read_jobs

#: A function that does to its process what its option says, once training has begun.
MODULE = '''
from dataclasses import dataclass
import os, signal, sys, time
from pathlib import Path
import unipet
from unipet.calculus.functions.base import Function, TensorSpec

def once(name):
    """True the first time in this directory."""
    try:
        Path(name).touch(exist_ok=False)
    except FileExistsError:
        return False
    return True

@dataclass(frozen=True)
class Misbehaving(Function):
    """A vector, until it misbehaves."""
    how: str = "fine"
    def slots(self, widths):
        return {"shift": {"": TensorSpec((widths.h,), "table")}}
    def delta(self, u, params, training):
        if training and not u.is_meta and "fake" not in type(u).__name__.lower():
            if self.how == "sigkill": os.kill(os.getpid(), signal.SIGKILL)
            if self.how == "sigkill once" and once("killed"): os.kill(os.getpid(), signal.SIGKILL)
            if self.how == "segfault": os.kill(os.getpid(), signal.SIGSEGV)
            if self.how == "sys.exit": sys.exit(3)
            if self.how == "os._exit": os._exit(4)
            if self.how == "hang": time.sleep(1000)
            if self.how == "stopped": os.kill(os.getpid(), signal.SIGSTOP)
            if self.how == "raise": raise RuntimeError("boom")
            if self.how == "nan": return params["shift"] * float("nan")
            if self.how == "slow": time.sleep(0.5)
        return params["shift"]
    @property
    def starts_at_zero(self):
        return False

unipet.register_function("misbehaving", Misbehaving)
'''
METHOD = {"name": "mine", "insertions": {"a": {"function": {"name": "misbehaving", "how": "fine"}, "position": "ffn"}}}
FIXED = [
    *("--config-dir=mine", "model=model", "task=tiny", "task.data_dir=data", "method=mine", "imports=[misbehaving]"),
    *("budget.max_steps=3", "optim.batch_size=4", "task.selection=none"),
]


@pytest.fixture()
def here(tmp_path: Path) -> Path:
    write_world(tmp_path, {"task/tiny": TINY_TASK, "method/mine": METHOD})
    (tmp_path / "misbehaving.py").write_text(MODULE)
    return tmp_path


def unipet(here: Path, *arguments: str, **settings: Any) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "unipet", *arguments], cwd=here, capture_output=True, text=True, timeout=300, **settings
    )


def swept(here: Path) -> Path:
    (sweep,) = (path for path in (here / "runs" / "sweeps").iterdir() if not path.name.startswith("."))
    return sweep


def states(here: Path) -> dict[str, JobState]:
    """The jobs by what their function does."""
    return {state.overrides[-1].split("=", 1)[1].strip("'"): state for state in read_jobs(swept(here))}


def how(*words: str) -> str:
    return "method.insertions.a.function.how=" + ",".join(f"'{word}'" for word in words)


def processes_of(sweep: Path) -> list[str]:
    """Worker processes of the sweep that are alive."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            line = path.read_bytes()
        except OSError:
            continue
        if str(sweep).encode() in line and b"unipet.sweeps.process" in line:
            found.append(path.parent.name)
    return found


ENDS = {
    "sigkill": "WorkerDied: its process was ended by SIGKILL",
    "segfault": "WorkerDied: its process was ended by SIGSEGV",
    "sys.exit": "SystemExit: 3",
    "os._exit": "WorkerDied: its process ended with exit code 4",
    "hang": "Timeout: it took longer than launcher.timeout=",
    "raise": "RuntimeError: boom",
    "nan": "the loss became nan",
}


@pytest.mark.parametrize("launcher", ["local", "slots"])
def test_each_fails_alone_with_its_reason(here: Path, launcher: str) -> None:
    flags = [f"launcher={launcher}", "launcher.timeout=60", *(["launcher.workers=2"] if launcher == "slots" else [])]
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
    assert all(job["repeat"].startswith("unipet train model=model task=tiny") for job in said["failed"])
    records = [json.loads(path.read_text()) for path in (here / "runs").glob("*/result.json")]
    assert not [record for record in records if record["status"] == "running"], "no record says that it still runs"


def test_only_what_is_not_the_job_s_fault_is_tried_again(here: Path) -> None:
    done = unipet(here, "train", "-m", *FIXED, "launcher.retries=1", how("sigkill once", "segfault"))
    assert done.returncode == 1
    found = states(here)
    assert {word: state.status for word, state in found.items()} == {"sigkill once": "ok", "segfault": "failed"}


def test_the_first_failure_can_end_the_sweep(here: Path) -> None:
    done = unipet(here, "train", "-m", *FIXED, "launcher.fail_fast=true", how("raise", "fine"))
    assert done.returncode == 1 and "launcher.fail_fast: job 0 failed" in done.stderr
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
        wait_for(
            lambda: (here / "runs" / "sweeps").is_dir() and "running" in {s.status for s in read_jobs(swept(here))}
        )
        time.sleep(5)
        cancelled = unipet(here, "sweep", "cancel", str(swept(here)))
        assert cancelled.returncode == 0 and "1 workers on this machine were asked to end" in cancelled.stdout
        running.communicate(timeout=120)
    finally:
        running.kill()
    assert not processes_of(swept(here))
    assert "stopped: cancelled" in unipet(here, "sweep", "status", str(swept(here))).stdout
    assert not [state for state in read_jobs(swept(here)) if state.status == "ok"]


def test_killing_the_command_ends_its_workers(here: Path) -> None:
    line = [sys.executable, "-m", "unipet", "train", "-m", *FIXED, "budget.max_steps=2000", how("slow", "fine")]
    running = subprocess.Popen([*line, "launcher=slots", "launcher.workers=2"], cwd=here, stderr=subprocess.DEVNULL)
    try:
        wait_for(lambda: (here / "runs" / "sweeps").is_dir() and bool(processes_of(swept(here))))
        time.sleep(5)
        os.kill(running.pid, signal.SIGKILL)
        running.wait()
        wait_for(lambda: not processes_of(swept(here)))
    finally:
        running.kill()


def wait_for(condition: Any, seconds: float = 90.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.2)
