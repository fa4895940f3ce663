"""Contrasts that are asked for: `KEY=A vs B`, over all pairs of runs that differ in this key alone.

KEY is a key of the configuration (`method.insertions.bn.composition`), its end where that is unambiguous (`composition`), or
`method`, whose values are methods by their names or labels. The difference is A - B.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from unipet.errors import UnipetError, nearest
from unipet.report.cases import Case, Factor, Level, Match, Study, matches
from unipet.report.estimates import Estimated, corrected, estimates
from unipet.report.factors import ABSENT, INSERTIONS, NAME, PRESENT, choice, presence, text
from unipet.report.protocol import some

METHOD = "method"
BETWEEN = " vs "
FORM = (
    'Write KEY=A vs B: --contrast "method.insertions.ffn.position.form=parallel vs sequential", or with the names of two methods '
    '--contrast "method=A vs B".'
)


@dataclass(frozen=True)
class Contrast:
    """One contrast: what was asked, what the runs say, or why they say nothing."""

    asked: str
    a: str
    b: str
    estimates: tuple[Estimated, ...]
    why_not: str = ""


def contrasts(asked: Sequence[str], study: Study) -> list[Contrast]:
    """Every contrast, corrected together. Raises `UnipetError` for one that names a key or a value that no run has."""
    made = [_contrast(each, study) for each in dict.fromkeys(asked)]
    judged = corrected({each.asked: each.estimates for each in made})
    return [Contrast(each.asked, each.a, each.b, tuple(judged[each.asked]), each.why_not) for each in made]


def _contrast(asked: str, study: Study) -> Contrast:
    key, a, b = parsed(asked)
    factor, reads = _method(study, asked, (a, b)) if key == METHOD else _factor(study, asked, key, (a, b))
    chosen = {side: [case for case in study.cases if reads(case, value)] for side, value in (("a", a), ("b", b))}
    for side, value in (("a", a), ("b", b)):
        if not chosen[side] and key == METHOD and value in study.scoreless:
            return Contrast(asked, a, b, (), f"no run of {value} has a score")
        if not chosen[side]:
            levels = {said(level) for case in study.cases if (level := factor.level(case)) is not None}
            raise UnipetError(
                f"--contrast {asked!r}: no run with a score has {key}={value}. There {'is' if len(levels) == 1 else 'are'}: "
                f"{some(sorted(levels), 12)}.{nearest(value, sorted(levels))}"
            )
    pairs = _between(matches([*chosen["a"], *chosen["b"]], study, factor), chosen)
    why_not = "" if pairs else f"no two runs differ in this alone: {_closest(study, factor, chosen)}"
    return Contrast(asked, a, b, tuple(estimates(pairs)), why_not)


def parsed(asked: str) -> tuple[str, str, str]:
    """Key, A and B. Raises `UnipetError` for another form."""
    key, equals, values = asked.partition("=")
    a, between, b = values.partition(BETWEEN)
    parts = key.strip(), a.strip(), b.strip()
    if not equals or not between or not all(parts) or BETWEEN in b:
        raise UnipetError(f"--contrast {asked!r}: not a contrast. {FORM}")
    if parts[1] == parts[2]:
        raise UnipetError(f"--contrast {asked!r}: both sides are the same. {FORM}")
    return parts


Reads = Callable[[Case, str], bool]


def _method(study: Study, asked: str, sides: Sequence[str]) -> tuple[Factor, Reads]:
    """Methods by name; by label where a name has several variants in one place that the other side has not. A method that was
    tuned on each task, and became another variant there, is one method."""
    names = {case.line.row.method for case in study.cases}
    variants = {side: {case.line.row.variant for case in study.cases if case.line.row.method == side} for side in sides}
    several = [side for side in sides if side in names and _several(study, side)]
    alike = variants[sides[0]] == variants[sides[1]]
    known = names | {case.line.row.label for case in study.cases}
    if several and not alike and known.issuperset(sides):
        labels = sorted({case.line.row.label for case in study.cases if case.line.row.method in several})
        raise UnipetError(
            f"--contrast {asked!r}: {several[0]} has several variants here. Name one by its label: {some(labels, 12)}."
        )

    def level(case: Case) -> Level:
        row = case.line.row
        return ((METHOD, row.method if row.method in sides else row.label),)

    def own(key: str) -> bool:
        return key.startswith(f"{METHOD}.")

    def reads(case: Case, value: str) -> bool:
        return value in (case.line.row.label, case.line.row.method)

    if not several:
        return Factor(METHOD, level, own), reads
    # both have the same variants: the keys that make them must agree
    keys = {key for key in study.varying if own(key) for side in sides if _varies(study, side, key)}
    return Factor(METHOD, level, lambda key: own(key) and key not in keys), reads


def _several(study: Study, method: str) -> bool:
    """Whether a method has more than one variant on one task, base model and budget."""
    own = [case for case in study.cases if case.line.row.method == method]
    return len({(case.place, case.line.row.variant) for case in own}) > len({case.place for case in own})


def _varies(study: Study, method: str, key: str) -> bool:
    return len({case.values.get(key) for case in study.cases if case.line.row.method == method}) > 1


def _factor(study: Study, asked: str, key: str, sides: Sequence[str]) -> tuple[Factor, Reads]:
    """The factor of a key, of its end, or of what stands below it."""
    whole = _resolved(study, asked, key, sides)
    if isinstance(whole, str):

        def level(case: Case) -> Level | None:
            return ((whole, text(case.values[whole])),) if whole in case.values else None

        factor = Factor(whole, level, lambda other: other == whole, _hanging(whole))
    else:
        factor = whole
    return (
        factor,
        lambda case, value: (has := factor.level(case)) is not None and all(same(one, value) for _, one in has),
    )


def _hanging(key: str) -> Callable[[str], bool]:
    """With a value's name go its options."""
    below = key.removesuffix(NAME) + "."
    return lambda other: key.endswith(NAME) and other.startswith(below) and other != key


