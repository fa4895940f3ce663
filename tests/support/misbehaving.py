"""Jobs that do things to their process, swept by the command itself: a study in a directory, and what became of it."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path
from typing import Any

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


def write_study(root: Path) -> Path:
    """A tiny base model, a tiny task, and a method whose function misbehaves."""
    write_world(root, {"task/tiny": TINY_TASK, "method/mine": METHOD})
    (root / "misbehaving.py").write_text(MODULE)
    return root


def unipet(here: Path, *arguments: str, **settings: Any) -> subprocess.CompletedProcess[str]:
    """The command, in `here`."""
    line, kept = [sys.executable, "-m", "unipet", *arguments], {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    return subprocess.run(line, cwd=here, text=True, timeout=300, **{**kept, **settings})


def swept(here: Path) -> Path:
    """The one sweep below `here`."""
    (sweep,) = (here / "runs" / "sweeps").glob("[!.]*")
    return sweep


def begun(here: Path) -> bool:
    """Whether the sweep below `here` is written and has its name; until then its directory begins with a point."""
    return any((here / "runs" / "sweeps").glob("[!.]*"))


def states(here: Path) -> dict[str, JobState]:
    """The jobs by what their function does."""
    return {state.overrides[-1].split("=", 1)[1].strip("'"): state for state in read_jobs(swept(here))}


def how(*words: str) -> str:
    """The override that sweeps what the function does."""
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


def wait_for(condition: Any, seconds: float = 90.0) -> None:
    """Until it is so; fails where it does not come."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.2)
