"""A sweep on a large cluster with a slow file system: `python benchmarks/simulated_cluster.py`.

10,000 jobs, 500 workers, 5 % of which are lost at random moments with all their signs of life. The workers are those of
unipet/sweeps/worker.py, with the claims and files of a real sweep directory. What is simulated is time: an operation on a
file takes 100 ms (80 to 120), reading a directory as much again for every 500 names in it, a job 30 to 90 s. Each worker is a
thread, of which one runs at a time, the one whose turn comes first in simulated time.

Where a worker is lost after the others have left, its job waits for `unipet sweep resume`: a second wave of workers does that
here, too. The figures go to benchmarks/results/simulated_cluster.json. Not simulated: a file system that shows one machine's
new file to another only after a while.
"""

from __future__ import annotations

import argparse
import builtins
import contextlib
import heapq
import io
import json
import os
import random
import tempfile
import threading
import types
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from unipet.config import LauncherConfig
from unipet.runs.record_files import write_json_atomic
from unipet.runs.sweep_files import JOBS, RUNNING, JobState
from unipet.runs.versions import now as clock_time
from unipet.sweeps import jobs, worker
from unipet.sweeps.claims import BEAT_S
from unipet.sweeps.directory import Sweep, write_sweep
from unipet.sweeps.job_files import Job
from unipet.sweeps.worker import Worker

RESULT = Path(__file__).parent / "results" / "simulated_cluster.json"
NAMES = 500  # of a directory that one operation reads


class Lost(BaseException):
    """The machine of a worker is gone."""


class Machine:
    """One worker's thread, and when its machine goes."""

    def __init__(self, cluster: Cluster, sweep: Sweep, name: str, starts: float, dies: float) -> None:
        self.cluster, self.name, self.dies = cluster, name, dies
        self.turn = threading.Semaphore(0)
        self.gone = False
        self.began, self.free, self.worked, self.runs = starts, starts, 0.0, 0
        self.thread = threading.Thread(target=self._live, args=(sweep,), daemon=True)
        self.thread.start()
        cluster.at(starts, self)

    def _live(self, sweep: Sweep) -> None:
        self.turn.acquire()
        self.cluster.here.machine = self
        try:
            Worker(sweep, self.name, say=self.said, alone=False).run()
        except Lost:
            pass
        except BaseException as error:
            self.cluster.errors.append(error)
        finally:
            self.gone = True
            self.cluster.returned.release()

    def said(self, job: Job, outcome: JobState | None) -> None:
        """The worker has finished with a job."""
        if outcome is not None:
            self.free, self.runs = self.cluster.now, self.runs + 1


