"""A job of a sweep that Hydra starts, with the configuration that Hydra composed: perhaps in another process or machine."""

from __future__ import annotations

import math
from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from unipet.compose.composer import plain_values
from unipet.compose.override import shown
from unipet.compose.overrides import Plan
from unipet.errors import UnipetError
from unipet.runs.record import Record
from unipet.sweeps import jobs, telling
from unipet.sweeps.job_files import Job

_FOR_GOOD: list[AbstractContextManager[None]] = []  # what such a process has entered and never leaves


@dataclass(frozen=True)
class HydraJob:
    """What every job of the sweep needs to know of it."""

    sweep: Path
    flags: list[str]
    swept: list[str]
    total: int | None

    def __call__(self, composed: Any) -> float:
        """Run the job and write its outcome. Returns what a sweeper of Hydra's optimises, `objective`."""
        from hydra.core.hydra_config import HydraConfig

        state = HydraConfig.get()
        overrides, number = list(state.overrides.task), state.job.num
        values = plain_values(composed)
        telling.began(Job(number, overrides, differing(overrides, self.swept), values, None), self.total)
        task = jobs.Task(self.sweep, number, [shown(text) for text in overrides], self.flags)
        outcome = jobs.run_job(values, task)
        jobs.write_outcome(self.sweep, outcome)
        telling.ended(self.sweep, outcome)
        return objective(outcome.record)

    def __reduce__(self) -> Any:
        return arrived, (self.sweep, self.flags, self.swept, self.total)


def objective(record: Record | None) -> float:
    """The best score of a checkpoint on the selection split, turned so that more is better; never the reported score. Minus
    infinity for a run without one."""
    scores = record.data.selection.scores if record is not None and record.status == "ok" else {}
    return max(scores.values(), default=-math.inf)


def check_objective(todo: Plan) -> None:
    """Raise `UnipetError` for a sweeper of Hydra's that would not find what it looks for in the selection score."""
    if todo.config.task.selection == "none":
        raise UnipetError(
            "hydra/sweeper: it optimises the score on the selection split, and task.selection=none has none. Use "
            "task.selection=train_holdout."
        )
    direction = str(getattr(todo.composed.hydra.sweeper, "direction", None)).rpartition(".")[2]
    if direction == "minimize":
        raise UnipetError(
            "hydra.sweeper.direction: minimize given or left at its default; the objective is the selection score, turned so "
            "that more is better. Set hydra.sweeper.direction=maximize."
        )


def arrived(sweep: Path, flags: list[str], swept: list[str], total: int | None) -> HydraJob:
    """A job in a process that Hydra has started: from now on it reads files and overrides as the command itself did."""
    from unipet.compose.written import as_written

    if not _FOR_GOOD:
        reading = as_written()
        reading.__enter__()
        _FOR_GOOD.append(reading)
    return HydraJob(sweep, flags, swept, total)


def differing(overrides: Sequence[str], swept: Sequence[str]) -> list[str]:
    """Those of a job's overrides that tell it from the other jobs."""
    typed = [shown(text) for text in overrides]
    return [
        text
        for text in typed
        if text.split("=", 1)[0] in swept or (text.startswith("model.path=") and "model" in swept)
    ]
