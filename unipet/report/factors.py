"""The factors of a study, found from its records: which choices of a method vary while all else stays the same.

A factor is a choice of one insertion (`method.insertions.ffn.position.form`), of several that always change together, an
insertion or a mixture that some runs have and others lack, or a part of a method outside of its insertions. Nothing asks that a
design is complete: a level is compared with another one wherever both were run with the same rest.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass

from unipet.report.cases import METHOD, Case, Factor, Level, Match, Study, matches, order
from unipet.runs.labels import option_names, plain

INSERTIONS = f"{METHOD}insertions."
NAME = ".name"
ABSENT, PRESENT = "absent", "present"
#: In the order in which a report names them.
DIMENSIONS = ("function", "size", "position", "composition", "scaling", "mixture", "insertion", "method")
_OF_INSERTION = re.compile(r"method\.insertions\.([^.]+)\.(.+)")


@dataclass(frozen=True)
class Change:
    """A factor that went from one level to another, and every pair of configurations that shows it: `a` has `after`."""

    dimension: str
    factor: str
    before: str
    after: str
    matches: tuple[Match, ...]


def changes(study: Study) -> list[Change]:
    """Every change of one factor alone, by dimension."""
    found: list[Change] = []
    for factor in factors(study):
        pairs = _minimal(matches(study.cases, study, factor))
        names = option_names(
            dict.fromkeys(key for level in pairs for part in level for key, _ in part), _contents(study)
        )
        by_change: dict[tuple[str, str, str], list[Match]] = {}
        for (before, after), some in pairs.items():
            by_change.setdefault(_said(before, after, names), []).extend(
                Match(match.b, match.a, match.blocks, match.tuned) for match in some
            )
        found += [Change(factor.dimension, *said, tuple(some)) for said, some in by_change.items()]
    return sorted(found, key=_place)


def _place(change: Change) -> tuple[object, ...]:
    levels = order(((change.factor, change.before), (change.factor, change.after)))
    return DIMENSIONS.index(change.dimension), change.factor, levels


def _contents(study: Study) -> list[dict[str, str]]:
    return [dict.fromkeys(key, "") for key in [case.values for case in study.cases]]


def factors(study: Study) -> list[Factor]:
    """One factor for each choice that varies; those of all insertions that have the choice are one, whose level names each."""
    choices: dict[str, Factor] = {}
    for key in study.strict:
        match = _OF_INSERTION.fullmatch(key)
        if match is not None:
            choices.setdefault(match[2], choice(match[2]))
        elif key.startswith(METHOD) and not key.startswith(INSERTIONS) and key != f"{METHOD}order":
            choices.setdefault(key, setting(key))
    return [*choices.values(), *_presences(study)]


def choice(end: str) -> Factor:
    """A choice of an insertion, by the end of its key: `position.form`. With a value's name go all of its options."""
    dimension = end.split(".")[0]
    names = end.removesuffix(NAME)

    def level(case: Case) -> Level | None:
        had = [(key, value) for key, value in case.values.items() if key.startswith(INSERTIONS) and own(key)]
        return tuple((key, text(value)) for key, value in had) or None

    def own(key: str) -> bool:
        match = _OF_INSERTION.fullmatch(key)
        return match is not None and match[2] == end

    def hangs(key: str) -> bool:
        match = _OF_INSERTION.fullmatch(key)
        if match is None or own(key):
            return False
        return end.endswith(NAME) and match[2].startswith(f"{names}.")

    if end == "function.size":
        dimension = "size"
    return Factor(end, level, own, hangs, dimension if dimension in DIMENSIONS else "method")


def setting(key: str) -> Factor:
    """One key outside of the insertions; a case without it has the level "absent"."""
    return Factor(
        key,
        lambda case: ((key, text(case.values[key]) if key in case.values else ABSENT),),
        lambda other: other == key,
        dimension="method",
    )


def presence(prefix: str, dimension: str) -> Factor:
    """Whether there is anything below a key: an insertion, a mixture, a term of the objective."""
    below = f"{prefix}."

    def level(case: Case) -> Level:
        return ((prefix, PRESENT if any(key.startswith(below) for key in case.values) else ABSENT),)

    def own(key: str) -> bool:
        return key == prefix or (dimension == "insertion" and key == f"{METHOD}order")

    return Factor(prefix, level, own, lambda key: key.startswith(below), dimension)


def _presences(study: Study) -> list[Factor]:
    """A factor for each insertion, mixture and term of an objective that only some cases have."""
    prefixes: dict[str, str] = {}
    for key in study.strict:
        parts = key.split(".")
        if key.startswith(INSERTIONS) and len(parts) > 3:
            prefixes.setdefault(".".join(parts[:3]), "insertion")
            if parts[3] == "mixture":
                prefixes.setdefault(".".join(parts[:4]), "mixture")
        elif key.startswith(f"{METHOD}objective."):
            prefixes.setdefault(".".join(parts[:3]), "method")
    made = {prefix: presence(prefix, dimension) for prefix, dimension in prefixes.items()}
    return [factor for factor in made.values() if len({factor.level(case) for case in study.cases}) > 1]


def text(value: str) -> str:
    """A value of a `Case` for people: "[\\"attn.q\\", \\"attn.v\\"]" -> "attn.q+attn.v"."""
    return plain(json.loads(value))


Pairs = dict[tuple[Level, Level], list[Match]]


def _minimal(pairs: Pairs) -> Pairs:
    """Without the pairs in which several insertions change although one of them also changes alone: these are two factors."""
    alone = {next(iter(changed)) for levels in pairs if len(changed := _changed(*levels)) == 1}
    return {
        levels: some
        for levels, some in pairs.items()
        if len(changed := _changed(*levels)) == 1 or (changed and not alone & set(changed))
    }


def _changed(before: Level, after: Level) -> dict[str, tuple[str, str]]:
    """The keys whose values differ; {} where the two levels do not speak of the same keys."""
    first, second = dict(before), dict(after)
    if first.keys() != second.keys():
        return {}
    return {key: (first[key], second[key]) for key in first if first[key] != second[key]}


def _said(before: Level, after: Level, names: dict[str, str]) -> tuple[str, str, str]:
    """A change in words: factor, before, after. Values that are the same in several insertions stand once."""
    changed = _changed(before, after)
    called = ", ".join(names[key] for key in changed)
    if len(set(changed.values())) == 1:
        return called, *next(iter(changed.values()))
    said = [", ".join(f"{names[key]} {values[side]}" for key, values in changed.items()) for side in (0, 1)]
    return called, said[0], said[1]
