"""The searches: one table. Each says which trials there are at the beginning, and what comes next in a study."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from unipet.compose.search_space import SearchSpace
from unipet.config import RunConfig, SearchConfig
from unipet.errors import UnipetError
from unipet.sweeps.search.candidates import Candidates, every_choice
from unipet.sweeps.search.draws import Choice, all_choices, draws, random_choices
from unipet.sweeps.search.optuna_study import check_optuna, propose
from unipet.sweeps.search.rungs import check_race, halving, racing
from unipet.sweeps.search.study import SCORE, Asked, Run, Study


@dataclass(frozen=True)
class Strategy:
    """`draw` gives the trials of a space that are known before any has run, or of a design space the candidates, as many as are
    wanted (all: None); `ask` says what comes next."""

    draw: Callable[[SearchSpace, SearchConfig, Candidates], list[Choice]]
    ask: Callable[[Study], Asked]
    options: tuple[str, ...] = ()  # of `SearchConfig`, which it reads besides those that all read
    several_objectives: bool = False
    check: Callable[[RunConfig], None] = lambda config: None  # raises `UnipetError` where it cannot be used
    modelled: bool = False  # its trials follow from outcomes: in a design space random search runs beside it


def grid(space: SearchSpace, search: SearchConfig, candidates: Candidates) -> list[Choice]:
    """Every combination. Raises `UnipetError` where there are more than `search.trials`."""
    choices = candidates.first(all_choices(space.keys), None)
    if search.trials is not None and len(choices) > search.trials:
        raise UnipetError(
            f"search=grid: the space has {len(choices)} combinations, search.trials={search.trials} allows fewer. List fewer "
            "values, or use search=random."
        )
    return choices


def at_random(space: SearchSpace, search: SearchConfig, candidates: Candidates) -> list[Choice]:
    """`search.trials` draws."""
    return _drawn(space, trials_of(search), search.seed, candidates)


def at_start(space: SearchSpace, search: SearchConfig, candidates: Candidates) -> list[Choice]:
    """The first `search.startup` of the draws of search=random."""
    return _drawn(space, min(search.startup, trials_of(search)), search.seed, candidates)


def beside(space: SearchSpace, search: SearchConfig, candidates: Candidates) -> list[Choice]:
    """`search.trials` draws that are none of those with which the search beside it starts."""
    return _drawn(space, trials_of(search), f"beside {search.seed}", candidates)


def _drawn(space: SearchSpace, trials: int, seed: int | str, candidates: Candidates) -> list[Choice]:
    if candidates.key is every_choice:
        return random_choices(space, trials, seed)
    return candidates.first(draws(space, seed), trials)


def trials_of(search: SearchConfig) -> int:
    """`search.trials`. Raises `UnipetError` without."""
    if search.trials is None:
        raise UnipetError(f"search={search.name}: how many trials each study gets is not said. Set search.trials=N.")
    return search.trials


def in_batches(study: Study) -> Asked:
    """The next trials in the order of their numbers, while the budget lasts; with a budget one at a time, or `search.batch`."""
    search, waiting = study.search, [trial.number for trial in study.trials if not trial.runs]
    if not study.budget_left():
        return Asked()
    size = search.batch or (len(waiting) if search.budget is None else 1)
    return Asked([Run(number) for number in waiting[:size]])


STRATEGIES: dict[str, Strategy] = {
    "grid": Strategy(grid, in_batches, ("trials", "budget", "batch"), True),
    "random": Strategy(at_random, in_batches, ("trials", "budget", "batch"), True),
    "halving": Strategy(at_random, halving, ("trials", "rungs", "eta")),
    "racing": Strategy(at_random, racing, ("trials", "rungs", "eta", "confidence"), check=check_race),
    "optuna": Strategy(
        at_start, propose, ("trials", "budget", "batch", "sampler", "startup"), True, check=check_optuna, modelled=True
    ),
}
#: Random search at the effort of the search beside it.
BESIDE = Strategy(beside, in_batches, ("trials", "budget", "batch"), True)


def strategy_of(search: SearchConfig, is_beside: bool) -> Strategy:
    """What decides over the trials of a study."""
    return BESIDE if is_beside else STRATEGIES[search.name]


def trials_known(
    space: SearchSpace, search: SearchConfig, candidates: Candidates | None = None, is_beside: bool = False
) -> list[Choice]:
    """The trials of a study that are known beforehand. Raises `UnipetError` for options that do not go together."""
    strategy = strategy_of(search, is_beside)
    if search.objectives != [SCORE] and not strategy.several_objectives:
        raise UnipetError(
            f"search={search.name}: it compares scores alone. Leave search.objectives out, or use search=random."
        )
    return strategy.draw(space, search, candidates or Candidates())
