"""`launcher=ray`: a sweep's workers as actors of a Ray cluster. This process watches them, and replaces those that were lost."""

from __future__ import annotations

import logging
import os
import signal
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from types import FrameType
from typing import Any

from unipet.config import LauncherConfig
from unipet.errors import UnipetError
from unipet.runs.sweep_files import job_numbers
from unipet.sweeps.claims import BEAT_S, STALE_S, Clock, attempts, lost, read_claim
from unipet.sweeps.directory import Sweep, most_gpus
from unipet.sweeps.ray_worker import RayWorker
from unipet.sweeps.search.advancing import unfinished
from unipet.sweeps.stopping import stopped
from unipet.sweeps.supervisor import BARREN, END_S, heard
from unipet.training.stopping import Interrupted

LOOK_S = 1.0  # between two looks at the actors
QUIET_S = 3 * BEAT_S  # without a sign of life, after which a claim of an actor that Ray calls dead is given up
#: Ray shall send nothing to its makers, and leave Python's `print` alone: it puts its own in its place.
QUIETLY = {"RAY_USAGE_STATS_ENABLED": "0", "RAY_TQDM_PATCH_PRINT": "0"}


def check(launcher: LauncherConfig) -> None:
    """Raise `UnipetError` where Ray is not installed."""
    try:
        import ray  # noqa: F401
    except ImportError:
        raise UnipetError("launcher=ray needs Ray. Install it: pip install 'unipet[ray]'.") from None


def on_ray(sweep: Sweep, name: str, look: Callable[[], None]) -> None:
    """Until every job has an outcome, or the sweep is stopped. `name` begins the names of its workers; `look` is called
    every second. KeyboardInterrupt passes through once the workers have given their jobs back."""
    with connected(sweep.launcher):
        import ray

        capacity = [node["Resources"] for node in ray.nodes() if node["Alive"]]
        needs = resources(sweep, capacity)
        most = sum(_fits(node, needs) for node in capacity)
        if not most and sweep.launcher.address is None:
            had = ", ".join(f"{count:g} {kind}" for kind, count in capacity[0].items() if kind in needs)
            asked = " and ".join(f"launcher.{kind.lower()}s={count}" for kind, count in needs.items())
            raise UnipetError(f"launcher=ray: no worker fits on this machine: {asked} given; it has {had}.")
        Driver(sweep, name, sweep.launcher.workers or max(most, 1), needs, look).run()


def resources(sweep: Sweep, nodes: list[Mapping[str, float]]) -> dict[str, int]:
    """What one worker takes of a node, in Ray's words."""
    gpus = sweep.launcher.gpus
    if gpus is None:
        gpus = most_gpus(sweep) if any(_has(node, "GPU") >= 1 for node in nodes) else 0
    return {"CPU": sweep.launcher.cpus or 1, "GPU": gpus}


def _has(node: Mapping[str, float], kind: str) -> float:
    return node.get(kind, 0.0)


