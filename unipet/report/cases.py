"""What is compared key by key: every scored configuration with its settings, and pairs of them that differ in one thing alone."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import product
from typing import Any

from unipet.report.comparing import Group
from unipet.report.identity import FITTED, Block
from unipet.report.protocol import EFFORT
from unipet.report.scored import Scored
from unipet.runs.comparable import FREE

METHOD = "method."
TUNED = "optim."  # tuned for each method: what may differ between the two of a pair, and is named
#: Of an insertion, and of no result: what a budget divides by (the sizes tell what came of it), and which sites may be absent.
NO_RESULT = (".ratio", ".position.optional")
TUNING = "tuning effort"
BY_BUDGET = '"solved by the budget"'  # stands for such a size where another thing is compared

Level = tuple[tuple[str, str], ...]  # (part of the method, its value) of everything that a factor names


@dataclass(frozen=True, eq=False)
class Case:
    """One scored configuration: its scores, and its settings as texts (JSON) by dotted key, sizes as trained."""

    group: Group
    line: Scored
    values: Mapping[str, str]
    solved: frozenset[str] = frozenset()  # keys of sizes that a budget solved

    @property
    def place(self) -> tuple[str, str, str]:
        """Task, base model, budget."""
        return self.line.row.task, self.line.row.model, self.line.row.budget


@dataclass(frozen=True)
class Factor:
    """Something that runs differ in: how its level is read, and which keys say it.

    `own`: whether a key says the level, and therefore differs within a pair. `hangs`: whether an option belongs to the value, as
    the activation belongs to a bottleneck: it is compared only where both of a pair have it and where it varies at one level.
    """

    name: str
    level: Callable[[Case], Level | None]  # None: the factor does not speak of this case
    own: Callable[[str], bool]
    hangs: Callable[[str], bool] = lambda key: False
    dimension: str = ""  # of the design


@dataclass(frozen=True, eq=False)
class Match:
    """Two configurations that differ in one factor alone, the blocks that both have, and other settings that were tuned apart."""

    a: Case
    b: Case
    blocks: tuple[Block, ...]
    tuned: tuple[str, ...] = ()


@dataclass(frozen=True)
class Study:
    """The scored configurations, and the keys in which any two of them differ."""

    cases: tuple[Case, ...]
    strict: tuple[str, ...]  # keys that must agree within a pair
    loose: tuple[str, ...]  # keys that need not: tuned ones, and those that some records do not have
    keys: frozenset[str] = field(default_factory=frozenset)  # all keys, whether they vary or not

    @property
    def varying(self) -> tuple[str, ...]:
        return (*self.strict, *self.loose)


def study(groups: Sequence[Group], anyway: bool = False) -> Study:
    """The configurations of these groups. `anyway`: pairs may differ in how much training and tuning there was."""
    cases = tuple(_case(group, line) for group in groups for line in group.scored)
    everywhere = _everywhere(cases)
    keys = dict.fromkeys(key for case in cases for key in case.values)
    varying = [key for key in keys if len({case.values.get(key) for case in cases}) > 1]
    loose = [key for key in varying if (anyway if key in (TUNING, *EFFORT) else _is_loose(key, everywhere))]
    known = set(loose)
    return Study(cases, tuple(key for key in varying if key not in known), tuple(loose), frozenset(keys))


def _case(group: Group, line: Scored) -> Case:
    sizes = {key.removeprefix(FITTED): value for key, value in line.row.content.items() if key.startswith(FITTED)}
    content = {key: value for key, value in line.row.content.items() if not key.startswith(FITTED)} | sizes
    content[TUNING] = line.runs[0].record.trial.effort or "no search"
    return Case(group, line, {key: _text(value) for key, value in content.items()}, frozenset(sizes))


def _text(value: Any) -> str:
    return json.dumps(value, sort_keys=True, default=str)


def _everywhere(cases: Sequence[Case]) -> set[str]:
    if not cases:
        return set()
    return set.intersection(*(set(case.values) for case in cases))


def _is_loose(key: str, everywhere: set[str]) -> bool:
    if key.startswith(METHOD):
        return key == f"{METHOD}name" or key.endswith(NO_RESULT)
    return key.startswith((TUNED, FITTED)) or key in FREE or key not in everywhere


def matches(cases: Iterable[Case], known: Study, factor: Factor) -> dict[tuple[Level, Level], list[Match]]:
    """(level of a, level of b) -> all pairs of configurations that differ in `factor` alone; each pair once, in one order."""
    strict = [key for key in known.strict if not factor.own(key) and not factor.hangs(key)]
    options = [key for key in known.varying if factor.hangs(key) and not key.endswith(NO_RESULT)]
    alike: dict[tuple[object, ...], dict[Level, list[Case]]] = {}
    for case in cases:
        level = factor.level(case)
        if level is not None:
            rest = (*_place(case, factor), *(_rest(case, key) for key in strict))
            alike.setdefault(rest, {}).setdefault(level, []).append(case)
    found: dict[tuple[Level, Level], list[Match]] = {}
    loose = [key for key in known.loose if not factor.own(key) and not factor.hangs(key) and not key.startswith(METHOD)]
    for by_level in alike.values():
        levels = sorted(by_level, key=order)
        inside = [key for key in options if _varies(by_level.values(), key)]
        apart = [key for key in loose if _varies(by_level.values(), key)]
        for at, first in enumerate(levels):
            for second in levels[at + 1 :]:
                for a, b in _pairs(by_level[first], by_level[second], inside, apart):
                    blocks = tuple(sorted(a.line.scores.keys() & b.line.scores.keys()))
                    if blocks:
                        tuned = tuple(
                            key for key in loose if a.values.get(key) != b.values.get(key) and _told(a, b, key)
                        )
                        found.setdefault((first, second), []).append(Match(a, b, blocks, tuned))
    return found


def _place(case: Case, factor: Factor) -> list[str]:
    """What a factor leaves of task, base model and budget."""
    parts = zip(("task", "model", "budget"), case.place, strict=True)
    return [name for part, name in parts if not factor.own(f"{part}.name")]


def _rest(case: Case, key: str) -> str | None:
    return BY_BUDGET if key in case.solved else case.values.get(key)


def _varies(by_level: Iterable[Sequence[Case]], key: str) -> bool:
    """Whether the configurations of one level differ in it."""
    return any(len({_rest(case, key) for case in cases}) > 1 for cases in by_level)


def _told(a: Case, b: Case, key: str) -> bool:
    """Whether a difference is worth naming: names and ratios are not, nor what only one record has."""
    return key.startswith(TUNED) and key != f"{TUNED}name" and key in a.values and key in b.values


def _pairs(
    first: Sequence[Case], second: Sequence[Case], inside: Sequence[str], apart: Sequence[str]
) -> list[tuple[Case, Case]]:
    """The pairs of two levels. Where one configuration has several partners, only those with the same tuned settings count."""
    pairs = [
        (a, b)
        for a, b in product(first, second)
        if all(key not in a.values or key not in b.values or _rest(a, key) == _rest(b, key) for key in inside)
    ]
    if apart:
        pairs = [(a, b) for a, b in pairs if all(a.values.get(key) == b.values.get(key) for key in apart)]
    return pairs


def order(level: Level) -> tuple[Any, ...]:
    """Numbers by size, the rest by letters."""
    return tuple(_number(value) for _, value in level)


def _number(text: str) -> tuple[Any, ...]:
    try:
        return (0, float(text.strip('"')), text)
    except ValueError:
        return (1, 0.0, text)
