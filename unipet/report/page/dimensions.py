"""The part of the page on what each choice does: main effects, contrasts, and methods over tasks."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from unipet.report import average_rows
from unipet.report.averages import Averages
from unipet.report.cases import Match
from unipet.report.contrasts import Contrast
from unipet.report.effect_rows import HEADS, Effect, cells, several_places, where
from unipet.report.estimates import ALL, Estimated
from unipet.report.page.comparisons import Comparison
from unipet.report.page.rendering import Table

NUMBERS = (2, 3, 4, 7, 8)  # columns of numbers


def place_of(comparison: Comparison) -> tuple[str, str, str]:
    """Task, base model and budget, as an estimate has them."""
    row = comparison.lines[0].row
    return row.task, row.model, row.budget


def effects_on(effects: Sequence[Effect], comparison: Comparison) -> Iterator[tuple[Effect, Estimated, list[Match]]]:
    """What the effects are in one comparison, each with the pairs that show it."""
    place = place_of(comparison)
    for effect in effects:
        for each in effect.estimates:
            if (each.task, each.model, each.budget) == place:
                yield effect, each, [match for match in effect.change.matches if match.a.place == place]


def effect_tables(effects: Sequence[Effect], comparisons: Sequence[Comparison]) -> list[Table]:
    """The effects of every comparison that has any."""
    tables = []
    for comparison in comparisons:
        rows = [_row(effect, each) for effect, each, _ in effects_on(effects, comparison)]
        if rows:
            tables.append(Table(f"Effects: {comparison.title}", _HEADS, rows, NUMBERS, comparison.id))
    return tables


_HEADS = ("factor", "change", *HEADS, "tuned apart")


def _row(effect: Effect, each: Estimated) -> tuple[str, ...]:
    change = effect.change
    return change.factor, f"{change.before} → {change.after}", *cells(each), ", ".join(each.tuned) or "–"


def pooled_tables(effects: Sequence[Effect]) -> list[Table]:
    """The effects over tasks, for each base model and budget."""
    places: dict[str, list[tuple[str, ...]]] = {}
    for effect in effects:
        for each in effect.estimates:
            if each.task == ALL:
                title = f"Over tasks: {', '.join(each.tasks)} · {each.model} · budget {each.budget}"
                places.setdefault(title, []).append(_row(effect, each))
    return [Table(title, _HEADS, rows, NUMBERS) for title, rows in places.items()]


def contrast_table(contrasts: Sequence[Contrast]) -> Table | None:
    """The contrasts that were asked for, on each task and over tasks; None where there are none."""
    rows = [(contrast, each) for contrast in contrasts for each in contrast.estimates]
    places = several_places([each for _, each in rows])
    body = [
        (contrast.asked, where(each, places), *cells(each), ", ".join(each.tuned) or "–") for contrast, each in rows
    ]
    body += [
        (each.asked, f"not tested: {each.why_not}", *["–"] * (len(HEADS) + 1)) for each in contrasts if each.why_not
    ]
    return (
        Table("Contrasts: first - second", ("contrast", "on", *HEADS, "tuned apart"), body, NUMBERS) if body else None
    )


def average_tables(averages: Sequence[Averages]) -> list[tuple[Table, list[str]]]:
    """Methods over tasks, with what the ranks say."""
    return [
        (
            Table(
                f"Over {each.name}",
                average_rows.heads(each),
                [average_rows.cells(each, line) for line in each.lines],
                range(1, len(average_rows.heads(each))),
            ),
            average_rows.statements(each),
        )
        for each in averages
    ]
