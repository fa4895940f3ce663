"""The jobs of a stage: each is one run of a trial, with what it is in the search."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from unipet.runs.sweep_files import JobState
from unipet.runs.trial_of import TrialOf
from unipet.sweeps.job_files import Job, read_job_file
from unipet.sweeps.search.description import Search
from unipet.sweeps.search.stage_files import FINAL, Added, Stage, trial_path


def trial_run(directory: Path, search: Search, added: Added, further: int = 0) -> Job:
    """A job of a stage, from the file of its trial."""
    return run_of(read_job_file(trial_path(directory, added.study, added.trial)), search, added, further)


def run_of(trial: Job, search: Search, added: Added, further: int = 0) -> Job:
    """A run of a trial, as a job; `further` candidates were discarded after those of the beginning."""
    config, text, scored_on = (
        search.config,
        search.studies[added.study],
        "evaluation" if added.role == FINAL else "selection",
    )
    discarded = text.discarded.total + further if text.designed else None
    node: dict[str, Any] = {
        "scored_on": scored_on,
        "until": added.until,
        "after": added.after,
        "role": added.role,
        "search": "random" if text.beside else config.name,
        "study": text.label,
        "number": added.trial,
        "trials": config.trials if config.trials is not None else len(text.known),
        "seeds": len(config.seeds),
        "budget": config.budget,
        "beside": config.name if text.beside else "",
        "discarded": discarded,
    }
    own = [f"seed={added.seed}"]
    own += [f"trial.scored_on={scored_on}"] if scored_on != "evaluation" else []
    own += [f"trial.{key}={node[key]}" for key, usual in (("until", 1.0), ("after", 0.0)) if node[key] != usual]
    values: Mapping[str, Any] = {**trial.values, "seed": added.seed, "trial": node} if trial.values else {}
    return Job(added.job, [*trial.overrides, *own], [*trial.differing, *own], values, trial.mistake)


def pending(stage: Stage, jobs: Sequence[Job], flags: Sequence[str]) -> list[JobState]:
    """The first events of a stage's jobs."""
    return [
        JobState(
            job.number,
            overrides=job.overrides,
            flags=list(flags),
            role=added.role,
            study=added.study,
            trial=added.trial,
            told=TrialOf.from_dict(dict(job.values["trial"])) if job.values else None,
        )
        for job, added in zip(jobs, stage.added, strict=True)
    ]
