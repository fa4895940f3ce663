"""Who runs the jobs of a sweep: one table of launchers. All of them start the same loop over the sweep's directory."""

from __future__ import annotations

import os
import secrets
from collections.abc import Callable

from unipet.config import LauncherConfig
from unipet.errors import unknown
from unipet.sweeps import telling
from unipet.sweeps.directory import Sweep, read_job
from unipet.sweeps.machine import places
from unipet.sweeps.progress import Progress
from unipet.sweeps.supervisor import Slot, Supervisor, log_of
from unipet.sweeps.worker import Worker


def local(sweep: Sweep) -> None:
    """One worker, which writes to this terminal: a process beside this one, or this one where jobs are not isolated."""
    if not sweep.launcher.isolate:
        in_this_process(sweep)
        return
    Supervisor(sweep, [Slot(worker_name())], settled=lambda outcome: telling.ended(sweep.directory, outcome)).run()


def in_this_process(sweep: Sweep) -> None:
    """The jobs one after the other, here: what ends one of them with this process ends the sweep."""
    Worker(sweep, worker_name(), telling.worker(sweep)).run()


def slots(sweep: Sweep) -> None:
    """Several worker processes, each with its part of the machine; what they print goes to files."""
    own, several = worker_name(), places(sweep.launcher.workers, most_gpus(sweep))
    progress = Progress(sweep)
    workers = [
        Slot(f"{own}-{number}", environment, log_of(sweep, f"{own}-{number}"))
        for number, environment in enumerate(several)
    ]
    try:
        Supervisor(sweep, workers, look=progress.look).run()
    finally:
        progress.close()


def most_gpus(sweep: Sweep) -> int:
    """The largest `budget.gpus` of the sweep's jobs: any worker may take any of them."""
    jobs = (read_job(sweep.directory, number) for number in range(sweep.jobs))
    return max((int(job.values["budget"]["gpus"]) for job in jobs if job.mistake is None), default=1)


def worker_name() -> str:
    """A name that no other worker of the sweep has."""
    return f"{os.getpid()}-{secrets.token_hex(2)}"


LAUNCHERS: dict[str, Callable[[Sweep], None]] = {"local": local, "slots": slots}


def check_launcher(launcher: LauncherConfig) -> None:
    """Raise `UnipetError` for a launcher that does not exist."""
    if launcher.name not in LAUNCHERS:
        raise unknown("launcher.name", launcher.name, LAUNCHERS)


def launch(sweep: Sweep) -> None:
    """Run the jobs of a sweep that have no outcome yet, with the launcher that it asks for."""
    check_launcher(sweep.launcher)
    LAUNCHERS[sweep.launcher.name](sweep)
