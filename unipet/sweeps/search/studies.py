"""The studies of a search: what each of them compares, its space, and the trials that are drawn beforehand."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

from unipet.calculus.yaml_reader import text_of
from unipet.compose.composer import Composer
from unipet.compose.expand import SweepJob, combinations, composed_job
from unipet.compose.overrides import Plan
from unipet.compose.search_space import SearchedKey, SearchSpace
from unipet.config import RunConfig, SearchConfig
from unipet.errors import UnipetError, unknown
from unipet.sweeps.search.candidates import Candidates, Key, every_choice
from unipet.sweeps.search.description import StudyText
from unipet.sweeps.search.draws import Choice
from unipet.sweeps.search.judging import EACH_LAYER, IMPOSSIBLE, Judge, Refused
from unipet.sweeps.search.strategies import STRATEGIES, trials_known


def described(todo: Plan, composing: Composer, config: SearchConfig) -> list[StudyText]:
    """The studies of a command line with their spaces, and the trials that `config` draws beforehand.

    Raises `UnipetError` for a space of a method that is not compared, and where too few points of a space can run.
    """
    studies, compared, judge = list[StudyText](), dict[str, None](), Judge()
    for chosen, differing in combinations(todo):
        method = str(text_of(composing.values(chosen, 0)["method"]["name"]))
        compared[method] = None
        space = SearchSpace(todo.space, todo.space_of.get(method, ()))
        designed = any(key.key.startswith("method.") for key in space.keys)
        text = StudyText(list(differing), list(chosen), space, [], designed)
        if any(EACH_LAYER in key.texts for key in space.keys):
            text = replace(text, space=_with_layers(text, composing, judge))
        try:
            studies.append(_with_trials(text, config, composing, judge))
            if designed and STRATEGIES[config.name].modelled:
                studies.append(_with_trials(replace(text, beside=True), config, composing, judge))
        except UnipetError as error:
            raise UnipetError(f"{error} (method {method})" if todo.space_of else f"{error}") from None
    if (other := next((name for name in todo.space_of if name not in compared), None)) is not None:
        raise unknown("search.space_of", other, compared)
    return studies


def _with_trials(text: StudyText, config: SearchConfig, composing: Composer, judge: Judge) -> StudyText:
    def composed(choice: Choice) -> RunConfig:
        made = trial_of(text, 0, choice, composing)
        if made.config is None:
            raise UnipetError(f"{made.mistake}")
        return made.config

    candidates = Candidates(judged(composed, judge) if text.designed else every_choice)
    known = trials_known(text.space, config, candidates, text.beside)
    return replace(text, known=known, discarded=candidates.discarded)


def judged(composed: Callable[[Choice], RunConfig], judge: Judge) -> Key:
    """The key of a choice by what it composes."""

    def key(choice: Choice) -> str:
        try:
            config = composed(choice)
        except UnipetError as error:
            raise Refused(IMPOSSIBLE, str(error)) from None
        return judge.key(config)

    return key


def _with_layers(text: StudyText, composing: Composer, judge: Judge) -> SearchSpace:
    """The space with the layers of the base model in the place of `each_layer`. Raises `UnipetError` where it has none."""
    made = composed_job(0, text.overrides, [], [], composing)
    if made.config is None:
        raise UnipetError(f"{made.mistake}")
    numbers = tuple(map(str, range(judge.layers(made.config))))

    def each(keys: Sequence[SearchedKey]) -> list[SearchedKey]:
        return [
            replace(key, texts=tuple(name for one in key.texts for name in (numbers if one == EACH_LAYER else (one,))))
            for key in keys
        ]

    return SearchSpace(each(text.space.common), each(text.space.own))


def chosen_overrides(space: SearchSpace, choice: Choice) -> list[str]:
    """A choice as overrides."""
    return [key.override(value) for key, value in zip(space.keys, choice, strict=True)]


def trial_of(text: StudyText, number: int, choice: Choice, composing: Composer) -> SweepJob:
    """A trial of a study, with the seed that its configuration has by default."""
    own = chosen_overrides(text.space, choice)
    return composed_job(number, [*text.overrides, *own], text.differing, own, composing)
