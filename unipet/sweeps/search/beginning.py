"""A search as a command line asks for it: its studies, their trials composed, and its first stage."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from unipet.compose.composer import Composer, composer
from unipet.compose.expand import SweepJob
from unipet.compose.overrides import Plan
from unipet.config import TrialConfig
from unipet.errors import UnipetError
from unipet.runs.sweep_files import JobState
from unipet.sweeps.directory import Sweep
from unipet.sweeps.job_files import Job, job_file
from unipet.sweeps.search.advancing import Compose, next_stage, study_of
from unipet.sweeps.search.description import Search, read_search
from unipet.sweeps.search.draws import Choice
from unipet.sweeps.search.stage_files import SEARCH, Stage, json_bytes, stage_path, trial_path
from unipet.sweeps.search.studies import described, trial_of
from unipet.sweeps.search.trial_jobs import pending, run_of


@dataclass(frozen=True)
class Begun:
    """A search before anything runs."""

    search: Search
    trials: dict[tuple[int, int], Job]  # by study and number
    stage: Stage
    jobs: list[Job]

    def files(self) -> dict[str, bytes]:
        """What it adds to the sweep's directory, by relative path."""
        here = Path()
        files = {str(trial_path(here, *key)): job_file(job) for key, job in self.trials.items()}
        files |= {SEARCH: self.search.content(), str(stage_path(here, 0)): json_bytes(self.stage.to_dict())}
        return files

    def events(self, flags: list[str]) -> list[JobState]:
        """The first events of its jobs."""
        return pending(self.stage, self.jobs, flags)


def begin(todo: Plan, composing: Composer) -> Begun:
    """Raises `UnipetError` for a mistake that every trial of a study has."""
    studies = described(todo, composing, todo.config.search)
    search = Search(todo.config.search, studies)
    trials: dict[tuple[int, int], Job] = {}

    def draw(study: int, number: int, choice: Choice) -> None:
        trials[study, number] = _trial(search, study, number, choice, composing)

    states = []
    for number, text in enumerate(studies):
        for trial, choice in enumerate(text.known):
            draw(number, trial, choice)
        own = [trials[number, trial] for trial in range(len(text.known))]
        if own and all(job.mistake is not None for job in own):
            raise UnipetError(f"{own[0].mistake}")
        states.append(study_of(number, text, search.config))
    stage = next_stage(search, states, 0, 0, draw)
    jobs = [run_of(trials[added.study, added.trial], search, added) for added in stage.added]
    return Begun(search, trials, stage, jobs)


def _trial(search: Search, study: int, number: int, choice: Choice, composing: Composer) -> Job:
    """The job of a trial, with the seed that its configuration has by default."""
    made = trial_of(search.studies[study], number, choice, composing)
    return Job(number, made.overrides, made.differing, made.values, made.mistake)


def planned(todo: Plan, composing: Composer) -> Iterator[SweepJob]:
    """The jobs of a search as far as they can be told: all trials, as if they were drawn at random, and the final runs of one
    trial of each study. Nothing ends early."""
    config = todo.config.search
    number = itertools.count()
    for text in described(todo, composing, replace(config, name="random") if config.name == "optuna" else config):
        trials = [trial_of(text, 0, choice, composing) for choice in text.known]
        for trial in trials:
            for seed in config.seeds:
                yield _seeded(trial, next(number), seed, "selection")
        for seed in config.final_seeds:
            yield _seeded(trials[0], next(number), seed, "evaluation")


def _seeded(trial: SweepJob, number: int, seed: int, scored_on: str) -> SweepJob:
    config = trial.config
    if config is not None:
        config = replace(config, seed=seed, trial=TrialConfig(scored_on=scored_on))
    return replace(trial, number=number, differing=[*trial.differing, f"seed={seed}"], config=config)


def composing_in(sweep: Sweep) -> Compose:
    """How a worker composes a trial: like the sweep's command, whose files must be as they were."""

    def compose(study: int, number: int, choice: Choice) -> Job:
        search, first = read_search(sweep.directory), trial_path(sweep.directory, study, 0)
        with composer(sweep.config_dir) as composing:
            if job_file(_trial(search, study, 0, search.studies[study].known[0], composing)) != first.read_bytes():
                raise UnipetError(
                    f"{sweep.directory}: a configuration file has changed since the search began, so further trials would not be "
                    "of the same study. Undo the change, or give the command again for a search of its own."
                )
            return _trial(search, study, number, choice, composing)

    return compose
