"""Who runs the jobs of a sweep: one table of launchers. All of them start the same loop over the sweep's directory."""

from __future__ import annotations

import os
import secrets
from collections.abc import Callable
from dataclasses import replace

from unipet.compose.override_text import override
from unipet.config import LauncherConfig
from unipet.errors import UnipetError, unknown
from unipet.sweeps import ray_driver, slurm, telling
from unipet.sweeps.directory import Sweep, most_gpus
from unipet.sweeps.machine import gpus, places
from unipet.sweeps.progress import Progress
from unipet.sweeps.supervisor import Slot, Supervisor, log_of
from unipet.sweeps.worker import Worker


def local(sweep: Sweep) -> None:
    """One worker, which writes to this terminal: a process beside this one, or this one where jobs are not isolated."""
    if not sweep.launcher.isolate:
        in_this_process(sweep)
        return
    slot = Slot(worker_name())
    Supervisor(
        sweep, [slot], settled=lambda job: telling.ended(sweep.directory, job), flags=["--alone", "--last"]
    ).run()


def in_this_process(sweep: Sweep) -> None:
    """The jobs one after the other, here: what ends one of them with this process ends the sweep."""
    Worker(sweep, worker_name(), telling.worker(sweep), last=True).run()


def packed(sweep: Sweep) -> None:
    """Workers that train several jobs at a time in one process: one for each GPU, or one."""
    workers = sweep.launcher.workers or max(len(gpus()), 1)
    if workers == 1:
        local(sweep)
    else:
        slots(replace(sweep, launcher=replace(sweep.launcher, workers=workers)))


def slots(sweep: Sweep) -> None:
    """Several worker processes, each with its part of the machine; what they print goes to files."""
    own, several = worker_name(), places(sweep.launcher.workers, most_gpus(sweep))
    progress = Progress(sweep)
    workers = [
        Slot(f"{own}-{number}", environment, log_of(sweep, f"{own}-{number}"))
        for number, environment in enumerate(several)
    ]
    workers[0].flags = (
        "--last",
    )  # another command may be at the last jobs; this one closes the sweep when they are over
    try:
        Supervisor(sweep, workers, look=progress.look).run()
    finally:
        progress.close()


def ray(sweep: Sweep) -> None:
    """Actors of a Ray cluster, each with a worker; what they print goes to files."""
    progress = Progress(sweep)
    try:
        ray_driver.on_ray(sweep, worker_name(), progress.look)
    finally:
        progress.close()


def worker_name() -> str:
    """A name that no other worker of the sweep has."""
    return f"{os.getpid()}-{secrets.token_hex(2)}"


#: Each runs the jobs, or has others run them later and returns how to follow that.
LAUNCHERS: dict[str, Callable[[Sweep], str | None]] = {
    "local": local,
    "slots": slots,
    "packed": packed,
    "slurm": slurm.slurm,
    "ray": ray,
}
#: What must be here before a launcher is of use.
CHECKS: dict[str, Callable[[LauncherConfig], None]] = {"slurm": slurm.check, "ray": ray_driver.check}
#: Options of `LauncherConfig` -> the launchers that read them; the others are for all.
READ_BY = {
    "workers": ("slots", "packed", "slurm", "ray"),
    "isolate": ("local",),
    "pack": ("packed",),
    **dict.fromkeys(("cluster", "partition", "account", "time", "memory_gib", "sbatch"), ("slurm",)),
    **dict.fromkeys(("cpus", "gpus"), ("slurm", "ray")),
    "address": ("ray",),
}


def check_launcher(launcher: LauncherConfig) -> None:
    """Raise `UnipetError` for a launcher that does not exist, cannot be used here, or does not read an option that is set."""
    if launcher.name not in LAUNCHERS:
        raise unknown("launcher.name", launcher.name, LAUNCHERS)
    usual = vars(LauncherConfig())
    for key, value in vars(launcher).items():
        if value != usual[key] and launcher.name not in READ_BY.get(key, LAUNCHERS):
            raise UnipetError(
                f"{override(f'launcher.{key}', value)}: given, but launcher={launcher.name} does not read it. "
                f"These do: {', '.join(READ_BY[key])}."
            )
    if (check := CHECKS.get(launcher.name)) is not None:
        check(launcher)


def launch(sweep: Sweep) -> str | None:
    """Run the jobs of a sweep that have no outcome yet, with the launcher that it asks for. How to follow them, in words,
    where they run when this process has ended."""
    check_launcher(sweep.launcher)
    return LAUNCHERS[sweep.launcher.name](sweep)
