"""`launcher=slurm`: a sweep's workers as one array job, through submitit. The command ends as soon as it is submitted."""

from __future__ import annotations

import json
import shlex
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from unipet.config import LauncherConfig
from unipet.errors import UnipetError
from unipet.output.json_object import JsonObject, WrongType
from unipet.runs.record_files import write_json_atomic
from unipet.runs.sweep_files import job_numbers
from unipet.sweeps.claims import Owner
from unipet.sweeps.directory import Sweep, most_gpus
from unipet.sweeps.slurm_task import SlurmTask

FOLDER = "slurm"  # in the sweep's directory: the job ids, and what submitit writes, logs of the tasks among it
SUBMITTED = "submitted.json"
SIGNAL_S = 150  # how long before the time limit a task is told; its worker then has two minutes for a checkpoint
REQUEUES = 10_000  # a task that reaches its time limit is queued again: sweeps are longer than limits
ASK_S = 60  # that a command of SLURM may take

#: Options of sbatch that `launcher.sbatch` may not set -> who sets them.
OURS = {
    "partition": "launcher.partition",
    "account": "launcher.account",
    "time": "launcher.time",
    "gpus-per-node": "launcher.gpus",
    "cpus-per-task": "launcher.cpus",
    "mem": "launcher.memory_gib",
    **dict.fromkeys(("array", "nodes", "ntasks", "ntasks-per-node"), "launcher.workers"),
    **dict.fromkeys(("signal", "dependency", "output", "error", "open-mode", "job-name"), "unipet itself"),
}


@dataclass
class Submitted(JsonObject):
    """What has been submitted for a sweep, by one command or by several."""

    cluster: str = "slurm"
    jobs: list[str] = field(default_factory=list)  # ids of jobs, without the numbers of an array's tasks


def check(launcher: LauncherConfig) -> None:
    """Raise `UnipetError` where nothing can be submitted from here, or an option of sbatch is not the user's to set."""
    for name in launcher.sbatch:
        if (owner := OURS.get(name.replace("_", "-"))) is not None:
            raise UnipetError(
                f"launcher.sbatch.{name}: {owner} sets this option of sbatch. Take it out of launcher.sbatch."
            )
    try:
        import submitit  # noqa: F401
    except ImportError:
        raise UnipetError("launcher=slurm needs submitit. Install it: pip install 'unipet[slurm]'.") from None
    missing = [name for name in ("sbatch", "srun") if shutil.which(name) is None]
    if launcher.cluster == "slurm" and missing:
        raise UnipetError(
            f"launcher=slurm: the command {missing[0]} is not on this machine. Give the command on a login node of the "
            "cluster, or try the same on this machine: launcher.cluster=local."
        )


def slurm(sweep: Sweep) -> str:
    """Submit an array of workers, and a task after them that writes the comparison. How to follow them, in words."""
    if here := queued(sweep.directory):
        return (
            f"its tasks are queued or running already (job {', '.join(here)}), and take what is left.\n{_follow(sweep)}"
        )
    launcher, local = sweep.launcher, sweep.launcher.cluster == "local"
    left = sweep.total - len(job_numbers(sweep.directory, ".json"))
    tasks = min(launcher.workers or left, left)
    executor, done = _executor(sweep), _read(sweep.directory)
    directory = sweep.directory.absolute()
    with _refused():
        with executor.batch():
            workers = [executor.submit(SlurmTask(directory, f"slurm-{number}")) for number in range(tasks)]
        ids = [str(worker.job_id) for worker in workers]
        array = ids[0].partition("_")[0]
        _write(
            directory, Submitted(launcher.cluster, [*done.jobs, *dict.fromkeys(each.partition("_")[0] for each in ids)])
        )
        if not local:
            executor.update_parameters(slurm_dependency=f"afterany:{array}")
        this = Owner.this("")
        after = [replace(this, pid=int(each)) for each in ids] if local else []
        last = str(executor.submit(SlurmTask(directory, "slurm-last", closes=True, after=after)).job_id)
        _write(directory, Submitted(launcher.cluster, [*_read(directory).jobs, last]))
    place = "on this machine" if local else f"to SLURM as job {array}"
    return (
        f"submitted {place}: {tasks} workers for {left} jobs; job {last} then writes the comparison\n{_follow(sweep)}"
    )


def _follow(sweep: Sweep) -> str:
    directory = shlex.quote(str(sweep.directory))
    return (
        f"to follow: unipet sweep status {directory} --watch\n"
        f"to end it: unipet sweep cancel {directory}\n"
        f"what the workers print: {sweep.directory / FOLDER}"
    )


def _executor(sweep: Sweep) -> Any:
    import submitit

    launcher, folder = sweep.launcher, sweep.directory.absolute() / FOLDER
    executor = submitit.AutoExecutor(
        folder, cluster=launcher.cluster, slurm_max_num_timeout=REQUEUES, local_max_num_timeout=REQUEUES
    )
    several = most_gpus(sweep)
    gpus = several if launcher.gpus is None and several > 1 else launcher.gpus
    seconds = min(SIGNAL_S, 30 * launcher.time)
    further = {name.replace("_", "-"): True if value == "true" else value for name, value in launcher.sbatch.items()}
    executor.update_parameters(
        name=f"unipet-{sweep.directory.name}",
        timeout_min=launcher.time,
        gpus_per_node=gpus,
        cpus_per_task=launcher.cpus,
        mem_gb=launcher.memory_gib,
        slurm_partition=launcher.partition,
        slurm_account=launcher.account,
        slurm_signal_delay_s=seconds,
        slurm_additional_parameters={"requeue": True, **further},
    )
    if launcher.cluster == "local":
        executor._executor.update_parameters(signal_delay_s=seconds)
    return executor


@contextmanager
def _refused() -> Iterator[None]:
    """What sbatch says when it takes no job, as an error."""
    from submitit.core.utils import FailedJobError, FailedSubmissionError

    try:
        yield
    except (FailedJobError, FailedSubmissionError) as error:
        said = " ".join(str(error).split())
        raise UnipetError(f"launcher=slurm: sbatch has not taken the job: {said}") from None
    except OSError as error:
        raise UnipetError(f"launcher=slurm: nothing could be submitted ({error.strerror or error}).") from None


def queued(directory: Path) -> list[str]:
    """Those of the sweep's jobs that SLURM still has; none where it cannot be asked."""
    known = _read(directory)
    if known.cluster != "slurm" or not known.jobs:
        return []
    alive = _ask("squeue", "--noheader", "--format=%F", f"--jobs={','.join(known.jobs)}").split()
    return [job for job in known.jobs if job in alive]


def cancel(directory: Path) -> str:
    """Take the sweep's jobs out of SLURM's queue, the running ones included. What was done, in words; empty without any."""
    if not (jobs := queued(directory)):
        return ""
    _ask("scancel", *jobs)
    return f" SLURM was asked to end job {', '.join(jobs)}."


def _ask(*command: str) -> str:
    """What a command of SLURM prints; nothing where it fails or is not there."""
    try:
        answer = subprocess.run(command, capture_output=True, encoding="utf-8", errors="replace", timeout=ASK_S)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return answer.stdout


def _read(directory: Path) -> Submitted:
    try:
        return Submitted.from_dict(json.loads((directory / FOLDER / SUBMITTED).read_text(encoding="utf-8")))
    except (OSError, ValueError, WrongType):
        return Submitted()


def _write(directory: Path, submitted: Submitted) -> None:
    write_json_atomic(directory / FOLDER / SUBMITTED, submitted.to_dict())
