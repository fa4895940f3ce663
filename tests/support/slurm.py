"""A stand-in for a SLURM cluster on this machine: sbatch, srun, squeue, scancel and scontrol, in a directory for PATH.

Tasks of an array run at once, as processes. The cluster's state is a directory: `<job>.options` is what sbatch was told,
`<job>_<task>.step` the process group of a running task, `<job>_<task>.starts` one line for each start, `<job>.done` its end.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

COMMANDS = ("sbatch", "srun", "squeue", "scancel", "scontrol")
KILL_WAIT_S = 20.0  # between SIGTERM and SIGKILL


class Slurm:
    """The cluster as a test sees it."""

    def __init__(self, directory: Path) -> None:
        self.state, self.bin = directory / "state", directory / "bin"
        self.state.mkdir(parents=True)
        self.bin.mkdir()
        for name in COMMANDS:
            line = shlex.join([sys.executable, __file__, name, str(self.state)])
            (self.bin / name).write_text(f'#!/bin/sh\nexec {line} "$@"\n')
            (self.bin / name).chmod(0o755)
        self.environment = {**os.environ, "PATH": f"{self.bin}{os.pathsep}{os.environ['PATH']}"}

    def options(self, job: str) -> dict[str, str]:
        """What sbatch was told of a job."""
        return dict(json.loads((self.state / f"{job}.options").read_text()))

    def jobs(self) -> list[str]:
        """Every job that was ever submitted."""
        return sorted(path.stem for path in self.state.glob("*.options"))

    def done(self, job: str) -> bool:
        """Whether no task of a job is left."""
        return (self.state / f"{job}.done").exists()

    def starts(self, task: str) -> int:
        """How often a task was started."""
        path = self.state / f"{task}.starts"
        return len(path.read_text().splitlines()) if path.exists() else 0

    def signal(self, task: str, sign: int) -> None:
        """Signal every process of a running task, as SLURM does."""
        os.killpg(int((self.state / f"{task}.step").read_text()), sign)

    def requeue(self, task: str) -> None:
        """Start a task again as soon as it has ended."""
        (self.state / f"{task}.requeue").touch()

    def end(self) -> None:
        """Nothing of it stays."""
        for job in self.jobs():
            (self.state / f"{job}.cancelled").touch()
        for path in self.state.glob("*.step"):
            with suppress(ProcessLookupError):
                os.killpg(int(path.read_text()), signal.SIGKILL)
        deadline = time.monotonic() + 20
        while not all(self.done(job) for job in self.jobs()) and time.monotonic() < deadline:
            time.sleep(0.1)


def sbatch(state: Path, script: str) -> int:
    """Take a job, and leave it to a process of its own."""
    text = Path(script).read_text()
    options = dict(re.findall(r"^#SBATCH --([\w-]+)(?:=(.*))?$", text, re.MULTILINE))
    options = {name: "".join(shlex.split(value)) for name, value in options.items()}
    job = str(100 + len(list(state.glob("*.options"))))
    (state / f"{job}.script").write_text(text)
    (state / f"{job}.options").write_text(json.dumps(options))
    line = [sys.executable, __file__, "control", str(state), job]
    subprocess.Popen(
        line, start_new_session=True, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    print(f"Submitted batch job {job}")
    return 0


def control(state: Path, job: str) -> int:
    """A job from its place in the queue to its end."""
    options = json.loads((state / f"{job}.options").read_text())
    after = options.get("dependency", "").removeprefix("afterany:")
    while after and not (state / f"{after}.done").exists() and not (state / f"{job}.cancelled").exists():
        time.sleep(0.1)
    array = re.match(r"0-(\d+)", options.get("array", ""))
    tasks = [f"{job}_{number}" for number in range(int(array[1]) + 1)] if array else [job]
    running = {task: start(state, task) for task in tasks if not (state / f"{job}.cancelled").exists()}
    while running:
        time.sleep(0.1)
        for task, process in list(running.items()):
            if process.poll() is not None:
                del running[task]
                (state / f"{task}.step").unlink(missing_ok=True)
                if (state / f"{task}.requeue").exists() and not (state / f"{job}.cancelled").exists():
                    (state / f"{task}.requeue").unlink()
                    running[task] = start(state, task)
    (state / f"{job}.done").touch()
    return 0


def start(state: Path, task: str) -> subprocess.Popen[bytes]:
    """Start a task's script."""
    with open(state / f"{task}.starts", "a") as file:
        file.write("started\n")
    job, _, number = task.partition("_")
    environment = {**os.environ, "SLURM_JOB_ID": str(int(job) * 1000 + int(number or 0)), "SLURM_NTASKS": "1"}
    environment |= {"SLURM_PROCID": "0", "SLURM_LOCALID": "0", "SLURM_NODEID": "0", "SLURM_JOB_NUM_NODES": "1"}
    if number:
        environment |= {"SLURM_ARRAY_JOB_ID": job, "SLURM_ARRAY_TASK_ID": number}
    else:
        environment["SLURM_JOB_ID"] = job
    return subprocess.Popen(["bash", str(state / f"{job}.script")], env=environment)


def srun(state: Path, *line: str) -> int:
    """A step: a process group, whose processes get the signals that are sent to the task."""
    files: dict[str, str] = {}
    rest = list(line)
    while rest[0].startswith("--"):
        name = rest.pop(0)
        if name in ("--output", "--error"):
            files[name] = rest.pop(0)
    job = os.environ.get("SLURM_ARRAY_JOB_ID", os.environ["SLURM_JOB_ID"])
    number = os.environ.get("SLURM_ARRAY_TASK_ID", "")
    places = {"%A": job, "%a": number, "%j": job, "%t": "0"}
    paths = {name: re.sub("%[Aajt]", lambda match: places[match[0]], path) for name, path in files.items()}
    with open(paths["--output"], "ab") as out, open(paths["--error"], "ab") as err:
        process = subprocess.Popen(rest, start_new_session=True, stdout=out, stderr=err)
    (state / f"{job}_{number}.step" if number else state / f"{job}.step").write_text(str(process.pid))
    return process.wait() % 256


def squeue(state: Path, *options: str) -> int:
    """`--format=%F --jobs=...`: those that have not ended."""
    (asked,) = (option.removeprefix("--jobs=") for option in options if option.startswith("--jobs="))
    assert "--format=%F" in options
    print("\n".join(job for job in asked.split(",") if not (state / f"{job}.done").exists()))
    return 0


def scancel(state: Path, *jobs: str) -> int:
    """SIGTERM to every task of the jobs, and a while later SIGKILL."""
    steps = [path for job in jobs for pattern in (f"{job}.step", f"{job}_*.step") for path in state.glob(pattern)]
    for job in jobs:
        (state / f"{job}.cancelled").touch()
    groups = [int(path.read_text()) for path in steps]
    for sign, wait_s in ((signal.SIGTERM, KILL_WAIT_S), (signal.SIGKILL, 0.0)):
        for group in groups:
            with suppress(ProcessLookupError):
                os.killpg(group, sign)
        deadline = time.monotonic() + wait_s
        while any(path.exists() for path in steps) and time.monotonic() < deadline:
            time.sleep(0.1)
    return 0


def scontrol(state: Path, action: str, task: str) -> int:
    """`requeue TASK`."""
    assert action == "requeue"
    (state / f"{task}.requeue").touch()
    return 0


if __name__ == "__main__":
    command, where, *arguments = sys.argv[1:]
    sys.exit(globals()[command](Path(where), *arguments))
