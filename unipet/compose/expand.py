"""The jobs of a command line as configurations, in the order in which Hydra's basic sweeper runs them; nothing runs."""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from unipet.compose.composer import Composer
from unipet.compose.override import Override, shown
from unipet.compose.overrides import Plan, checked
from unipet.config import RunConfig
from unipet.errors import UnipetError


@dataclass(frozen=True)
class SweepJob:
    """One job: its overrides, its configuration or the mistake in it, and how long composing took."""

    number: int
    overrides: list[str]  # all of them, as one would type them
    differing: list[str]  # those that tell it from the other jobs
    values: Mapping[str, Any]  # as composed, nothing checked; empty where that failed
    config: RunConfig | None
    mistake: str | None
    compose_s: float


def sweep_jobs(todo: Plan, composer: Composer) -> Iterator[SweepJob]:
    """Every job of `todo`. A mistake that takes the values of several keys, or that stands in a method, is its job's.

    Raises `UnipetError` for a mistake in any other single value, and for a sweeper whose jobs depend on results.
    """
    if todo.jobs is None:
        raise UnipetError(
            "The jobs of this sweeper depend on the results of others, so they are not known beforehand. "
            "Leave out hydra/sweeper, or list the values: KEY=a,b,c."
        )
    last = _last(todo)
    for number, (chosen, differing) in enumerate(combinations(todo)):
        further = [each for each, text in zip(last.values(), chosen, strict=True) if text != each.first]
        single = len(further) == 1 and not further[0].key.startswith("method.")
        job = _job(number, chosen, differing, composer)
        if job.mistake is not None and single:
            raise UnipetError(job.mistake)
        yield job


def combinations(todo: Plan) -> Iterator[tuple[tuple[str, ...], list[str]]]:
    """Every combination of the listed values as overrides, with those of them that tell it from the others."""
    last = _last(todo)
    for chosen in itertools.product(*(each.values or (each.text,) for each in last.values())):
        yield chosen, _differing(chosen, last)


def _last(todo: Plan) -> dict[str, Override]:
    return {_target(each): each for each in [*todo.brought, *todo.parsed]}


def composed_job(
    number: int, overrides: Sequence[str], differing: Sequence[str], own: Sequence[str], composer: Composer
) -> SweepJob:
    """A trial of a search: `differing` tells its study from others, `own` are the overrides that it chose."""
    return _job(number, overrides, [*differing, *map(shown, own)], composer)


def _job(number: int, chosen: Sequence[str], differing: list[str], composer: Composer) -> SweepJob:
    started = time.perf_counter()
    values: Mapping[str, Any] = {}
    config, mistake = None, None
    try:
        values = composer.values(chosen, number)
        config = checked(values, chosen, composer)
    except UnipetError as error:
        mistake = str(error)
    overrides = [shown(text) for text in chosen]
    return SweepJob(number, overrides, differing, values, config, mistake, time.perf_counter() - started)


def _differing(chosen: Sequence[str], last: Mapping[str, Override]) -> list[str]:
    swept = {target for target, each in last.items() if len(each.values) > 1}
    return [shown(text) for text in chosen if text.split("=", 1)[0] in swept]


def _target(override: Override) -> str:
    """What an override sets, as it is spelled for Hydra: a later one of the same spelling takes its place."""
    return override.text.split("=", 1)[0]