def _resolved(study: Study, asked: str, key: str, sides: Sequence[str]) -> str | Factor:
    if key in study.keys:
        return key
    if f"{key}{NAME}" in study.keys and not all(_is_number(side) for side in sides):
        return f"{key}{NAME}"
    if f"{key}.value" in study.keys and all(_is_number(side) for side in sides):
        return f"{key}.value"
    if any(each.startswith(f"{key}.") for each in study.keys) and {*sides} == {PRESENT, ABSENT}:
        return presence(key, "insertion" if key.count(".") == 2 else "mixture")
    ends = [f".{key}", f".{key}.value" if all(map(_is_number, sides)) else f".{key}{NAME}"]
    varying = [each for each in study.varying if each.endswith(tuple(ends))]
    if len(varying) == 1:
        return varying[0]
    if (
        len(varying) > 1
        and len({each.split(".", 3)[-1] for each in varying}) == 1
        and varying[0].startswith(INSERTIONS)
    ):
        return choice(varying[0].split(".", 3)[-1])
    if varying:
        raise UnipetError(f"--contrast {asked!r}: {key} may be any of {some(varying, 12)}. Write the whole key.")
    known = sorted(each for each in study.varying if each.startswith(("method.insertions.", "optim.", "task.")))
    raise UnipetError(
        f"--contrast {asked!r}: the runs do not differ in {key}. They differ in: method, {some(known, 12)}."
        f"{nearest(key, [METHOD, *known, *(each.removesuffix(NAME).rsplit('.', 1)[-1] for each in known)])}"
    )


def same(value: str, asked: str) -> bool:
    """Whether a value of a configuration is the one that was asked for, however it is spelt: 4 and 4.0, [a,b] and a+b."""
    if value == asked or (_is_number(value) and _is_number(asked) and float(value) == float(asked)):
        return True
    return asked.startswith("[") and value == "+".join(part.strip() for part in asked.strip("[]").split(","))


def _is_number(value: str) -> bool:
    try:
        float(value)
    except ValueError:
        return False
    return True


def said(level: Level) -> str:
    """A level's values, each once."""
    return ", ".join(dict.fromkeys(value for _, value in level))


def _between(found: Mapping[tuple[Level, Level], Sequence[Match]], chosen: Mapping[str, Sequence[Case]]) -> list[Match]:
    """The pairs of one of A with one of B, in this order."""
    first = set(map(id, chosen["a"]))
    pairs = [match for some_matches in found.values() for match in some_matches]
    turned = [match if id(match.a) in first else Match(match.b, match.a, match.blocks, match.tuned) for match in pairs]
    second = set(map(id, chosen["b"]))
    return [match for match in turned if id(match.a) in first and id(match.b) in second]


def _closest(study: Study, factor: Factor, chosen: Mapping[str, Sequence[Case]]) -> str:
    """In what else the two sides differ at least."""
    best: list[str] | None = None
    for a in chosen["a"][:200]:
        for b in chosen["b"][:200]:
            parts = [
                part for part, x, y in zip(("task", "base model", "budget"), a.place, b.place, strict=True) if x != y
            ]
            keys = [key for key in study.strict if not factor.own(key) and not factor.hangs(key)]
            parts += [
                f"{key} ({_value(a, key)} | {_value(b, key)})" for key in keys if a.values.get(key) != b.values.get(key)
            ]
            if best is None or len(parts) < len(best):
                best = parts
    return "the closest differ also in " + some(best, 6) if best else "they have no seed in common, or were tuned apart"


def _value(case: Case, key: str) -> str:
    return text(case.values[key]) if key in case.values else ABSENT
