"""Who runs which job: a file that only one process can make, kept fresh by its owner, taken over when the owner is gone.

`claims/<n>.<k>` is the k-th attempt at job n. Whoever makes it owns the job. Nobody removes another's claim to take it:
the next attempt has the next number, so of two processes that take over one makes the file and the other fails to.
Times are compared with that of a file written now: both are the file system's own, whatever the machines' clocks say.
"""

from __future__ import annotations

import json
import os
import platform
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from unipet.output.json_object import JsonObject, WrongType
from unipet.output.processes import is_alive, visible_processes
from unipet.runs.sweep_files import CLAIMS, JOBS, WORKERS
from unipet.runs.versions import now

BEAT_S = 5.0  # between two signs of life
STALE_S = 90.0  # without one, a claim's owner is taken for dead


@dataclass
class Owner(JsonObject):
    """A worker: a process on a machine."""

    worker: str = ""  # unique in the sweep
    host: str = ""
    pid: int = 0
    processes: str = ""  # what the number `pid` counts in: the machine since its start, and there the container

    @classmethod
    def this(cls, worker: str) -> Owner:
        """This process, as `worker`."""
        return cls(worker, platform.node(), os.getpid(), visible_processes())

    def here(self) -> bool:
        """Whether it is one of the processes that this one can see, or was."""
        return self.processes == visible_processes()

    def ended(self) -> bool:
        """Whether this process can tell that the owner has ended."""
        return self.here() and not is_alive(self.pid)


@dataclass
class Note(JsonObject):
    """What the file of a claim says."""

    owner: Owner | None = None  # None: it was made, and its maker died before it wrote who it was
    started: str = ""
    device: str | None = None  # the GPU that the job uses
    gib: float | None = None  # of that GPU's memory, as predicted


@dataclass
class Claim:
    """One attempt at a job."""

    job: int
    attempt: int
    note: Note
    path: Path
    given_back: bool = False  # by this process, which therefore need not find it there

    @property
    def owner(self) -> Owner | None:
        """Whose it is; None where nobody wrote it down."""
        return self.note.owner

    def held(self) -> bool:
        """Whether nobody has taken the job over. A file system that does not answer has not said that somebody has."""
        try:
            return self.path.is_file() and not _path(self.path.parent.parent, self.job, self.attempt + 1).exists()
        except OSError:
            return True

    def beat(self) -> None:
        """A sign of life."""
        with suppress(OSError):
            os.utime(self.path)

    def last_beat(self) -> float:
        """The time of the last sign of life; 0 where the file is gone."""
        try:
            return self.path.stat().st_mtime
        except OSError:
            return 0.0

    def give_up(self) -> None:
        """Let others take the job over, as if there had been no sign of life for long. A living owner's next one undoes it."""
        with suppress(OSError):
            os.utime(self.path, (0, 0))

    def write(self) -> None:
        """Write `note`, which has changed."""
        with suppress(OSError):
            _write(self.path, self.note)


def _path(sweep: Path, job: int, attempt: int) -> Path:
    return sweep / CLAIMS / f"{job}.{attempt}"


def _read(path: Path) -> Note:
    try:
        return Note.from_dict(json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, WrongType):
        return Note()


def _write(path: Path, note: Note) -> None:
    with open(path, "r+", encoding="utf-8") as file:
        file.write(json.dumps(note.to_dict()))
        file.truncate()


def attempts(sweep: Path) -> dict[int, int]:
    """The latest attempt at each job that has one. One look at the directory."""
    latest: dict[int, int] = {}
    with suppress(FileNotFoundError):
        for name in os.listdir(sweep / CLAIMS):
            job, _, attempt = name.partition(".")
            if job.isdecimal() and attempt.isdecimal():
                latest[int(job)] = max(int(attempt), latest.get(int(job), 0))
    return latest


def read_claim(sweep: Path, job: int, attempt: int) -> Claim:
    """What is known of an attempt."""
    path = _path(sweep, job, attempt)
    return Claim(job, attempt, _read(path), path)


def claim(sweep: Path, job: int, owner: Owner, attempt: int) -> Claim | None:
    """Make the `attempt`-th claim to `job`; None where another process has it, or the job is over by now."""
    path = _path(sweep, job, attempt)
    made = Claim(job, attempt, Note(owner, now()), path)
    try:
        with open(path, "x", encoding="utf-8") as file:  # fails where it is there
            file.write(json.dumps(made.note.to_dict()))
    except FileExistsError:
        return None
    if (sweep / JOBS / f"{job}.json").exists():  # it ended while this process was looking
        release(made)
        return None
    return made


def release(held: Claim) -> None:
    """Give the job back, or up: the outcome is written, or the job shall be done by another."""
    held.given_back = True
    for attempt in range(held.attempt, 0, -1):  # the latest first: an older one alone says that its owner was lost
        _path(held.path.parent.parent, held.job, attempt).unlink(missing_ok=True)


def step_back(held: Claim) -> None:
    """Take back a claim whose run somebody else is still doing: the claims before it stay, one of them may be theirs."""
    held.given_back = True
    held.path.unlink(missing_ok=True)


class Clock:
    """The time of the file system on which a sweep lies."""

    def __init__(self, sweep: Path, worker: str) -> None:
        self.path = sweep / WORKERS / f"{worker}.alive"

    def age(self, path: Path) -> float | None:
        """Seconds since `path` was last written; None where it is not there."""
        try:
            self.path.touch()
            return self.path.stat().st_mtime - path.stat().st_mtime
        except FileNotFoundError:
            return None


def lost(held: Claim, clock: Clock, stale_s: float = STALE_S) -> bool:
    """Whether the owner of a claim is gone: its process has ended, where this machine can tell, or it gave no sign of
    life for `stale_s` seconds."""
    if held.owner is not None and held.owner.ended():
        return True
    age = clock.age(held.path)
    return age is not None and age > stale_s


def living(sweep: Path) -> bool:
    """Whether a worker is at one of the sweep's jobs."""
    clock = Clock(sweep, f"{os.getpid()}-looking")
    held = (read_claim(sweep, job, attempt) for job, attempt in attempts(sweep).items())
    found = any(not lost(each, clock) for each in held)
    clock.path.unlink(missing_ok=True)
    return found


@contextmanager
def beating(held: Claim, leave: Callable[[Claim], None] = lambda held: None, every_s: float = BEAT_S) -> Iterator[None]:
    """Inside, another thread gives signs of life for a claim. A process that is stopped, or that holds Python's lock for
    good, gives none; if it then goes on and its job was taken over, `leave` is called: two must not write the same run.
    A job that this process gave back, as one of a pack does when it ends before the others, was not taken over."""
    end = threading.Event()

    def beat() -> None:
        while not end.wait(every_s):
            if held.held():
                held.beat()
                continue
            if not held.given_back:
                leave(held)
            return

    thread = threading.Thread(target=beat, name=f"claim-{held.job}", daemon=True)
    thread.start()
    try:
        yield
    finally:
        end.set()
        thread.join()
