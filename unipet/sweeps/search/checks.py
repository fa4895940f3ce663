"""What a search needs before anything runs: a strategy, a space, seeds that are kept apart, and three splits."""

from __future__ import annotations

from collections.abc import Sequence

from unipet.compose.overrides import Plan
from unipet.config import RunConfig, SearchConfig
from unipet.errors import UnipetError, unknown
from unipet.sweeps.search.strategies import STRATEGIES
from unipet.sweeps.search.study import SCORE

NONE = "none"
_FOR_ALL = ("name", "space", "space_of", "seed", "seeds", "final_seeds", "objectives")


def searches(config: RunConfig) -> bool:
    """Whether a search decides which jobs come next."""
    return config.search.name != NONE


def check_search(todo: Plan) -> None:
    """Raise `UnipetError` for a search that cannot be made, or that would choose by what it reports."""
    search = todo.config.search
    if search.name not in (NONE, *STRATEGIES):
        raise unknown("search.name", search.name, (NONE, *STRATEGIES))
    if search.name == NONE:
        return
    if todo.launcher != "basic" or todo.jobs is None:
        raise UnipetError(
            f"search={search.name}: launchers and sweepers of Hydra's own decide by themselves what runs. Leave hydra/launcher "
            "and hydra/sweeper out; launcher=local|slots|slurm|ray runs a search."
        )
    if not todo.space and not todo.space_of:
        raise UnipetError(
            f"search={search.name}: nothing to search. Give a key its values: 'optim.lr=tag(log,interval(1e-4,1e-2))', "
            "optim.lr=choice(1e-4,1e-3), or search.space. A comma list alone says what is compared."
        )
    if "seed" in {each.key for each in (*todo.brought, *todo.parsed)}:
        raise UnipetError(
            f"seed: search={search.name} gives every run its seed. Set search.seeds for trials, and "
            "search.final_seeds for what is reported."
        )
    _check_seeds(search)
    _check_options(search)
    _check_splits(todo.config)
    STRATEGIES[search.name].check(todo.config)


def _check_seeds(search: SearchConfig) -> None:
    for name, seeds in (("search.seeds", search.seeds), ("search.final_seeds", search.final_seeds)):
        if not seeds or len(set(seeds)) < len(seeds):
            raise UnipetError(f"{name}: {_listed(seeds)} given; allowed: one or more different seeds, such as [0,1].")
    if both := sorted(set(search.seeds) & set(search.final_seeds)):
        raise UnipetError(
            f"search.final_seeds: {both[0]} is among search.seeds, too. A trial that was lucky with a seed would be "
            "reported with it; give the final runs seeds of their own."
        )
    if search.objectives[:1] != [SCORE] or len(set(search.objectives)) < len(search.objectives):
        raise UnipetError(
            f"search.objectives: {_listed(search.objectives)} given; allowed: score, then costs, each once."
        )


def _check_options(search: SearchConfig) -> None:
    """Raise `UnipetError` for an option that is set and that the strategy does not read."""
    usual, own = vars(SearchConfig()), STRATEGIES[search.name].options
    for key, value in vars(search).items():
        if value != usual[key] and key not in (*_FOR_ALL, *own):
            readers = [name for name, strategy in STRATEGIES.items() if key in strategy.options]
            raise UnipetError(
                f"search.{key}: {value!r} given, and search={search.name} does not read it. These do: {', '.join(readers)}."
            )


def _check_splits(config: RunConfig) -> None:
    from unipet.tasks.evaluation_sets import reported_split

    task = config.task
    if task.selection == "none":
        raise UnipetError(
            f"search={config.search.name}: task.selection=none holds no examples out, so trials could only be chosen by "
            "the scores that are reported. Use task.selection=train_holdout, or validation with another task.selection_split."
        )
    if task.selection == "validation" and task.selection_split == reported_split(task):
        raise UnipetError(
            f"search={config.search.name}: task.selection_split and task.evaluation_split are both {reported_split(task)!r}. "
            "Trials are chosen on the one and reported on the other: use task.selection=train_holdout, or another split."
        )


def _listed(values: Sequence[object]) -> str:
    return f"[{','.join(map(str, values))}]"
