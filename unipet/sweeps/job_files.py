"""The file of a job in a sweep's directory: its overrides, and its resolved configuration or the mistake in it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from unipet.calculus.yaml_reader import Plain, read_written, write_yaml
from unipet.compose.parse_run_config import run_config
from unipet.compose.schema import typed
from unipet.config import RunConfig
from unipet.errors import UnipetError
from unipet.runs.sweep_files import JOBS

if TYPE_CHECKING:
    from unipet.compose.expand import SweepJob


@dataclass(frozen=True)
class Job:
    """A job as the sweep's directory holds it: its overrides, and its configuration or the mistake in it."""

    number: int
    overrides: list[str]  # all of them, as one would type them
    differing: list[str]  # those that tell it from the other jobs
    values: Mapping[str, Any]
    mistake: str | None


def written(expanded: SweepJob) -> Job:
    """A job of a command line, as the sweep's directory will hold it."""
    return Job(expanded.number, expanded.overrides, expanded.differing, expanded.values, expanded.mistake)


def read_job(directory: Path, number: int) -> Job:
    """Job `number` of the sweep in `directory`. Raises `UnipetError` for a file that is not a job."""
    return replace(read_job_file(directory / JOBS / f"{number}.yaml"), number=number)


def read_job_file(path: Path) -> Job:
    """What `job_file` wrote, of a job or of a trial; its number is not in it. Raises `UnipetError` for any other file."""
    content = read_written(path)
    try:
        overrides, differing = (list(map(str, content[key])) for key in ("overrides", "differing"))
        values = typed(content["config"], RunConfig)
        mistake = None if isinstance(content["mistake"], Plain) else str(content["mistake"])
    except (KeyError, TypeError) as error:
        raise UnipetError(f"{path}: not the file of a job ({error}). Give the sweep's command again.") from None
    return Job(0, overrides, differing, values, mistake)


def job_file(job: Job) -> bytes:
    """The file of a job, or of a trial."""
    said = {"overrides": job.overrides, "differing": job.differing, "mistake": job.mistake, "config": job.values}
    return write_yaml(said).encode()


def job_config(job: Job) -> RunConfig:
    """The configuration of a job. Raises `UnipetError` with the mistake that is in it."""
    if job.mistake is not None:
        raise UnipetError(job.mistake)
    return run_config(job.values)
