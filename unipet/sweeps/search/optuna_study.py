"""`search=optuna`: Optuna proposes the trials of a study, from the records of those that have ended.

The sweep's directory is the storage: at every stage the study is told anew from the records, with a sampler whose seed follows
from the search's seed and the number of trials. So a search that was killed goes on with the trials of an undisturbed one.
"""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from unipet.compose.search_space import SearchedKey
from unipet.config import RunConfig, SearchConfig
from unipet.errors import UnipetError
from unipet.sweeps.search.candidates import TRIED
from unipet.sweeps.search.draws import Choice, count, draws, listed, rounded
from unipet.sweeps.search.study import Asked, Run, Study

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution
    from optuna.samplers import BaseSampler
    from optuna.trial import FrozenTrial

TRIES = 20  # for a proposal that is no trial yet
EMPTY = "[]"  # a subset of nothing


def check_optuna(config: RunConfig) -> None:
    """Raise `UnipetError` where Optuna is not installed, or where the sampler cannot do what is asked."""
    try:
        import optuna  # noqa: F401
    except ImportError:
        raise UnipetError("search=optuna needs Optuna. Install it: pip install 'unipet[optuna]'.") from None


def propose(study: Study) -> Asked:
    """The next trials: those that were drawn at the start, then batches of proposals while trials and budget last."""
    search, waiting = study.search, [trial.number for trial in study.trials if not trial.runs]
    if not study.budget_left():
        return Asked()
    size = search.batch or 1
    if waiting:
        return Asked([Run(number) for number in waiting[:size]])
    size = min(
        size, (search.trials or 0) - len(study.trials), int(min(count(study.space.keys), 1e9)) - len(study.trials)
    )
    if size <= 0:
        return Asked()
    if not (new := proposals(study, size)):
        return Asked()
    return Asked([Run(len(study.trials) + at) for at in range(len(new))], new)


def proposals(study: Study, size: int) -> list[Choice]:
    """`size` choices that are no trial yet."""
    import optuna

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    search, keys = study.search, study.space.keys
    distributions = {name: each for key in keys for name, each in distribution(key).items()}
    sampler = _sampler(search, len(study.trials))
    told = optuna.create_study(directions=["maximize"] * len(search.objectives), sampler=sampler)
    told.add_trials(_frozen(study, trial.number, distributions) for trial in study.trials)
    seen, new = {trial.choice for trial in study.trials}, list[Choice]()
    drawn = itertools.islice(draws(study.space, search.seed), TRIED * (search.trials or 1))
    while len(new) < size:  # where it insists on what is known, or on what cannot run: a draw at random
        for choice in itertools.chain(_asked(told, keys, distributions), drawn):
            if choice is not None and choice not in seen:
                seen.add(choice)
                if study.candidates.takes(choice):
                    new.append(choice)
                    break
        else:
            return new  # nothing is left
    return new


def _asked(
    told: Any, space: Sequence[SearchedKey], distributions: dict[str, BaseDistribution]
) -> Iterator[Choice | None]:
    """Proposals; None for one with an empty subset."""
    for _ in range(TRIES):
        params = told.ask(distributions).params
        choice = tuple(_folded(each, params) if each.subset else _plain(each, params[each.key]) for each in space)
        yield None if EMPTY in choice else choice


def _folded(key: SearchedKey, params: Mapping[str, Any]) -> str:
    return listed([text for text in key.texts if params[f"{key.key} {text}"]])


def _unfolded(key: SearchedKey, value: float | int | str) -> dict[str, Any]:
    """A value as Optuna's parameters: of a subset one for each of its texts."""
    if not key.subset:
        return {key.key: value}
    chosen = str(value).strip("[]").split(",")
    return {f"{key.key} {text}": text in chosen for text in key.texts}


def _plain(key: SearchedKey, value: Any) -> float | int | str:
    if key.texts or key.whole:
        return str(value) if key.texts else int(value)
    return rounded(float(value), key.low, key.high)


def distribution(key: SearchedKey) -> dict[str, BaseDistribution]:
    """A searched key in Optuna's words, by name of its parameters."""
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

    if key.subset:
        return {f"{key.key} {text}": CategoricalDistribution((False, True)) for text in key.texts}
    if key.texts:
        return {key.key: CategoricalDistribution(key.texts)}
    if key.whole:
        return {key.key: IntDistribution(int(key.low), int(key.high), log=key.log)}
    return {key.key: FloatDistribution(key.low, key.high, log=key.log)}


def _frozen(study: Study, number: int, distributions: dict[str, BaseDistribution]) -> FrozenTrial:
    """A trial that has ended, as Optuna knows it; one without all of its values has failed."""
    from optuna.trial import TrialState, create_trial

    trial, search = study.trials[number], study.search
    values = [trial.objective(name, search.seeds) for name in search.objectives]
    known = [value for value in values if value is not None]
    return create_trial(
        state=TrialState.COMPLETE if len(known) == len(values) else TrialState.FAIL,
        values=known if len(known) == len(values) else None,
        params={
            name: each
            for key, value in zip(study.space.keys, trial.choice, strict=True)
            for name, each in _unfolded(key, value).items()
        },
        distributions=distributions,
        system_attrs={"NSGAIISampler:generation": number // population(search)},
    )


def population(search: SearchConfig) -> int:
    """How many trials are one generation of nsga2: as many as are drawn at the start, and at least two."""
    return max(search.startup, 2)


def _sampler(search: SearchConfig, trials: int) -> BaseSampler:
    from optuna.samplers import GPSampler, NSGAIISampler, TPESampler

    seed = int.from_bytes(hashlib.sha256(f"{search.seed} {trials}".encode()).digest()[:4])
    if search.sampler == "nsga2":
        return NSGAIISampler(population_size=population(search), seed=seed)
    if search.sampler == "gp":
        return GPSampler(seed=seed, n_startup_trials=search.startup, deterministic_objective=False)
    return TPESampler(
        seed=seed, n_startup_trials=search.startup, multivariate=len(search.objectives) > 1, constant_liar=True
    )
