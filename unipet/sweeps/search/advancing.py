"""From one stage of a search to the next: what has ended, what the strategy asks for, and the jobs that come of it.

Any worker may do it. All that decides lies in the sweep's directory, so two that do it at once write the same files.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from unipet.config import RunConfig, SearchConfig
from unipet.errors import UnipetError
from unipet.output.files import write_bytes_atomic
from unipet.runs.record import Record
from unipet.runs.record_files import RESULT, read_record
from unipet.runs.sweep_files import JOBS, append_index, job_numbers, read_outcome
from unipet.sweeps.directory import Sweep
from unipet.sweeps.job_files import Job, job_config, job_file, read_job_file
from unipet.sweeps.search.candidates import Candidates
from unipet.sweeps.search.choosing import choose
from unipet.sweeps.search.description import Search, StudyText, read_search
from unipet.sweeps.search.draws import Choice
from unipet.sweeps.search.judging import Judge
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
from unipet.sweeps.search.strategies import strategy_of
from unipet.sweeps.search.studies import judged
from unipet.sweeps.search.study import Done, Run, Study, Trial
from unipet.sweeps.search.trial_jobs import pending, trial_run

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
    for study in studies:
        if search.studies[study.number].designed and strategy_of(search.config, study.beside).modelled:
            study.candidates = candidates(directory, study, compose)
    stage = next_stage(
        search, studies, stages[-1].number + 1, stages[-1].jobs, lambda *new: write_trial(directory, compose, *new)
    )
    further = {study.number: _discarded([*stages, stage], study.number) for study in studies}
    jobs = [trial_run(directory, search, added, further[added.study]) for added in stage.added]
    for job in jobs:
        write_bytes_atomic(directory / JOBS / f"{job.number}.yaml", job_file(job))
    if not stage_path(directory, stage.number).exists():
        write_stage(directory, stage)
        append_index(directory, pending(stage, jobs, sweep.flags))
    if stage.role == FINAL:
        _drop_resume_points(studies)
    return ADDED if stage.added else OVER


def _discarded(stages: Sequence[Stage], study: int) -> int:
    """How many proposals of a study did not become trials."""
    return sum(stage.discarded[str(study)].total for stage in stages if str(study) in stage.discarded)


def candidates(directory: Path, study: Study, compose: Compose) -> Candidates:
    """What may become a further trial of a study: none that cannot run, and none that is the same as one of its trials."""
    judge = Judge()

    def composed(choice: Choice) -> RunConfig:
        return job_config(compose(study.number, len(study.trials), choice))

    key = judged(composed, judge)
    known = {
        judge.key(job_config(read_job_file(trial_path(directory, study.number, trial.number)))): trial.choice
        for trial in study.trials
    }
    return Candidates(key, known)


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
    stage = Stage(number)
    for study in studies:
        asked = strategy_of(search.config, study.beside).ask(study)
        if study.candidates.discarded.total:
            stage.discarded[str(study.number)] = study.candidates.discarded
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
    studies = [study_of(number, text, search.config) for number, text in enumerate(search.studies)]
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


def study_of(number: int, text: StudyText, config: SearchConfig) -> Study:
    """A study of which nothing has run yet."""
    trials = [Trial(at, choice) for at, choice in enumerate(text.known)]
    return Study(number, text.label, trials, config, text.space, beside=text.beside)


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
