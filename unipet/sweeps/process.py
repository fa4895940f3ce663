"""A worker as a process of its own: `python -m unipet.sweeps.process DIR NAME`. Launchers start it; people need not."""

from __future__ import annotations

import ctypes
import gc
import os
import signal
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from types import FrameType

from unipet.errors import UnipetError
from unipet.output import libraries, terminal
from unipet.runs.sweep_files import JobState
from unipet.sweeps import telling
from unipet.sweeps.claims import Claim
from unipet.sweeps.directory import read_sweep
from unipet.sweeps.job_files import Job
from unipet.sweeps.packer import worker_kind
from unipet.sweeps.worker import Say, Worker
from unipet.training.stopping import ask

ONCE_S = 30.0  # in which several wishes that it ends are one: SLURM asks every process of a task, and its supervisor asks too
#: Never delivered here, nor to what a job starts. They wait, and say why SIGTERM came.
KEPT = (signal.SIGINT, signal.SIGHUP)
TAKEN_OVER = 5  # exit code of a worker that was taken for dead, and has found out
_PARENT_DIES = 1  # PR_SET_PDEATHSIG


def main(argv: Sequence[str] | None = None) -> int:
    """0 when no job was left, 1 for a mistake, 130, 143 or 129 when it was asked to end."""
    directory, name, *flags = sys.argv[1:] if argv is None else argv
    with terminal.screens(libraries.hidden), libraries.quiet():
        return work(Path(directory), name, alone="--alone" in flags, last="--last" in flags)


def work(directory: Path, name: str, alone: bool, last: bool) -> int:
    """The loop of one worker, with its end by a signal."""
    asked_at = time.monotonic() - 2 * ONCE_S

    def asked_to_end(sign: int, frame: FrameType | None) -> None:
        nonlocal asked_at
        if time.monotonic() - asked_at > ONCE_S:
            asked_at = time.monotonic()
            ask(next((kept for kept in KEPT if kept in signal.sigpending()), sign))

    signal.signal(signal.SIGTERM, asked_to_end)
    signal.signal(signal.SIGUSR2, signal.SIG_IGN)  # SLURM sends it to a whole task; who started this process answers it
    # A key press at the terminal, or its end, reaches every process; whoever started this one asks it to end once, by SIGTERM.
    signal.pthread_sigmask(signal.SIG_BLOCK, KEPT)
    end_with_parent()
    try:
        sweep = read_sweep(directory)
        kind, say = worker_kind(sweep.launcher.name), telling.worker(sweep)
        # In a pack other runs are at work when the first ends: what is theirs shall not stay for good.
        kind(sweep, name, freezing(say) if kind is Worker else say, alone, last, leave).run()
    except UnipetError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt as end:
        return int(getattr(end, "exit_code", 128 + signal.SIGINT))
    return 0


def leave(held: Claim) -> None:
    """End at once, without another byte in the run's directory."""
    said = f"job {held.job + 1} was taken over while this process gave no sign of life; it ends here"
    print(said, file=sys.stderr, flush=True)
    os._exit(TAKEN_OVER)


def freezing(say: Say) -> Say:
    """`say`; and after the first job, whose imports stay for good, nothing of it is looked at when garbage is collected."""
    frozen = False

    def told(job: Job, outcome: JobState | None) -> None:
        nonlocal frozen
        say(job, outcome)
        if outcome is not None and not frozen:
            gc.collect()
            gc.freeze()
            frozen = True

    return told


def end_with_parent() -> None:
    """Where the system can do it, let this process be asked to end when the one that started it does, however that ends."""
    parent = os.getppid()
    with suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(_PARENT_DIES, int(signal.SIGTERM), 0, 0, 0)
    if os.getppid() != parent:  # it has ended already
        raise SystemExit(128 + signal.SIGTERM)


if __name__ == "__main__":
    sys.exit(main())
