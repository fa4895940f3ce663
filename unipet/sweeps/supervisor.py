"""Watches worker processes on one machine: replaces one that died, ends one that hangs, and says what became of its job.

The supervisor itself imports nothing heavy and runs no job, so nothing that a job does can end it.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType

from unipet.errors import UnipetError
from unipet.runs.sweep_files import WORKERS, JobState
from unipet.sweeps.claims import STALE_S, Claim, attempts, read_claim, release
from unipet.sweeps.directory import Sweep
from unipet.sweeps.job_files import read_job
from unipet.sweeps.jobs import Task, write_outcome
from unipet.sweeps.lost import NOT_ITS_FAULT, how_it_ended, lost_outcome
from unipet.sweeps.search.advancing import unfinished
from unipet.sweeps.stopping import stop, stopped
from unipet.training.stopping import ENDING, MOMENT_S, Interrupted

LOOK_S = 0.2  # between two looks at the workers
ASLEEP_S = 15.0  # between two looks: this process was stopped, or the machine slept, and with it the workers
START_S = 60.0  # that the first job of a process may take besides its own time: it imports what all of them need
END_S = 120.0  # that workers have to write their checkpoints when everything shall end
BARREN = 3  # workers in a row that end before they take a job: then starting another one is no use


@dataclass
class Slot:
    """A place for one worker process: its name, and what its environment has besides this one's."""

    name: str
    environment: Mapping[str, str] = field(default_factory=dict)
    log: Path | None = None  # None: it writes where this process writes
    process: subprocess.Popen[bytes] | None = None
    claims: dict[tuple[int, int], Watched] = field(default_factory=dict)  # (job, attempt) -> what was seen of it
    fresh: bool = True  # no job of this process has ended yet
    flags: Sequence[str] = ()  # of its worker, besides those of all


@dataclass
class Watched:
    """A claim as its supervisor has seen it, in the seconds that the supervisor itself was awake."""

    began: float
    beat: float  # the file's time
    beat_seen: float  # when it was last another one


