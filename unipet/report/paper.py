"""Records as a paper's table: rows methods, columns tasks, one block per base model and budget; Markdown and CSV of it."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from unipet.report.aggregate import Row
from unipet.report.comparing import BEST, NOT_WORSE, Group
from unipet.report.table import GAP

DECIMALS = 2
HUNDREDFOLD = ("0 to 1", "-1 to 1")  # scales that papers print times 100


@dataclass(frozen=True)
class Column:
    """One task, by its first metric."""

    task: str  # marked where it is synthetic
    metric: str
    factor: float  # from the recorded score to the printed one
    higher_is_better: bool


@dataclass(frozen=True)
class Cell:
    """One method's score on one task, as recorded, and how it stands to the best of its group."""

    mean: float
    std: float | None
    seeds: int
    standing: str


@dataclass(frozen=True)
class Line:
    """One method of a block."""

    method: str
    variant: str
    label: str
    trainable: tuple[int, ...]  # one value, or several where it differs by task
    percent: tuple[float, ...]
    cells: Mapping[Column, Cell]


@dataclass(frozen=True)
class Block:
    """The methods on one base model within one budget: what may be ranked."""

    model: str
    budget: str
    lines: tuple[Line, ...]

    @property
    def heading(self) -> str:
        return f"{self.model}, budget {self.budget}"


@dataclass(frozen=True)
class PaperTable:
    """The whole table, and what must be said below it."""

    columns: tuple[Column, ...]
    blocks: tuple[Block, ...]
    notes: tuple[str, ...]


def paper_table(groups: Sequence[Group], order: Sequence[str] = ()) -> PaperTable:
    """The table of `compare`'s groups. `order`: methods from top to bottom; those not named follow by their labels."""
    columns: dict[tuple[str, str], Column] = {}
    blocks: dict[tuple[str, str], dict[str, list[tuple[Column, Row, str]]]] = {}
    for group in groups:
        speaks = next(
            (row for row in group.rows if row.score is not None), group.rows[0]
        )  # an unscored row has no metric
        for row, label in zip(group.rows, group.labels, strict=True):
            said = row if row.score is not None else speaks
            key = (row.task_label, said.metric)
            if key not in columns:
                columns[key] = Column(*key, factor_of(said.scale, said.metric), said.higher_is_better)
            lines = blocks.setdefault((group.model, group.budget), {})
            lines.setdefault(label, []).append((columns[key], row, group.standings.get(label, "")))
    rank = {method: place for place, method in enumerate(dict.fromkeys(order))}
    built = []
    for (model, budget), by_label in sorted(blocks.items()):
        made = [_line(label, cells) for label, cells in by_label.items()]
        made.sort(key=lambda line: (rank.get(line.method, len(rank)), line.label))
        built.append(Block(model, budget, tuple(made)))
    return PaperTable(tuple(columns[key] for key in sorted(columns)), tuple(built), tuple(_notes(groups)))


def _line(label: str, cells: Sequence[tuple[Column, Row, str]]) -> Line:
    first = cells[0][1]
    return Line(
        method=first.method,
        variant=first.variant,
        label=label,
        trainable=tuple(sorted({row.trainable for _, row, _ in cells if row.trainable is not None})),
        percent=tuple(sorted({row.percent for _, row, _ in cells if row.percent is not None})),
        cells={
            column: Cell(row.score, row.std, row.scored, standing)
            for column, row, standing in cells
            if row.score is not None
        },
    )


def factor_of(scale: str, metric: str) -> float:
    """100 for a share or a correlation, else 1. A record that does not say the metric's scale has the one of today."""
    if not scale and metric:
        from unipet.tasks.scoring import METRICS

        scale = METRICS[metric].scale if metric in METRICS else ""
    return 100.0 if scale in HUNDREDFOLD else 1.0


