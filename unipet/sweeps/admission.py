"""Several workers on one GPU: a run begins there once its predicted memory fits beside that of the runs that are there."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from unipet.output.files import as_file_name
from unipet.runs.sweep_files import WORKERS
from unipet.sweeps.claims import Claim, attempts, read_claim

CONTEXT_GIB = 0.6  # of a GPU that each process takes besides what its run needs
LOOK_S = 2.0


@dataclass
class Device:
    """A GPU as one worker sees it: its name among the machine's, and its memory."""

    name: str
    gib: float


def device() -> Device | None:
    """The GPU of this process; None without one. It asks torch, so a run must have begun."""
    import torch

    if not torch.cuda.is_available():
        return None
    name = os.getenv("CUDA_VISIBLE_DEVICES", "0")
    return Device(name, torch.cuda.get_device_properties(0).total_memory / 2**30)


def wait_for_room(
    held: Claim, gib: float | None, place: Device, pause: Callable[[], None] = lambda: time.sleep(LOOK_S)
) -> None:
    """Return once the run of `held`, which is predicted to need `gib`, may use the device; its claim says so from then on.

    A run that is alone on the device may use it whatever it needs: whether it fits is its own affair. One whose need is
    not known is left alone there.
    """
    sweep = held.path.parent.parent
    need = place.gib if gib is None else gib + CONTEXT_GIB
    while True:
        with _alone(sweep / WORKERS / f"{as_file_name(place.name)}.device"):
            taken = [other.note.gib or 0.0 for other in _on(sweep, place.name, held)]
            if not taken or sum(taken) + need <= place.gib:
                held.note.device, held.note.gib = place.name, need
                held.write()
                return
        pause()


def _on(sweep: Path, name: str, mine: Claim) -> Iterator[Claim]:
    """The claims of other living workers of this machine whose runs use a device."""
    for job, attempt in attempts(sweep).items():
        other = read_claim(sweep, job, attempt)
        owner = other.owner
        if job != mine.job and owner is not None and owner.here() and not owner.ended() and other.note.device == name:
            yield other


@contextmanager
def _alone(path: Path) -> Iterator[None]:
    """Inside, no other worker of this machine decides about the same device."""
    import fcntl

    with open(path, "a", encoding="utf-8") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