@dataclass
class Supervisor:
    """The workers of one sweep on this machine. `look` is called between two looks at them; `settled` takes the outcomes of
    jobs whose worker died; `flags` are those of `unipet.sweeps.process`."""

    sweep: Sweep
    slots: Sequence[Slot]
    look: Callable[[], None] = lambda: None
    settled: Callable[[JobState], None] = lambda outcome: None
    flags: Sequence[str] = ()
    stale_s: float = STALE_S
    tried: dict[int, int] = field(default_factory=dict)  # job -> how often its worker died, not by its fault
    barren: int = 0
    ended_by: int | None = None  # the signal that asked this process to end
    asked_at: float = 0.0  # when it came
    awake: float = 0.0  # seconds that this process has watched
    looked_at: float = field(default_factory=time.monotonic)

    def run(self) -> None:
        """Until no worker finds another job. Raises `Interrupted` after SIGINT, SIGTERM or SIGHUP, once the workers have
        ended, and `UnipetError` where workers cannot be started."""
        here = threading.current_thread() is threading.main_thread()  # the only one that may receive signals
        before = {sign: signal.signal(sign, self._asked_to_end) for sign in (heard() if here else ())}
        try:
            for slot in self.slots:
                self._start(slot)
            while self.ended_by is None and any(slot.process for slot in self.slots):
                time.sleep(LOOK_S)
                self._look_at_claims()
                for slot in self.slots:
                    if slot.process is not None and (code := slot.process.poll()) is not None:
                        self._ended(slot, code)
                self.look()
        finally:
            if self.ended_by is not None:
                print("ending: workers write their resume points; a second signal kills them", file=sys.stderr)
            self.end()
            for sign, handler in before.items():
                signal.signal(sign, handler)
        if self.ended_by is not None:
            raise Interrupted(self.ended_by)

    def _asked_to_end(self, sign: int, frame: FrameType | None) -> None:
        """The first signal ends the sweep in order; a later one does not wait for steps that are in work."""
        if self.ended_by is None:
            self.ended_by, self.asked_at = sign, time.monotonic()
        elif time.monotonic() - self.asked_at > MOMENT_S:
            for slot in self.slots:
                if slot.process is not None:
                    slot.process.kill()

    def _start(self, slot: Slot) -> None:
        line = [sys.executable, "-m", "unipet.sweeps.process", str(self.sweep.directory.absolute()), slot.name]
        line += [*self.flags, *slot.flags]
        environment = {**os.environ, **slot.environment}
        try:
            if slot.log is None:
                slot.process = subprocess.Popen(line, cwd=self.sweep.folder, env=environment)
            else:
                with open(slot.log, "ab") as log:
                    slot.process = subprocess.Popen(
                        line, cwd=self.sweep.folder, env=environment, stdin=subprocess.DEVNULL, stdout=log, stderr=log
                    )
        except OSError as error:
            raise UnipetError(f"launcher: no worker can be started ({error.strerror or error}).") from None
        slot.claims.clear()
        slot.fresh = True

    def _look_at_claims(self) -> None:
        """Note the jobs that the workers are at, and end a worker whose job takes too long or gives no sign of life."""
        owners = {slot.process.pid: slot for slot in self.slots if slot.process is not None}
        known = {key: each for each in self.slots for key in each.claims}
        latest = attempts(self.sweep.directory)
        now = self._awake()
        for slot in self.slots:
            before, slot.claims = (
                slot.claims,
                {key: each for key, each in slot.claims.items() if latest.get(key[0]) == key[1]},
            )
            slot.fresh = slot.fresh and len(slot.claims) == len(before)
        for job, attempt in latest.items():
            held = read_claim(self.sweep.directory, job, attempt)
            holder = known.get((job, attempt)) or (owners.get(held.owner.pid) if held.owner is not None else None)
            if holder is None or held.owner is None or held.owner.worker != holder.name:
                continue
            beat = held.last_beat()
            seen = holder.claims.setdefault((job, attempt), Watched(now, beat, now))
            if beat != seen.beat:
                seen.beat, seen.beat_seen = beat, now
            self._check_time(holder, held, seen, now)

    def _awake(self) -> float:
        """Seconds that this process has watched. Where it was stopped (Ctrl-Z) or the machine slept, its workers had no time
        either."""
        since, self.looked_at = time.monotonic() - self.looked_at, time.monotonic()
        self.awake += since if since < ASLEEP_S else 0.0
        return self.awake

    def _check_time(self, slot: Slot, held: Claim, seen: Watched, now: float) -> None:
        limit = self.sweep.launcher.timeout
        seconds = (now - seen.began - START_S * slot.fresh) / max(
            len(slot.claims), 1
        )  # the jobs of a pack share the time
        if limit is not None and seconds > limit:
            start = f", and than the {START_S:g} s that a new process has to begin" if slot.fresh else ""
            self._kill(
                slot, held, "Timeout", f"it took longer than launcher.timeout={limit:g} s{start}", its_fault=True
            )
        elif now - seen.beat_seen > self.stale_s:
            self._kill(slot, held, "Hang", f"it gave no sign of life for {self.stale_s:g} s", its_fault=True)

    def _kill(self, slot: Slot, held: Claim, kind: str, why: str, its_fault: bool) -> None:
        assert slot.process is not None
        slot.process.kill()
        slot.process.wait()
        self._settle(slot, held, kind, why, its_fault)
        self._replace(slot)

    def _ended(self, slot: Slot, code: int) -> None:
        """A worker's process has ended: by itself, or in the middle of a job."""
        self._look_at_claims()
        held = [read_claim(self.sweep.directory, *key) for key in slot.claims]
        held = [each for each in held if each.held()]
        slot.process = None
        if code == 0 and not held:
            return
        # Of a pack nobody knows whose fault it was: the next worker takes the jobs over, and does each of them alone.
        for each in held if len(held) == 1 else ():
            self._settle(slot, each, "WorkerDied", how_it_ended(code), -code not in NOT_ITS_FAULT)
        self.barren = 0 if held else self.barren + 1
        if self.barren >= BARREN:
            said = "" if slot.log is None else f" Its last words are in {slot.log}."
            raise UnipetError(f"launcher: {BARREN} workers ended before they took a job: {how_it_ended(code)}.{said}")
        self._replace(slot)

    def _settle(self, slot: Slot, held: Claim, kind: str, why: str, its_fault: bool) -> None:
        """Write the outcome of a job whose worker died, or give the job back where it may be tried again."""
        self.tried[held.job] = self.tried.get(held.job, 0) + 1
        if not its_fault and self.tried[held.job] <= self.sweep.launcher.retries:
            release(held)
            return
        job = read_job(self.sweep.directory, held.job)
        task = Task(self.sweep.directory, held.job, job.overrides, self.sweep.flags, slot.name, held.attempt)
        outcome = lost_outcome(job, task, kind, why)
        write_outcome(self.sweep.directory, outcome)
        release(held)
        self.settled(outcome)
        if self.sweep.launcher.fail_fast:
            stop(self.sweep.directory, f"launcher.fail_fast: job {held.job + 1} failed")

    def _replace(self, slot: Slot) -> None:
        slot.process = None
        if stopped(self.sweep.directory) is None and unfinished(self.sweep):
            self._start(slot)

    def end(self) -> None:
        """Ask every worker to end; they write their checkpoints first. Who does not end in time is killed."""
        alive = [slot.process for slot in self.slots if slot.process is not None and slot.process.poll() is None]
        for process in alive:
            if self.ended_by is not None:
                process.send_signal(self.ended_by)  # a worker keeps it for its record, and is ended by SIGTERM
            process.send_signal(signal.SIGTERM)
        deadline = time.monotonic() + END_S
        for process in alive:
            try:
                process.wait(max(deadline - time.monotonic(), 0.1))
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def heard() -> list[signal.Signals]:
    """The signals that end a sweep. One that is started by `nohup` outlives its terminal."""
    return [sign for sign in ENDING if not (sign == signal.SIGHUP and signal.getsignal(sign) is signal.SIG_IGN)]


def log_of(sweep: Sweep, name: str) -> Path:
    """Where a worker that does not own the terminal writes."""
    return sweep.directory / WORKERS / f"{name}.log"
