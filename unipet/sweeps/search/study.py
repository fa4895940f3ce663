"""A study as a strategy sees it: the trials that began, and what is known of each from the records of its runs."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import mean

from unipet.compose.search_space import SearchSpace
from unipet.config import SearchConfig
from unipet.runs.record import Record
from unipet.sweeps.search.candidates import Candidates
from unipet.sweeps.search.draws import Choice
from unipet.sweeps.search.stage_files import Verdict

#: Objectives besides the score -> what of a record they are. Less of them is better.
COSTS: dict[str, Callable[[Record], float | None]] = {
    "params": lambda record: record.params.trainable,
    "merged": lambda record: record.params.merged,
    "memory": lambda record: record.memory.peak_gib,
    "predicted_memory": lambda record: record.memory.predicted_gib,
    "time": lambda record: record.time.train_s,
}
SCORE = "score"


@dataclass(frozen=True)
class Done:
    """A run of a trial that has ended."""

    record: Record
    directory: Path | None


@dataclass
class Trial:
    """One choice from the space, and its runs by the share of the training and by seed."""

    number: int
    choice: Choice
    runs: dict[float, dict[int, Done]] = field(default_factory=dict)

    def score(self, until: float, seeds: Sequence[int]) -> float | None:
        """The mean over the seeds, turned so that more is better; None where a run is without a score."""
        records = self._records(until, seeds)
        if any(record.status != "ok" or record.score is None for record in records) or not records:
            return None
        sign = 1.0 if records[0].data.scoring.higher_is_better else -1.0
        return sign * mean(record.score for record in records if record.score is not None)

    def objective(self, name: str, seeds: Sequence[int]) -> float | None:
        """Of the whole training, turned so that more is better; None where it is not known of every seed."""
        if name == SCORE:
            return self.score(1.0, seeds)
        records = self._records(1.0, seeds)
        costs = [COSTS[name](record) for record in records if record.status == "ok"]
        known = [cost for cost in costs if cost is not None]
        return -mean(known) if len(known) == len(seeds) else None

    def _records(self, until: float, seeds: Sequence[int]) -> list[Record]:
        runs = self.runs.get(until, {})
        return [runs[seed].record for seed in seeds if seed in runs] if len(runs) >= len(seeds) else []

    def spent(self, of: Callable[[Record], float | None]) -> float:
        """Of every seed the most: a rung counts what the rungs before have spent."""
        most: dict[int, float] = {}
        for runs in self.runs.values():
            for seed, done in runs.items():
                most[seed] = max(most.get(seed, 0.0), of(done.record) or 0.0)
        return sum(most.values())


@dataclass
class Study:
    """What the trials of one combination of the compared values have in common, and how far they are."""

    number: int
    label: str
    trials: list[Trial]  # those that began or may begin, in the order of their numbers
    search: SearchConfig
    space: SearchSpace
    stopped: set[int] = field(default_factory=set)  # trials of which a stage decided that they go on no further
    beside: bool = False  # random search at the effort of the search of the same label
    candidates: Candidates = field(default_factory=Candidates)  # what may become a further trial

    @property
    def begun(self) -> list[Trial]:
        """The trials with a run that has ended."""
        return [trial for trial in self.trials if trial.runs]

    def budget_left(self) -> bool:
        """Whether its trials have spent less than `search.budget`."""
        if self.search.budget is None:
            return True
        number, unit = re.fullmatch(r"([\d.]+) ?(\w+?)s?", self.search.budget).groups()  # type: ignore[union-attr]
        of: Callable[[Record], float | None] = (
            (lambda record: record.time.steps) if unit == "step" else (lambda record: record.time.device_hours)
        )
        return sum(trial.spent(of) for trial in self.trials) < float(number)


@dataclass(frozen=True)
class Run:
    """A run that a strategy asks for: a trial, from one share of its training to another, with every seed."""

    trial: int
    until: float = 1.0
    after: float = 0.0


@dataclass
class Asked:
    """What comes next in a study: nothing, when its trials are over."""

    runs: list[Run] = field(default_factory=list)
    new: list[Choice] = field(default_factory=list)  # further trials, numbered from the last one on
    verdicts: list[Verdict] = field(default_factory=list)