def _fits(node: Mapping[str, float], needs: Mapping[str, int]) -> int:
    """How many workers a node holds."""
    return min(int(_has(node, kind) // count) for kind, count in needs.items() if count)


@contextmanager
def connected(launcher: LauncherConfig) -> Iterator[None]:
    """Inside, this process is a driver of the cluster at `launcher.address`, or of one that is started here."""
    import ray

    for name, value in QUIETLY.items():
        os.environ.setdefault(name, value)
    address = launcher.address or "local"
    here = {"include_dashboard": False} if launcher.address is None else {}
    try:
        ray.init(address=address, logging_level=logging.ERROR, log_to_driver=False, **here)
    except (ConnectionError, ValueError, RuntimeError) as error:
        said = " ".join(str(error).split())
        raise UnipetError(f"launcher.address: no Ray cluster answers at {address!r} ({said:.200}).") from None
    try:
        yield
    finally:
        ray.shutdown()


@dataclass
class Member:
    """An actor, and what it will say when it has ended."""

    name: str
    actor: Any
    ended: Any


@dataclass
class Driver:
    """The actors of one sweep, at most `most` at a time, each with the resources `needs`."""

    sweep: Sweep
    name: str
    most: int
    needs: Mapping[str, int]
    look: Callable[[], None] = lambda: None
    members: list[Member] = field(default_factory=list)
    started: int = 0
    busy: set[str] = field(default_factory=set)  # names of actors whose worker has taken a job
    dead: set[str] = field(default_factory=set)  # names of actors that Ray has lost
    asked: int | None = None  # the signal that asked this process to end
    barren: int = 0  # actors in a row that were lost before they took a job

    def run(self) -> None:
        """Until every job has an outcome, or until the sweep is stopped and no actor works any more."""
        self.clock = Clock(self.sweep.directory, self.name)
        before = {sign: signal.signal(sign, self._asked_to_end) for sign in heard()}
        try:
            while self._unfinished():
                if self.asked is not None:
                    raise Interrupted(self.asked)
                self._look_at_members()
                self._fill(self._open_jobs())
                self.look()
                time.sleep(LOOK_S)
            self.look()
        finally:
            self._end()
            for sign, handler in before.items():
                signal.signal(sign, handler)

    def _asked_to_end(self, sign: int, frame: FrameType | None) -> None:
        """Only noted: an exception that is raised while Ray works is lost in it."""
        self.asked = sign

    def _unfinished(self) -> bool:
        if stopped(self.sweep.directory) is not None:
            return any(member.name in self.busy for member in self.members)
        return unfinished(self.sweep)

    def _open_jobs(self) -> int:
        """How many jobs a new worker could take. Claims of dead actors are given up here, as soon as they are silent."""
        directory, count = self.sweep.directory, 0
        over, taken = job_numbers(directory, ".json"), attempts(directory)
        for job in range(self.sweep.total):
            if job in over:
                continue
            if job not in taken:
                count += 1
                continue
            held = read_claim(directory, job, taken[job])
            if held.owner is not None:
                self.busy.add(held.owner.worker)
                if held.owner.worker in self.dead and (self.clock.age(held.path) or 0.0) > QUIET_S:
                    held.give_up()
            count += lost(held, self.clock, STALE_S)
        searching = self.sweep.search != "none" and not self.members
        return max(count, 1) if searching else count  # a worker takes the search to its next stage

    def _fill(self, jobs: int) -> None:
        """Start as many actors as there are jobs for, and places."""
        import ray

        if stopped(self.sweep.directory) is not None:
            return
        waiting = sum(member.name not in self.busy for member in self.members)
        for _ in range(min(self.most - len(self.members), jobs - waiting)):
            name = f"{self.name}-{self.started}"
            self.started += 1
            options = {"num_cpus": self.needs["CPU"], "num_gpus": self.needs["GPU"], "max_concurrency": 2}
            actor = ray.remote(RayWorker).options(**options).remote(self.sweep.directory.absolute(), name)
            self.members.append(Member(name, actor, actor.run.remote()))

    def _look_at_members(self) -> None:
        """Take leave of the actors that have ended. Raises `UnipetError` where new ones would be no use."""
        import ray

        if not self.members:
            return
        known = {member.ended: member for member in self.members}
        for ended in ray.wait(list(known), num_returns=len(known), timeout=0)[0]:
            member = known[ended]
            self.members.remove(member)
            try:
                ray.get(ended)
            except ray.exceptions.RayTaskError as error:
                raise UnipetError(f"launcher=ray: {' '.join(str(error.cause).split())}") from None
            except ray.exceptions.RayError as error:
                self.dead.add(member.name)
                self.barren = 0 if member.name in self.busy else self.barren + 1
                if self.barren >= BARREN:
                    said = " ".join(str(error).split())
                    raise UnipetError(
                        f"launcher=ray: {BARREN} actors were lost before they took a job: {said:.400}"
                    ) from None
            else:
                self.barren = 0
                ray.kill(member.actor)

    def _end(self) -> None:
        """Let the workers give their jobs back, then let go of every actor."""
        import ray

        at_work = [member for member in self.members if member.name in self.busy]
        for member in at_work:
            member.actor.end.remote()
        if at_work:
            ray.wait([member.ended for member in at_work], num_returns=len(at_work), timeout=END_S)
        for member in self.members:
            ray.kill(member.actor)