class Cluster:
    """Simulated time, and the file system of the sweep in it."""

    def __init__(self, root: Path, operation_s: float, seed: int) -> None:
        self.root, self.operation_s = str(root), operation_s
        self.now, self.rng = 0.0, random.Random(seed)
        self.waiting: list[tuple[float, int, Machine]] = []
        self.numbers = iter(range(10**12))
        self.here = threading.local()
        self.returned = threading.Semaphore(0)
        self.operations: Counter[str] = Counter()
        self.times: dict[str, float] = {}  # path -> when it was written
        self.beats: dict[str, Machine] = {}  # path of a claim -> who gives signs of life
        self.running: dict[int, Machine] = {}
        self.begun: Counter[int] = Counter()
        self.ended: Counter[int] = Counter()
        self.errors: list[BaseException] = []

    def at(self, time: float, machine: Machine) -> None:
        """The machine goes on at this time."""
        heapq.heappush(self.waiting, (time, next(self.numbers), machine))

    def run(self) -> None:
        """Until no machine waits any more."""
        while self.waiting:
            time, _, machine = heapq.heappop(self.waiting)
            if time < machine.dies:
                self.now = time
                machine.turn.release()
                self.returned.acquire()
            else:
                self.running = {job: own for job, own in self.running.items() if own is not machine}
                machine.gone = True  # its thread stays where it is
            if self.errors:
                raise self.errors[0]

    def wait(self, seconds: float) -> None:
        """The machine of this thread does nothing for so long."""
        machine: Machine = self.here.machine
        if machine.gone:
            raise Lost
        self.at(self.now + seconds, machine)
        self.returned.release()
        machine.turn.acquire()
        if machine.gone:
            raise Lost

    def operation(self, name: str, path: Any, count: int = 1) -> bool:
        """Whether the path is of the sweep and a machine asks; then that has taken its time."""
        if getattr(self.here, "machine", None) is None or not str(path).startswith(self.root):
            return False
        self.operations[name] += count
        self.wait(count * self.operation_s * self.rng.uniform(0.8, 1.2))
        return True

    def written(self, path: Any) -> float | None:
        """When a file was written; a claim, when its owner last gave a sign of life."""
        time = self.times.get(str(path))
        owner = self.beats.get(str(path))
        if time is None or owner is None:
            return time
        return time + BEAT_S * ((min(self.now, owner.dies) - time) // BEAT_S)

    def job(self, values: Any, task: jobs.Task, mistake: Any, shared: Any) -> JobState:
        """In the place of a run: it takes its time, and leaves its lines of the index."""
        machine: Machine = self.here.machine
        if task.number in self.running:
            raise RuntimeError(f"job {task.number} runs twice at once")
        self.running[task.number] = machine
        self.begun[task.number] += 1
        state = task.state(RUNNING, run_dir="../run")
        jobs.append(task.sweep, state)
        path = f"{task.sweep}/claims/{task.number}.{task.attempt}"
        self.beats[path] = machine
        seconds = self.rng.uniform(30, 90)
        self.wait(seconds)
        machine.worked += seconds
        self.beats.pop(path)
        self.times[path] = self.now
        self.running.pop(task.number)
        state.status, state.seconds = "ok", seconds
        return state

    @contextlib.contextmanager
    def simulated(self) -> Iterator[None]:
        """Inside, operations on files of the sweep take simulated time, and jobs are none."""
        real = types.SimpleNamespace(**{name: getattr(os, name) for name in CALLS}, io=io.open)
        wrapped: dict[tuple[Any, str], Any] = {(os, name): self._call(name, getattr(real, name)) for name in CALLS}
        wrapped |= {
            (os, "fsync"): lambda file: None,
            (builtins, "open"): self._open(real.io),
            (io, "open"): self._open(real.io),
        }
        wrapped |= {
            (worker, "time"): types.SimpleNamespace(monotonic=lambda: self.now, sleep=self.wait),
            (worker, "beating"): lambda held, leave: contextlib.nullcontext(),
            (jobs, "run_job"): self.job,
        }
        before = {key: getattr(*key) for key in wrapped}
        try:
            for (module, name), value in wrapped.items():
                setattr(module, name, value)
            yield
        finally:
            for (module, name), value in before.items():
                setattr(module, name, value)

    def _call(self, name: str, real: Callable[..., Any]) -> Callable[..., Any]:
        def call(path: Any = ".", *arguments: Any, **more: Any) -> Any:
            if not self.operation(name, path):
                return real(path, *arguments, **more)
            answer = real(path, *arguments, **more)
            if name == "listdir" and len(answer) > NAMES:
                self.operation(name, path, len(answer) // NAMES)
            elif name in ("open", "utime"):
                self.times[str(path)] = self.now
            elif name == "replace":
                self.times[str(arguments[0])] = self.now
                if Path(arguments[0]).parent.name == JOBS:
                    self.ended[int(Path(arguments[0]).stem)] += 1
            elif name == "stat" and (time := self.written(path)) is not None:
                return os.stat_result([*answer[:8], int(time), *answer[9:10]], {"st_mtime": time})
            return answer

        return call

    def _open(self, real: Callable[..., Any]) -> Callable[..., Any]:
        def call(path: Any, mode: str = "r", *arguments: Any, **more: Any) -> Any:
            if not isinstance(path, int):
                self.operation("open", path)
            answer = real(path, mode, *arguments, **more)  # of two that make one file, the second fails here
            if not isinstance(path, int) and set(mode) & set("wax+"):
                self.times[str(path)] = self.now
            return answer

        return call


CALLS = ("listdir", "open", "stat", "utime", "unlink", "replace", "mkdir")


def wave(cluster: Cluster, sweep: Sweep, workers: int, lost: float, name: str) -> dict[str, Any]:
    """Workers from their start until none is left; so many of them are lost."""
    start, length = cluster.now, 60.0 * sweep.jobs / workers
    dying = set(cluster.rng.sample(range(workers), round(lost * workers)))
    machines = []
    for number in range(workers):
        starts = start + cluster.rng.uniform(0, 60)  # a queue starts them one after the other
        dies = starts + cluster.rng.uniform(0, 1.2 * length) if number in dying else float("inf")
        machines.append(Machine(cluster, sweep, f"{name}{number}", starts, dies))
    cluster.run()
    living = [machine for machine in machines if machine.dies == float("inf") and machine.runs]
    overhead = sum(machine.free - machine.began - machine.worked for machine in living)
    return {
        "workers": workers,
        "workers_lost": sum(machine.dies < cluster.now for machine in machines),
        "runs": sum(machine.runs for machine in machines),
        "overhead_s_per_job": round(overhead / max(sum(machine.runs for machine in living), 1), 2),
        "hours": round((cluster.now - start) / 3600, 2),
    }


def simulate(
    directory: Path, count: int, workers: int, lost: float, operation_s: float, seed: int = 0
) -> dict[str, Any]:
    """The whole sweep. Raises RuntimeError where a job did not end exactly once, or ran twice at once."""
    random.seed(seed)
    sweep = Sweep(directory / "sweep", ["-m"], [], ["seed"], count, directory, LauncherConfig())
    write_sweep(sweep, [Job(n, [f"seed={n}"], [f"seed={n}"], {"seed": n}, None) for n in range(count)], {})
    cluster = Cluster(sweep.directory, operation_s, seed)
    waves = []
    with cluster.simulated():
        for _ in range(10):
            waves.append(wave(cluster, sweep, workers if not waves else max(1, workers // 10), lost, f"w{len(waves)}-"))
            if len(cluster.ended) == count:
                break
    if set(cluster.ended) != set(range(count)) or set(cluster.ended.values()) != {1}:
        raise RuntimeError(f"{len(cluster.ended)} of {count} jobs ended; ends per job: {set(cluster.ended.values())}")
    return {
        "jobs": count,
        "operation_s": operation_s,
        "job_s": "30 to 90",
        "every_job_ended_exactly_once": True,
        "begun_again_after_a_lost_worker": sum(cluster.begun.values()) - count,
        "waves": waves,
        "operations_per_job": round(sum(cluster.operations.values()) / count, 1),
        "operations": dict(cluster.operations.most_common()),
    }


def main() -> None:
    """Simulate, and state the figures."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--jobs", type=int, default=10_000)
    parser.add_argument("--workers", type=int, default=500)
    parser.add_argument("--lost", type=float, default=0.05, help="share of the workers")
    parser.add_argument("--operation", type=float, default=0.1, help="seconds of one operation on a file")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=RESULT)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        figures = simulate(Path(scratch), asked.jobs, asked.workers, asked.lost, asked.operation, asked.seed)
    write_json_atomic(asked.out, figures | {"made": clock_time()})
    print(json.dumps(figures, indent=2))


if __name__ == "__main__":
    main()
