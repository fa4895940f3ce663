"""The comparison table: every configuration a row, sortable by every column, filtered by text, task, budget and model."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from unipet.report.certified import BADGE
from unipet.report.comparing import BEST, NOT_WORSE, WORSE
from unipet.report.flagged import MARK, counted
from unipet.report.numbers import percent, score
from unipet.report.page.comparisons import Comparison, Line
from unipet.report.page.rendering import Table, number
from unipet.report.table import score_text, seeds_text

#: verdict of the statistics -> how the table says it
STANDINGS = {BEST: "★ best", NOT_WORSE: "≈ not distinguishable", WORSE: "↓ worse"}
#: What all rows share stands above the table instead of in a column.
SHARED: dict[str, Callable[[Comparison], str]] = {
    "task": lambda comparison: comparison.task,
    "model": lambda comparison: comparison.model,
    "budget": lambda comparison: comparison.budget,
}
FIGURES = ("score", "seeds", "size", "trainable", "%", "memory, GiB", "training, s")


@dataclass(frozen=True)
class Cell:
    """What a cell shows, and what it is sorted by; None where there is nothing."""

    shown: str
    value: object
    css: str | None = None
    anchor: str = ""  # the part of the page that it leads to
    tip: str = ""
    below: str = ""
    chip: str = ""
    flag: str = ""
    badge: str = ""


@dataclass(frozen=True)
class ComparisonTable:
    """The table with its filters: `shared` stands above it, the values of `filters` are those of what varies."""

    shared: str
    filters: Mapping[str, Sequence[str]]
    heads: Sequence[str]
    lines: Sequence[tuple[Comparison, Sequence[Cell]]]
    flags: Table | None
    figures: Sequence[str] = FIGURES  # the columns that align right


def _figure(value: float | None, pattern: str) -> Cell:
    return Cell(number(value, pattern), value, "n")


def _method(comparison: Comparison, line: Line) -> Cell:
    return Cell(line.row.method, line.label, anchor=method_id(line.row.method), below=line.row.variant)


def _task(comparison: Comparison, line: Line) -> Cell:
    return Cell(line.row.task, line.row.task, chip="synthetic" if line.row.synthetic else "")


def _score(comparison: Comparison, line: Line) -> Cell:
    seeds = ", ".join(score(value, line.row.scale) for value in line.row.scores)
    flag = counted(line.row) if line.row.flags else ""
    return Cell(score_text(line.row), line.row.score, "n", tip=seeds, below=line.row.metric, flag=flag)


def _standing(comparison: Comparison, line: Line) -> Cell:
    unranked = not comparison.ranked and line.row.score is not None
    standing = comparison.standing(line) or ("not ranked" if unranked else "–")
    return Cell(STANDINGS.get(standing, standing), standing, "nowrap")


def _certified(line: Line) -> Cell:
    state = line.row.certified
    badge = f"{BADGE} certified" if state.all else ""
    return Cell("" if badge else state.text, state.count / max(1, state.runs), "nowrap", badge=badge)


COLUMNS: dict[str, Callable[[Comparison, Line], Cell]] = {
    "method": _method,
    "task": _task,
    "model": lambda comparison, line: Cell(comparison.model, comparison.model),
    "budget": lambda comparison, line: Cell(comparison.budget, comparison.budget),
    "score": _score,
    "against the best": _standing,
    "certified": lambda comparison, line: _certified(line),
    "seeds": lambda comparison, line: Cell(seeds_text(line.row), line.row.scored, "n"),
    "size": lambda comparison, line: Cell(line.row.size or "–", line.row.size or None, "n"),
    "trainable": lambda comparison, line: _figure(line.row.trainable, ",d"),
    "%": lambda comparison, line: Cell(percent(line.row.percent), line.row.percent, "n"),
    "memory, GiB": lambda _, line: _figure(line.cost("memory"), ".2f"),
    "training, s": lambda comparison, line: _figure(line.row.train_s, ".1f"),
}


def comparison_table(comparisons: Sequence[Comparison]) -> ComparisonTable:
    """Every configuration as a row of the columns in which they differ."""
    values = {name: sorted({get(comparison) for comparison in comparisons}) for name, get in SHARED.items()}
    heads = [head for head in COLUMNS if len(values.get(head, "several")) > 1]
    if not any(line.row.certified.judged for comparison in comparisons for line in comparison.lines):
        heads.remove("certified")
    return ComparisonTable(
        shared=", ".join(f"{name} {of[0]}" for name, of in values.items() if len(of) == 1),
        filters={name: of for name, of in values.items() if len(of) > 1},
        heads=heads,
        lines=[
            (comparison, [COLUMNS[head](comparison, line) for head in heads])
            for comparison in comparisons
            for line in comparison.lines
        ],
        flags=_flags(comparisons),
    )


def _flags(comparisons: Sequence[Comparison]) -> Table | None:
    """What the mark at a score means, for every configuration that has one."""
    rows = [
        (line.label, comparison.title, flag.count, flag.text)
        for comparison in comparisons
        for line in comparison.lines
        for flag in line.row.flags
    ]
    if not rows:
        return None
    heads = ("configuration", "comparison", "flag", "what was found, in the first such run")
    return Table(f"{MARK} Flags: scores that are worth less than they look", heads, rows)


def method_id(method: str) -> str:
    """The anchor of a method's part of the page."""
    letters = (letter if letter.isascii() and letter.isalnum() else f"-{ord(letter):x}-" for letter in method)
    return "method-" + "".join(letters)
