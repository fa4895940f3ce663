"""A worker: takes the jobs of a sweep one after the other, until there is none left that it could take.

Every launcher starts this loop, in as many processes as it likes, on any machine that sees the sweep's directory.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Container
from dataclasses import dataclass, field

from unipet.config import LauncherConfig
from unipet.runs.run_directory import Busy
from unipet.runs.shared import Shared
from unipet.runs.sweep_files import JobState, index_lines, job_numbers, map_events
from unipet.runs.tracked_summary import own_files
from unipet.sweeps import jobs
from unipet.sweeps.admission import device, wait_for_room
from unipet.sweeps.claims import (
    BEAT_S,
    STALE_S,
    Claim,
    Clock,
    Owner,
    attempts,
    beating,
    claim,
    lost,
    read_claim,
    release,
    step_back,
)  # fmt: skip
from unipet.sweeps.directory import Sweep
from unipet.sweeps.job_files import Job, read_job
from unipet.sweeps.lost import lost_outcome
from unipet.sweeps.moved import in_its_place
from unipet.sweeps.search.advancing import OVER, WAITING, advance, is_over
from unipet.sweeps.search.beginning import composing_in
from unipet.sweeps.stopping import stop, stopped

WAIT_S = 1.0  # before looking again for a job that another process may give up
BUSY_S = 3.0  # before trying again a job whose run another process is doing
TAKEOVERS = 3  # of one job, besides the retries that were asked for: a job may be what ends its workers

Say = Callable[[Job, JobState | None], None]  # a job begins (None), or ends with an outcome


@dataclass
class Worker:
    """One worker of a sweep. `alone`: no other one was started with it, so it takes the jobs in their order. `last`: nobody
    looks after it for jobs that were lost, or what started it closes the sweep, so it stays until every job has an outcome."""

    sweep: Sweep
    name: str
    say: Say = lambda job, outcome: None
    alone: bool = True
    last: bool = False
    leave: Callable[[Claim], None] = lambda held: None
    stale_s: float = STALE_S
    busy: dict[int, float] = field(default_factory=dict)  # job -> when to try it again

    def __post_init__(self) -> None:
        self.read_to = index_lines(self.sweep.directory)[1]  # before the look at the outcomes: no event is missed
        self.over = job_numbers(self.sweep.directory, ".json")
        self.tried: set[int] = set()  # claimed in vain: another has it, or it is over and no event says so
        self.owner = Owner.this(self.name)
        self.clock = Clock(self.sweep.directory, self.name)
        self.shared = Shared()
        self.before = attempts(self.sweep.directory)  # of commands before this one

    @property
    def launcher(self) -> LauncherConfig:
        """How the sweep's jobs are to be run."""
        return self.sweep.launcher

    def run(self) -> None:
        """Take jobs until there is none left. KeyboardInterrupt passes through; the job that it ended is given back."""
        while not stopped(self.sweep.directory):
            held, wait_s = self.next_claim()
            if held is not None:
                self.do(held)
            elif wait_s is None and (wait_s := self.next_stage()) is None:
                return
            else:
                time.sleep(wait_s)

    def next_stage(self) -> float | None:
        """With a search: seconds until there may be further jobs, which this worker adds if a stage is over; else None."""
        if is_over(self.sweep):
            return None
        found = advance(self.sweep, composing_in(self.sweep))
        return None if found == OVER else WAIT_S if found == WAITING else 0.0

    def next_claim(self) -> tuple[Claim | None, float | None]:
        """A job for this worker, or how long to wait for one; None and None where nothing is left for it."""
        directory = self.sweep.directory
        if (held := self.unclaimed(self.known_over(), attempts(directory), self.tried)) is not None:
            return held, None
        over, taken = job_numbers(directory, ".json"), attempts(directory)
        if (held := self.unclaimed(over, taken, set())) is not None:
            return held, None
        left = [job for job in range(self.sweep.total) if job not in over]
        now = time.monotonic()
        ready = [job for job in left if self.busy.get(job, 0.0) <= now]
        outstanding = [job for job in ready if job in taken]
        random.shuffle(outstanding)
        unsure = False
        for job in outstanding:
            found = read_claim(directory, job, taken[job])
            if lost(found, self.clock, self.stale_s):
                if (held := self.take_over(found)) is not None:
                    return held, None
                unsure = True
            elif (self.clock.age(found.path) or 0.0) > 3 * BEAT_S:
                unsure = True
            else:
                break  # its owner lives, and will look for lost jobs when it is done
        if unsure or len(ready) < len(left) or (self.last and left):
            return None, WAIT_S
        return None, None

    def known_over(self) -> set[int]:
        """The jobs that were over when this worker began, or of which the index has said so since. That is a few lines to read,
        where the outcomes of a large sweep on a slow file system are many looks at a directory."""
        lines, self.read_to = index_lines(self.sweep.directory, self.read_to)
        self.over |= {event.job for event in map_events(lines) if event.over}
        return self.over

    def unclaimed(self, over: Container[int], taken: Container[int], tried: set[int]) -> Claim | None:
        """A job that nobody has; None where there is none besides those that are over, taken, or were tried before."""
        now = time.monotonic()
        free = [
            job
            for job in range(self.sweep.total)
            if not (job in over or job in taken or job in tried or self.busy.get(job, 0.0) > now)
        ]
        while free:
            job = free.pop(0 if self.alone else random.randrange(len(free)))
            if (held := claim(self.sweep.directory, job, self.owner, 1)) is not None:
                return held
            tried.add(job)
        return None

    def take_over(self, gone: Claim) -> Claim | None:
        """The next attempt at a job whose worker was lost; None where another process was faster, or it was lost too often."""
        most = self.before.get(gone.job, 0) + TAKEOVERS + self.launcher.retries
        held = claim(self.sweep.directory, gone.job, self.owner, gone.attempt + 1)
        if held is None or gone.attempt < most:
            return held
        times = f"{gone.attempt} workers in a row were lost while they ran it, and left no reason"
        job = read_job(self.sweep.directory, gone.job)
        self.end(held, lost_outcome(job, self.task(job, held), "WorkerLost", times))
        return None

    def task(self, job: Job, held: Claim) -> jobs.Task:
        """What `run_job` needs to know of a job."""
        return jobs.Task(self.sweep.directory, job.number, job.overrides, self.sweep.flags, self.name, held.attempt)

    def do(self, held: Claim) -> None:
        """Run the job of a claim and write its outcome."""
        job = in_its_place(self.sweep, read_job(self.sweep.directory, held.job))
        self.say(job, None)
        try:
            self.shared.admit = lambda gib: self.admit(held, gib)
            with beating(held, self.leave), own_files(self.sweep.config_dir):
                outcome = jobs.run_job(job.values, self.task(job, held), job.mistake, self.shared)
        except Busy:
            self.busy[held.job] = time.monotonic() + BUSY_S
            step_back(held)
            return
        except BaseException:
            release(held)
            raise
        if held.held():
            self.end(held, outcome)
            self.say(job, outcome)

    def admit(self, held: Claim, gib: float | None) -> None:
        """Wait until the GPU of this worker has room for a run, where there is one and workers share it."""
        if not self.alone and (place := device()) is not None:
            wait_for_room(held, gib, place)

    def end(self, held: Claim, outcome: JobState) -> None:
        """Write a job's outcome and give its claim back."""
        jobs.write_outcome(self.sweep.directory, outcome)
        release(held)
        if self.launcher.fail_fast and outcome.failed:
            stop(self.sweep.directory, f"launcher.fail_fast: job {held.job + 1} failed")
