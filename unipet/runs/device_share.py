"""What a run and the processes of its other devices say to each other."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from unipet.config import RunConfig
from unipet.errors import UnipetError

if TYPE_CHECKING:
    from unipet.calculus.method import Method
    from unipet.calculus.sites import Architecture
    from unipet.tasks import EncodedRows
    from unipet.training.resume_point import ResumePoint

READY = {"ready": True}
LOST_OTHERS = 3  # exit code of a process that ended because another one had


@dataclass(frozen=True)
class Share:
    """All that the process of another device needs to take part in a training."""

    config: RunConfig
    method: Method  # as the budget leaves it
    sites: Architecture | None
    labels: list[str]
    regression: bool
    class_weights: list[float]
    examples: EncodedRows
    micro_batch: int
    checkpointing: bool
    threads: int = 1  # of the CPU, for each process
    meeting: Path = Path()  # the file through which the processes find each other
    rank: int = 0
    begin: ResumePoint | None = None  # after which training begins


def no_such_class(error: Exception) -> UnipetError:
    """The mistake of a class that no module has, as those of a notebook's cell or inside a function."""
    return UnipetError(
        f"budget.gpus: the other processes of the run cannot load a class of this program ({error}). Put it into a module "
        "and name that module: imports=[MODULE]. Or set budget.gpus=1."
    )
