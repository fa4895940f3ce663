"""From one stage of a search to the next: what has ended, what the strategy asks for, and the jobs that come of it.

Any worker may do it. All that decides lies in the sweep's directory, so two that do it at once write the same files.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from unipet.errors import UnipetError
from unipet.output.files import write_bytes_atomic
from unipet.runs.record import Record
from unipet.runs.record_files import RESULT, read_record
from unipet.runs.sweep_files import JOBS, JobState, append_index, job_numbers, read_outcome
from unipet.sweeps.directory import Sweep
from unipet.sweeps.job_files import Job, job_file, read_job_file
from unipet.sweeps.search.choosing import choose
from unipet.sweeps.search.description import Search, read_search
from unipet.sweeps.search.draws import Choice
from unipet.sweeps.search.stage_files import (
    FINAL,
    TRIAL,
    Added,
    Stage,
    last_stage,
    read_stages,
    stage_path,
    trial_path,
    write_stage,
)
from unipet.sweeps.search.strategies import STRATEGIES
from unipet.sweeps.search.study import Done, Run, Study, Trial

ADDED, WAITING, OVER = "added", "waiting", "over"  # what `advance` found
#: (study, number of the trial, its choice) -> the job of the trial, without its seed
Compose = Callable[[int, int, Choice], Job]


def is_over(sweep: Sweep) -> bool:
    """Whether no further job will come."""
    return sweep.search == "none" or ((last := last_stage(sweep.directory)) is not None and last.role == FINAL)


def unfinished(sweep: Sweep) -> bool:
    """Whether a job has no outcome yet, or further ones will come."""
    return len(job_numbers(sweep.directory, ".json")) < sweep.total or not is_over(sweep)


def decided_jobs(directory: Path) -> set[int]:
    """The jobs from whose outcomes the search has gone on: to run them again could change nothing any more."""
    return {added.job for stage in read_stages(directory)[:-1] for added in stage.added}


def forget_stages(directory: Path) -> None:
    """Take back all that was decided: it follows once more from the outcomes, which may be others now."""
    for stage in reversed(read_stages(directory)[1:]):
        for added in stage.added:
            for ending in (".json", ".yaml"):
                (directory / JOBS / f"{added.job}{ending}").unlink(missing_ok=True)
        stage_path(directory, stage.number).unlink()


def advance(sweep: Sweep, compose: Compose) -> str:
    """Write the next stage where the last one is over. ADDED: there are new jobs. WAITING: jobs are still at work. OVER: no
    job will come any more. `compose` resolves a trial that nobody has drawn before."""
    directory = sweep.directory
    stages = read_stages(directory)
    over = job_numbers(directory, ".json")
    if not stages or stages[-1].role == FINAL:
        return OVER
    if any(added.job not in over for added in stages[-1].added):
        return WAITING
    search = read_search(directory)
    studies = states(directory, search, stages)
    stage = next_stage(
        search, studies, stages[-1].number + 1, stages[-1].jobs, lambda *new: write_trial(directory, compose, *new)
    )
    jobs = [trial_run(directory, search, added) for added in stage.added]
    for job in jobs:
        write_bytes_atomic(directory / JOBS / f"{job.number}.yaml", job_file(job))
    if not stage_path(directory, stage.number).exists():
        write_stage(directory, stage)
        append_index(directory, pending(stage, jobs, sweep.flags))
    if stage.role == FINAL:
        _drop_resume_points(studies)
    return ADDED if stage.added else OVER


def _drop_resume_points(studies: Sequence[Study]) -> None:
    """No rung is to come: what the last ones of the trials that ended early left for it is of no use."""
    from unipet.training.resume_point import discard

    for study in studies:
        for trial in study.trials:
            for done in (each for runs in trial.runs.values() for each in runs.values()):
                if done.record.status == "ok" and done.directory is not None:
                    discard(done.directory)


def next_stage(
    search: Search, studies: Sequence[Study], number: int, jobs: int, draw: Callable[[int, int, Choice], None]
) -> Stage:
    """What comes after the outcomes that `studies` hold: trials, or when no study wants more of them the final runs.

    `jobs` is how many there are already; `draw` is called for every trial that is new.
    """
    strategy, stage = STRATEGIES[search.config.name], Stage(number)
    for study in studies:
        asked = strategy.ask(study)
        stage.verdicts += asked.verdicts
        for choice in asked.new:
            draw(study.number, len(study.trials), choice)
            study.trials.append(Trial(len(study.trials), choice))
        stage.added += [_added(study.number, run, seed) for run in asked.runs for seed in search.config.seeds]
    if not stage.added:
        stage.role = FINAL
        chosen = [verdict for study in studies for verdict in choose(study)]
        stage.verdicts += chosen
        stage.added = [
            Added(0, verdict.study, verdict.trial, seed, FINAL)
            for verdict in chosen
            for seed in search.config.final_seeds
        ]
    stage.added = [replace(added, job=jobs + at) for at, added in enumerate(stage.added)]
    stage.jobs = jobs + len(stage.added)
    return stage


def _added(study: int, run: Run, seed: int) -> Added:
    return Added(0, study, run.trial, seed, TRIAL, run.until, run.after)


def states(directory: Path, search: Search, stages: Sequence[Stage]) -> list[Study]:
    """Every study with what is known of its trials."""
    studies = [
        Study(
            number,
            text.label,
            [Trial(at, choice) for at, choice in enumerate(text.known)],
            search.config,
            text.space,
        )
        for number, text in enumerate(search.studies)
    ]
    for stage in stages:
        for added in stage.added:
            trials = studies[added.study].trials
            while len(trials) <= added.trial:
                trials.append(Trial(len(trials), read_choice(directory, added.study, len(trials), search)))
            if added.role == TRIAL and (done := outcome(directory, added.job)) is not None:
                trials[added.trial].runs.setdefault(added.until, {})[added.seed] = done
        for verdict in stage.verdicts:
            studies[verdict.study].stopped.add(verdict.trial)
    return studies


def outcome(directory: Path, number: int) -> Done | None:
    """How a job ended; None where it has not."""
    path = directory / JOBS / f"{number}.json"
    if not path.is_file():
        return None
    state = read_outcome(path)
    if state.run_dir is None:
        return Done(state.record or Record(status=state.status), None)
    run = directory / state.run_dir
    try:
        return Done(read_record(run / RESULT), run)
    except UnipetError:
        return Done(Record(status="failed"), None)


def read_choice(directory: Path, study: int, trial: int, search: Search) -> Choice:
    """What was chosen for a trial that was not drawn beforehand, from its file: the last value of every searched key."""
    said = {
        key: text
        for key, _, text in (
            each.partition("=") for each in read_job_file(trial_path(directory, study, trial)).differing
        )
    }
    return tuple(_value(said[each.key], bool(each.texts), each.whole) for each in search.studies[study].space.keys)


def _value(text: str, is_text: bool, whole: bool) -> float | int | str:
    return text if is_text else int(text) if whole else float(text)


def write_trial(directory: Path, compose: Compose, study: int, trial: int, choice: Choice) -> None:
    """The file of a trial that is new; one that is there stays."""
    path = trial_path(directory, study, trial)
    if not path.is_file():
        write_bytes_atomic(path, job_file(compose(study, trial, choice)))


def trial_run(directory: Path, search: Search, added: Added) -> Job:
    """A job of a stage, from the file of its trial."""
    return run_of(read_job_file(trial_path(directory, added.study, added.trial)), search, added)


def run_of(trial: Job, search: Search, added: Added) -> Job:
    """A run of a trial, as a job."""
    config, scored_on = search.config, "evaluation" if added.role == FINAL else "selection"
    node: dict[str, Any] = {
        "scored_on": scored_on,
        "until": added.until,
        "after": added.after,
        "role": added.role,
        "search": config.name,
        "study": search.studies[added.study].label,
        "number": added.trial,
        "trials": config.trials if config.trials is not None else len(search.studies[added.study].known),
        "seeds": len(config.seeds),
        "budget": config.budget,
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
        )
        for job, added in zip(jobs, stage.added, strict=True)
    ]
