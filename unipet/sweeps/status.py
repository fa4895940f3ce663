"""How far a sweep is, read from its directory: counts, what is running where, what failed and the command that repeats it."""

from __future__ import annotations

import os
import shlex
import signal
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from unipet.compose.override_text import command_line
from unipet.output.text_table import text_table
from unipet.runs.sweep_files import PENDING, RUNNING, JobState, read_jobs
from unipet.sweeps import slurm
from unipet.sweeps.claims import Clock, attempts, lost, read_claim
from unipet.sweeps.directory import Sweep
from unipet.sweeps.search.advancing import is_over
from unipet.sweeps.stopping import stop, stopped


@dataclass(frozen=True)
class Running:
    """A job that a worker is at, or that was lost with its worker."""

    job: int
    worker: str
    host: str
    started: str
    lost: bool


@dataclass(frozen=True)
class Status:
    """A sweep at one moment."""

    sweep: Sweep
    jobs: Sequence[JobState]
    running: Sequence[Running]
    stopped: str | None

    @property
    def failed(self) -> list[JobState]:
        """The jobs whose outcome is no result."""
        return [job for job in self.jobs if job.failed]

    @property
    def over(self) -> bool:
        """Whether every job has an outcome, or nobody will run those that have none."""
        return (all(job.over for job in self.jobs) and is_over(self.sweep)) or (
            self.stopped is not None and not self.running
        )

    def counts(self) -> dict[str, int]:
        """How many jobs there are of each status, and of each kind that has no outcome."""
        kinds: Counter[str] = Counter(job.status for job in self.jobs if job.over)
        gone = sum(each.lost for each in self.running)
        kinds[RUNNING], kinds["lost"] = len(self.running) - gone, gone
        kinds[PENDING] = sum(not job.over for job in self.jobs) - len(self.running)
        return {name: count for name, count in kinds.items() if count}

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        return {
            "sweep": str(self.sweep.directory),
            "jobs": len(self.jobs),
            "counts": self.counts(),
            "stopped": self.stopped,
            "running": [asdict(each) for each in self.running],
            "failed": [{"job": job.job, "reason": job.reason, "repeat": self.repeat(job)} for job in self.failed],
        }

    def repeat(self, job: JobState) -> str:
        """The command that does one job again."""
        return command_line("train", [*job.overrides, *job.flags])

    def text(self) -> str:
        """For a terminal."""
        counts = ", ".join(f"{count} {name}" for name, count in self.counts().items())
        lines = [f"{self.sweep.directory}: {len(self.jobs)} jobs: {counts}"]
        if not is_over(self.sweep):
            lines.append(f"search={self.sweep.search}: further jobs come when these have ended")
        if self.stopped is not None:
            lines.append(f"stopped: {self.stopped}")
        if self.running:
            rows = [
                [f"{each.job + 1}", each.worker, each.host, each.started, "lost" if each.lost else ""]
                for each in self.running
            ]
            lines += ["", text_table(["job", "worker", "machine", "since", ""], rows)]
        for job in self.failed:
            lines += [
                "",
                f"{job.status}: {' '.join(job.overrides)}",
                f"    {job.reason}",
                f"    again: {self.repeat(job)}",
            ]
        if not all(job.over for job in self.jobs) or self.failed:
            lines += ["", f"to do what is missing: unipet sweep resume {shlex.quote(str(self.sweep.directory))}"]
        return "\n".join(lines)


def status(sweep: Sweep) -> Status:
    """The sweep as it is now."""
    jobs = read_jobs(sweep.directory)
    clock, over = Clock(sweep.directory, "status"), {job.job for job in jobs if job.over}
    running = []
    for job, attempt in sorted(attempts(sweep.directory).items()):
        if job not in over:
            held = read_claim(sweep.directory, job, attempt)
            owner = held.owner
            worker, host = ("unknown", "unknown") if owner is None else (owner.worker, owner.host)
            running.append(Running(job, worker, host, held.note.started, lost(held, clock)))
    clock.path.unlink(missing_ok=True)
    return Status(sweep, jobs, running, stopped(sweep.directory))


def cancel(sweep: Sweep) -> str:
    """Let workers take no further job, and ask those of this machine to end. What was done, in words."""
    if all(job.over for job in read_jobs(sweep.directory)) and is_over(sweep):
        return f"every job of {sweep.directory} has ended already; there is nothing to cancel"
    stop(sweep.directory, "cancelled by `unipet sweep cancel`")
    asked = 0
    for job, attempt in attempts(sweep.directory).items():
        owner = read_claim(sweep.directory, job, attempt).owner
        if owner is not None and owner.here() and not owner.ended():
            os.kill(owner.pid, signal.SIGTERM)
            asked += 1
    elsewhere = slurm.cancel(sweep.directory) or " A job at work on another machine goes on to its end."
    workers = f"{asked} worker{'s were' if asked != 1 else ' was'}"
    return f"cancelled: no further job is taken; {workers} asked to end on this machine.{elsewhere}"
