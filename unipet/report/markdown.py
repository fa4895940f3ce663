"""The paper's table in Markdown."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from unipet.report.comparing import BEST, NOT_WORSE
from unipet.report.flagged import MARK
from unipet.report.numbers import GAP
from unipet.report.paper import Cell, Column, PaperTable, heading, percent, score
from unipet.report.published.beside import BESIDE, DIFFER, PUBLISHED, Beside, setting_notes


def markdown(table: PaperTable) -> str:
    """The table: the best score bold, scores not distinguishable from it underlined."""
    marks = {BEST: "**{}**", NOT_WORSE: "<u>{}</u>"}

    def render(column: Column, cell: Cell) -> str:
        return marks.get(cell.standing, "{}").format(score(column, cell)) + (f" {MARK}" if cell.flags else "")

    return _markdown(table, render) + _published(table.published)


def _published(comparisons: Sequence[Beside]) -> str:
    if not comparisons:
        return ""
    lines = [f"\n{PUBLISHED}:\n", f"| {' | '.join(BESIDE)} |", "|" + " --- |" * 4 + " ---: |" * 4 + " --- |" * 2]
    lines += [f"| {' | '.join(map(_safe, beside.texts()))} |" for beside in comparisons]
    if notes := setting_notes(comparisons):
        lines += [f"\n{DIFFER}:\n", *(f"- {_safe(note)}" for note in notes)]
    return "\n".join(lines) + "\n"


def _markdown(table: PaperTable, render: Callable[[Column, Cell], str]) -> str:
    lines = []
    for block in table.blocks:
        shown = [column for column in table.columns if any(column in line.cells for line in block.lines)]
        lines += [f"{_safe(block.heading)}:", ""]
        lines.append(
            "| " + " | ".join(["method", "parameters, %", *(_safe(heading(column)) for column in shown)]) + " |"
        )
        lines.append("|" + "|".join([" --- ", *[" ---: "] * (1 + len(shown))]) + "|")
        for line in block.lines:
            cells = [render(column, line.cells[column]) if column in line.cells else GAP for column in shown]
            lines.append("| " + " | ".join([_safe(line.label), percent(line), *cells]) + " |")
        lines.append("")
    return "\n".join(lines + [f"- {_safe(note)}" for note in table.notes]) + "\n"


def _safe(text: str) -> str:
    """Text that Markdown shows as it is: it ends no cell, and none of it is markup."""
    for sign in "\\|*_<>`[]":
        text = text.replace(sign, f"\\{sign}")
    return " ".join(text.split())
