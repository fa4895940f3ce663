"""A search as a command line asks for it: its studies, their trials composed, and its first stage."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from unipet.compose.composer import Composer, composer
from unipet.compose.expand import SweepJob, combinations, composed_job
from unipet.compose.overrides import Plan
from unipet.errors import UnipetError
from unipet.runs.sweep_files import JobState
from unipet.sweeps.directory import Sweep
from unipet.sweeps.job_files import Job, job_file
from unipet.sweeps.search.advancing import Compose, next_stage, pending, run_of
from unipet.sweeps.search.description import Search, StudyText, read_search
from unipet.sweeps.search.draws import Choice
from unipet.sweeps.search.stage_files import SEARCH, Stage, json_bytes, stage_path, trial_path
from unipet.sweeps.search.strategies import trials_known
from unipet.sweeps.search.study import Study, Trial


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
    known = trials_known(todo.space, todo.config.search)
    studies = [StudyText(list(differing), list(chosen)) for chosen, differing in combinations(todo)]
    search = Search(todo.config.search, todo.space, studies, known)
    trials: dict[tuple[int, int], Job] = {}

    def draw(study: int, number: int, choice: Choice) -> None:
        trials[study, number] = _trial(search, study, number, choice, composing)

    states = []
    for number, text in enumerate(studies):
        for trial, choice in enumerate(known):
            draw(number, trial, choice)
        own = [trials[number, trial] for trial in range(len(known))]
        if own and all(job.mistake is not None for job in own):
            raise UnipetError(f"{own[0].mistake}")
        states.append(
            Study(number, text.label, [Trial(at, each) for at, each in enumerate(known)], search.config, search.space)
        )
    stage = next_stage(search, states, 0, 0, draw)
    jobs = [run_of(trials[added.study, added.trial], search, added) for added in stage.added]
    return Begun(search, trials, stage, jobs)


def _trial(search: Search, study: int, number: int, choice: Choice, composing: Composer) -> Job:
    """The job of a trial, with the seed that its configuration has by default."""
    text = search.studies[study]
    own = [dimension.override(value) for dimension, value in zip(search.space, choice, strict=True)]
    made: SweepJob = composed_job(number, [*text.overrides, *own], text.differing, own, composing)
    return Job(number, made.overrides, made.differing, made.values, made.mistake)


def composing_in(sweep: Sweep) -> Compose:
    """How a worker composes a trial: like the sweep's command, whose files must be as they were."""

    def compose(study: int, number: int, choice: Choice) -> Job:
        search = read_search(sweep.directory)
        with composer(sweep.config_dir) as composing:
            return _trial(search, study, number, choice, composing)

    return compose
