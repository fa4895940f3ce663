"""Main effects and contrasts as rows of text and as CSV."""

from __future__ import annotations

import dataclasses
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass

from unipet.output.csv_text import csv_text
from unipet.output.text_table import text_table
from unipet.report.cases import Study
from unipet.report.contrasts import Contrast
from unipet.report.estimates import ALL, Estimated, corrected, estimates
from unipet.report.factors import Change, changes
from unipet.report.flagged import MARK
from unipet.report.numbers import GAP, score
from unipet.report.protocol import some
from unipet.report.verdicts import p_text

NARROW = 40  # characters of the terminal's column of contrasts
MOST = 40  # rows of the terminal's table: a file has all
HEADS = ("difference", "95 % interval", "p, corrected", "verdict", "pairs", "seeds")
ESTIMATED = [field.name for field in dataclasses.fields(Estimated)]
JOINED = ("tasks", "tuned", "flagged")  # fields that are lists


@dataclass(frozen=True)
class Effect:
    """A change, and what the runs say of it on every task and over tasks. The difference is after - before."""

    change: Change
    estimates: tuple[Estimated, ...]


def effects(study: Study) -> list[Effect]:
    """The main effects of a study, corrected together; [] where no two configurations differ in one choice alone."""
    found = changes(study)
    judged = corrected({at: estimates(change.matches) for at, change in enumerate(found)})
    return [Effect(change, tuple(judged[at])) for at, change in enumerate(found)]


def shown(rows: Sequence[Estimated]) -> list[Estimated]:
    """Those that a short table shows: over tasks, where there are several, and otherwise the tasks."""
    places = {(each.model, each.budget) for each in rows if each.task == ALL}
    return [each for each in rows if each.task == ALL or (each.model, each.budget) not in places]


def where(each: Estimated, places: bool) -> str:
    """What an estimate is of: `sst2`, or `4 tasks (3 +)`, of which three have a mean difference above zero; with base model and
    budget where `places` says that there are several."""
    task = f"{len(each.tasks)} tasks ({each.better} +)" if each.task == ALL else each.task
    return f"{task}, {each.model}, {each.budget}" if places else task


def cells(each: Estimated) -> list[str]:
    """The columns of `HEADS`."""
    interval = GAP
    if each.low is not None and each.high is not None:
        interval = f"{score(each.low, each.scale, '+')} to {score(each.high, each.scale, '+')}"
    return [
        score(each.difference, each.scale, "+") + (f" {MARK}" if each.flagged else ""),
        interval,
        GAP if each.p_adjusted is None else p_text(each.p_adjusted),
        each.verdict,
        str(each.pairs),
        str(each.seeds),
    ]


def several_places(rows: Sequence[Estimated]) -> bool:
    """Whether the rows are of more than one base model or budget."""
    return len({(each.model, each.budget) for each in rows}) > 1


def effects_text(several: Sequence[Effect], most: int = MOST) -> str:
    """For the terminal: each change over tasks, or on the only task."""
    rows = [(effect.change, each) for effect in several for each in shown(effect.estimates)]
    places = several_places([each for _, each in rows])
    body = [
        [change.factor, f"{change.before} → {change.after}", where(each, places), *cells(each)]
        for change, each in rows[:most]
    ]
    lines = [f"main effects ({effects_caption(several)}):"]
    lines.append(text_table(["factor", "change", "on", *HEADS], body))
    if len(rows) > most:
        lines.append(f"{len(rows) - most} more changes: --effects FILE writes all")
    return "\n".join([*lines, *notes([each for _, each in rows])])


def contrasts_text(several: Sequence[Contrast]) -> str:
    """For the terminal: each contrast on every task and over tasks."""
    rows = [(contrast, each) for contrast in several for each in contrast.estimates]
    places = several_places([each for _, each in rows])
    body = [[_broken(contrast.asked), where(each, places), *cells(each)] for contrast, each in rows]
    lines = [f"contrasts ({contrasts_caption(several)}):"]
    lines += [text_table(["contrast", "on", *HEADS], body)] if body else []
    lines += [f"{contrast.asked}: not tested: {contrast.why_not}" for contrast in several if contrast.why_not]
    return "\n".join([*lines, *notes([each for _, each in rows])])


def _broken(asked: str) -> str:
    """A contrast in lines of a narrow column."""
    key, _, values = asked.partition("=")
    return asked if len(asked) <= NARROW else "\n".join([*textwrap.wrap(key, NARROW), f"  {values}"])


def effects_caption(several: Sequence[Effect]) -> str:
    """What the differences are and what they were tested over."""
    return f"difference = after - before; {_basis([each for effect in several for each in shown(effect.estimates)])}"


def contrasts_caption(several: Sequence[Contrast]) -> str:
    """As above."""
    return f"difference = first - second; {_basis([each for contrast in several for each in contrast.estimates])}"


def _basis(rows: Sequence[Estimated]) -> str:
    """What the tests are paired over, and how the p-values are corrected."""
    bases = dict.fromkeys(each.basis for each in rows if each.basis)
    if not bases:
        return "nothing can be tested"
    task = ", task as a block" if any(each.task == ALL for each in rows) else ""
    split = " and split" if any(each.splits > 1 for each in rows) else ""
    counts = [sum((each.task == ALL) == over and each.p is not None for each in rows) for over in (True, False)]
    families = " and ".join(str(count) for count in counts if count)
    return f"paired over {' or '.join(bases)}{split}{task}; Holm over {families}"


def notes(rows: Sequence[Estimated]) -> list[str]:
    """What a reader must know."""
    said = []
    if tuned := dict.fromkeys(key for each in rows for key in each.tuned):
        said.append(f"note: the two sides were tuned apart in {', '.join(tuned)}")
    if any(each.seeds < 3 for each in rows):
        said.append("note: fewer than three seeds: such an interval says little")
    if any(each.basis == "examples" for each in rows):
        said.append("note: one seed in common: the test speaks of these trained models, not of the methods")
    if flagged := list(dict.fromkeys(text for each in rows for text in each.flagged)):
        said.append(f"{MARK} with runs that are flagged: {some(flagged)}")
    return said


def effects_csv(several: Sequence[Effect]) -> str:
    """Every change on every task and over tasks, in full precision. The difference is after - before, more is better."""
    names = ["dimension", "factor", "before", "after"]
    rows = [
        ([change.dimension, change.factor, change.before, change.after], each)
        for change, several in ((effect.change, effect.estimates) for effect in several)
        for each in several
    ]
    return _csv(names, rows)


def contrasts_csv(several: Sequence[Contrast]) -> str:
    """Every contrast on every task and over tasks. The difference is a - b, more is better."""
    rows = [([each.asked, each.a, each.b], estimated) for each in several for estimated in each.estimates]
    return _csv(["contrast", "a", "b"], rows)


def _csv(names: Sequence[str], rows: Sequence[tuple[list[str], Estimated]]) -> str:
    lines: list[list[object]] = [[*names, *ESTIMATED]]
    for said, each in rows:
        values = [" + ".join(getattr(each, name)) if name in JOINED else getattr(each, name) for name in ESTIMATED]
        lines.append([*said, *values])
    return csv_text(lines)
