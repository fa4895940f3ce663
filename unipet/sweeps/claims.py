"""Who runs which job: a file that only one process can make, kept fresh by its owner, taken over when the owner is gone.

`claims/<n>.<k>` is the k-th attempt at job n. Whoever makes it owns the job. Nobody removes another's claim to take it:
the next attempt has the next number, so of two processes that take over one makes the file and the other fails to.
Times are compared with that of a file written now: both are the file system's own, whatever the machines' clocks say.
"""

from __future__ import annotations

import functools
import json
import os
import platform
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path

from unipet.runs.record import now
from unipet.runs.sweep_files import CLAIMS, JOBS, WORKERS

BEAT_S = 5.0  # between two signs of life
STALE_S = 90.0  # without one, a claim's owner is taken for dead


@dataclass(frozen=True)
class Owner:
    """A worker: a process on a machine."""

    worker: str  # unique in the sweep
    host: str
    pid: int
    processes: str = ""  # what the number `pid` counts in: the machine since its start, and there the container

    @classmethod
    def this(cls, worker: str) -> Owner:
        """This process, as `worker`."""
        return cls(worker, platform.node(), os.getpid(), _processes())

    def here(self) -> bool:
        """Whether it is one of the processes that this one can see, or was."""
        return self.processes == _processes()

    def ended(self) -> bool:
        """Whether this process can tell that the owner has ended."""
        return self.here() and not _alive(self.pid)


@dataclass(frozen=True)
class Claim:
    """One attempt at a job."""

    job: int
    attempt: int
    owner: Owner | None  # None: it was made, and its maker died before it wrote who it was
    started: str
    path: Path

    def held(self) -> bool:
        """Whether nobody has taken the job over."""
        return self.path.is_file() and not _path(self.path.parent.parent, self.job, self.attempt + 1).exists()

    def beat(self) -> None:
        """A sign of life."""
        with suppress(OSError):
            os.utime(self.path)

    def note(self, **values: object) -> None:
        """Write what others should know of this attempt into its file."""
        with suppress(OSError):
            _write(self.path, {**_read(self.path), **values})


def _path(sweep: Path, job: int, attempt: int) -> Path:
    return sweep / CLAIMS / f"{job}.{attempt}"


def _read(path: Path) -> dict[str, object]:
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return values if isinstance(values, dict) else {}


def _write(path: Path, values: dict[str, object]) -> None:
    with open(path, "r+", encoding="utf-8") as file:
        file.write(json.dumps(values))
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
    values = _read(path)
    owner = values.get("owner")
    try:
        made_by = Owner(**owner) if isinstance(owner, dict) else None
    except TypeError:
        made_by = None
    return Claim(job, attempt, made_by, str(values.get("started", "")), path)


def claim(sweep: Path, job: int, owner: Owner, attempt: int) -> Claim | None:
    """Make the `attempt`-th claim to `job`; None where another process has it, or the job is over by now."""
    path = _path(sweep, job, attempt)
    started = now()
    try:
        file = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666)
    except FileExistsError:
        return None
    with open(file, "w", encoding="utf-8") as opened:
        opened.write(json.dumps({"owner": asdict(owner), "started": started}))
    made = Claim(job, attempt, owner, started, path)
    if (sweep / JOBS / f"{job}.json").exists():  # it ended while this process was looking
        release(made)
        return None
    return made


def release(held: Claim) -> None:
    """Give the job back, or up: the outcome is written, or the job shall be done by another."""
    for attempt in range(held.attempt, 0, -1):  # the latest first: an older one alone says that its owner was lost
        _path(held.path.parent.parent, held.job, attempt).unlink(missing_ok=True)


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


def lost(found: Claim, clock: Clock, stale_s: float = STALE_S) -> bool:
    """Whether the owner of a claim is gone: its process has ended, where this machine can tell, or it gave no sign of
    life for `stale_s` seconds."""
    if found.owner is not None and found.owner.ended():
        return True
    age = clock.age(found.path)
    return age is not None and age > stale_s


def living(sweep: Path) -> bool:
    """Whether a worker is at one of the sweep's jobs."""
    clock = Clock(sweep, f"{os.getpid()}-looking")
    held = (read_claim(sweep, job, attempt) for job, attempt in attempts(sweep).items())
    found = any(not lost(each, clock) for each in held)
    clock.path.unlink(missing_ok=True)
    return found


@functools.cache
def _processes() -> str:
    """Which processes this one can see: equal names, equal process numbers."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
        return f"{boot} {os.readlink('/proc/self/ns/pid')}"
    except OSError:
        return f"{platform.node()}"


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return not _is_zombie(pid)


def _is_zombie(pid: int) -> bool:
    """Whether a process has ended and nobody has asked for its exit code yet."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()
    except OSError:
        return False
    return bool(state) and state[0] == "Z"


@contextmanager
def beating(held: Claim, every_s: float = BEAT_S) -> Iterator[None]:
    """Inside, another thread gives signs of life for a claim. A process that is stopped, or that holds Python's lock for
    good, gives none."""
    end = threading.Event()

    def beat() -> None:
        while not end.wait(every_s):
            held.beat()

    thread = threading.Thread(target=beat, name=f"claim-{held.job}", daemon=True)
    thread.start()
    try:
        yield
    finally:
        end.set()
        thread.join()
