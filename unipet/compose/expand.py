"""The jobs of a command line as configurations, in the order in which Hydra's basic sweeper runs them; nothing runs."""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from unipet.compose.composer import Composer, plain_values
from unipet.compose.override import Override, shown
from unipet.compose.overrides import Plan, parse_all
from unipet.compose.parse_run_config import configured
from unipet.config import RunConfig
from unipet.errors import UnipetError


@dataclass(frozen=True)
class SweepJob:
    """One job: the overrides that differ, its configuration or the mistake in it, and how long composing took."""

    number: int
    overrides: list[str]
    config: RunConfig | None
    mistake: str | None
    compose_s: float


def sweep_jobs(todo: Plan, texts: Sequence[str], composer: Composer) -> Iterator[SweepJob]:
    """Every job of `todo`, which `plan` made of `texts`. Raises UnipetError for a sweeper whose jobs depend on results."""
    if todo.jobs is None:
        raise UnipetError(
            "unipet plan: the jobs of this sweeper depend on the results of others, so they are not known beforehand. "
            "Leave out hydra/sweeper, or list the values: KEY=a,b,c."
        )
    given = {_target(one): one for one in [*todo.brought, *parse_all(texts, composer)]}
    choices = [one.values or (one.text,) for one in given.values()]
    swept = {_target(one) for one in given.values() if len(one.values) > 1}
    for number, chosen in enumerate(itertools.product(*choices)):
        differing = [shown(text) for text in chosen if text.split("=", 1)[0] in swept]
        started = time.perf_counter()
        try:
            config, mistake = configured(plain_values(composer.compose(list(chosen)))), None
        except UnipetError as error:  # one job's mistake, as in the sweep itself
            config, mistake = None, str(error)
        yield SweepJob(number, differing, config, mistake, time.perf_counter() - started)


def _target(one: Override) -> str:
    """What an override sets, as it is spelled for Hydra: a later one of the same spelling takes its place."""
    return one.text.split("=", 1)[0]
