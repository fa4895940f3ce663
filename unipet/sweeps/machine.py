"""How one machine is shared between worker processes: GPUs, or the CPU's threads. Nothing heavy is imported to know."""

from __future__ import annotations

import os
import shutil
import subprocess

from unipet.output.machine_memory import available_gib

WORKER_GIB = 3.0  # of main memory that one worker is given when nobody says how many there shall be


def places(workers: int | None, each: int = 1) -> list[dict[str, str]]:
    """The environment of each worker: which `each` GPUs it sees, or how many threads it uses.

    Where there are fewer GPUs than that, every worker sees all of them, and the job that needs more says so.
    """
    devices = gpus()
    if devices:
        groups = [devices[at : at + each] for at in range(0, len(devices) - each + 1, each)] or [devices]
        count = workers or len(groups)
        return [{"CUDA_VISIBLE_DEVICES": ",".join(groups[number % len(groups)])} for number in range(count)]
    cores = usable_cores()
    count = workers or max(1, min(cores, int(available_gib() // WORKER_GIB)))
    threads = str(max(1, cores // count))
    return [dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS"), threads) for _ in range(count)]


def gpus() -> list[str]:
    """The GPUs that this process may use, as `CUDA_VISIBLE_DEVICES` names them."""
    asked = os.getenv("CUDA_VISIBLE_DEVICES")
    if asked is not None:
        return [name.strip() for name in asked.split(",") if name.strip() and name.strip() != "-1"]
    if shutil.which("nvidia-smi") is None:
        return []
    try:
        listed = subprocess.run(
            ["nvidia-smi", "-L"], capture_output=True, encoding="utf-8", errors="replace", timeout=20
        )
    except (OSError, subprocess.TimeoutExpired):
        return []
    count = sum(line.startswith("GPU ") for line in listed.stdout.splitlines()) if listed.returncode == 0 else 0
    return [str(number) for number in range(count)]


def usable_cores() -> int:
    """Cores that this process may run on."""
    try:
        return len(os.sched_getaffinity(0))
    except AttributeError:
        return os.cpu_count() or 1