def _notes(groups: Sequence[Group]) -> list[str]:
    """What a reader must know: what the marks mean, what was not ranked and why, and every warning."""
    seeds = sorted({row.scored for group in groups for row in group.rows if row.scored})
    over = "no run has a score"
    if seeds:
        counted = f"{seeds[0]}" if len(seeds) == 1 else f"{seeds[0]} to {seeds[-1]}"
        over = f"Mean ± sample standard deviation over {counted} seed{'s' * (seeds != [1])}"
    notes = [f"{over}."]
    pairs = [pair for group in groups for pair in group.pairs]
    if pairs:
        notes.append(
            "Bold: best mean of its base model and budget. Underlined: not distinguishable from it at 5 %, which does not "
            "mean equal (paired tests; Holm's correction over all pairs of the group)."
        )
    said: dict[str, list[str]] = {}
    for group in groups:
        for text in [*(f"not ranked: {one}" for one in group.differences if not group.ranked), *group.warnings]:
            said.setdefault(text, []).append(group.name)
        if group.ranked:
            for one in group.differences:
                said.setdefault(f"ranked although {one}", []).append(group.name)
    for text, names in said.items():
        where = "" if len(names) == len(groups) and len(groups) > 1 else f"{'; '.join(names)}: "
        notes.append(f"{where}{text}.")
    return notes


def number(column: Column, value: float) -> str:
    """A score or a deviation as it is printed."""
    return f"{column.factor * value:.{DECIMALS}f}"


def score(column: Column, cell: Cell) -> str:
    """`85.26 ± 0.08`; one seed has no ±."""
    return number(column, cell.mean) + ("" if cell.std is None else f" ± {number(column, cell.std)}")


def percent(line: Line) -> str:
    """`0.649`, or `0.649 to 0.701` where it differs by task."""
    found = list(dict.fromkeys(f"{value:.3f}" for value in line.percent))
    return GAP if not found else found[0] if len(found) == 1 else f"{found[0]} to {found[-1]}"


def heading(column: Column) -> str:
    """`sst2 (accuracy)`, with an arrow where less is better."""
    return f"{column.task} ({column.metric or GAP}{'' if column.higher_is_better else ' ↓'})"


def markdown(table: PaperTable) -> str:
    """A table in Markdown: best bold, not distinguishable from it underlined."""
    marks = {BEST: "**{}**", NOT_WORSE: "<u>{}</u>"}
    return _markdown(table, lambda column, cell: marks.get(cell.standing, "{}").format(score(column, cell)))


def _markdown(table: PaperTable, render: Callable[[Column, Cell], str]) -> str:
    lines = []
    for block in table.blocks:
        shown = [column for column in table.columns if any(column in line.cells for line in block.lines)]
        lines += [f"{_safe(block.heading)}:", ""]
        lines.append("| " + " | ".join(["method", "parameters, %", *(_safe(heading(one)) for one in shown)]) + " |")
        lines.append("|" + "|".join([" --- ", *[" ---: "] * (1 + len(shown))]) + "|")
        for line in block.lines:
            cells = [render(column, line.cells[column]) if column in line.cells else GAP for column in shown]
            lines.append("| " + " | ".join([_safe(line.label), percent(line), *cells]) + " |")
        lines.append("")
    return "\n".join(lines + [f"- {_safe(note)}" for note in table.notes]) + "\n"


def _safe(text: str) -> str:
    """Names as they are: no cell ends early, no letter becomes markup."""
    for sign in "\\|*_<>`[]":
        text = text.replace(sign, f"\\{sign}")
    return " ".join(text.split())


def wide_csv(table: PaperTable) -> str:
    """One line per method, base model and budget; per task mean, std, seeds and standing. Full precision, as recorded."""
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    parts: dict[str, Callable[[Cell], object]] = {
        "": lambda cell: cell.mean,
        " std": lambda cell: cell.std,
        " seeds": lambda cell: cell.seeds,
        " standing": lambda cell: cell.standing,
    }
    tasks = [f"{one.task} {one.metric}".strip() for one in table.columns]
    writer.writerow(
        ["method", "variant", "model", "budget", "trainable", "percent"] + [t + p for t in tasks for p in parts]
    )
    for block in table.blocks:
        for line in block.lines:
            row: list[object] = [line.method, line.variant, block.model, block.budget]
            row += ["/".join(map(str, line.trainable)), "/".join(map(str, line.percent))]
            for column in table.columns:
                cell = line.cells.get(column)
                row += ["" if cell is None or (value := get(cell)) is None else value for get in parts.values()]
            writer.writerow(row)
    return buffer.getvalue()
