"""A job of a sweep that Hydra starts, with the configuration that Hydra composed: perhaps in another process or machine."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from unipet.compose.composer import plain_values
from unipet.compose.override import shown
from unipet.sweeps import jobs, telling
from unipet.sweeps.directory import Job

_FOR_GOOD: list[AbstractContextManager[None]] = []  # what such a process has entered and never leaves


@dataclass(frozen=True)
class HydraJob:
    """What every job of the sweep needs to know of it."""

    sweep: Path
    flags: list[str]
    swept: list[str]
    total: int | None

    def __call__(self, composed: Any) -> None:
        """Run the job and write its outcome."""
        from hydra.core.hydra_config import HydraConfig

        state = HydraConfig.get()
        overrides, number = list(state.overrides.task), state.job.num
        values = plain_values(composed)
        telling.began(Job(number, overrides, differing(overrides, self.swept), values, None), self.total)
        task = jobs.Task(self.sweep, number, [shown(text) for text in overrides], self.flags)
        outcome = jobs.run_job(values, task)
        jobs.write_outcome(self.sweep, outcome)
        telling.ended(self.sweep, outcome)

    def __reduce__(self) -> Any:
        return arrived, (self.sweep, self.flags, self.swept, self.total)


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
