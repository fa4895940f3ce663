"""Records as a paper's table: rows methods, columns tasks, one block per base model and budget; and the CSV of it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from unipet.output.csv_text import csv_text
from unipet.report import numbers
from unipet.report.aggregate import Row
from unipet.report.comparing import Group
from unipet.report.flagged import Flagged, summarised
from unipet.report.numbers import GAP
from unipet.report.published.beside import Beside


@dataclass(frozen=True)
class Column:
    """One task, by its first metric."""

    task: str  # marked where it is synthetic
    metric: str
    scale: str  # as recorded
    higher_is_better: bool


@dataclass(frozen=True)
class Cell:
    """One method's score on one task, as recorded, and how it stands to the best of its group."""

    mean: float
    std: float | None
    seeds: int
    standing: str
    flags: tuple[Flagged, ...] = ()


@dataclass(frozen=True)
class Line:
    """One method of a block."""

    method: str
    variant: str
    label: str
    trainable: tuple[int, ...]  # one value, or several where it differs by task
    percent: tuple[float, ...]
    sizes: tuple[str, ...]  # as trained
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
    """The whole table, and the notes below it."""

    columns: tuple[Column, ...]
    blocks: tuple[Block, ...]
    notes: tuple[str, ...]
    published: tuple[Beside, ...] = ()


def paper_table(groups: Sequence[Group], order: Sequence[str] = (), published: Sequence[Beside] = ()) -> PaperTable:
    """The table of `compare`'s groups. `order`: methods from top to bottom; those not named follow by their labels.
    `published`: papers' numbers beside ours, a table of their own."""
    columns: dict[tuple[str, str], Column] = {}
    blocks: dict[tuple[str, str], dict[str, list[tuple[Column, Row, str]]]] = {}
    scored = {
        row.task_label: row for group in reversed(groups) for row in reversed(group.rows) if row.score is not None
    }
    for group in groups:
        own = {row.task_label: row for row in reversed(group.rows) if row.score is not None}
        for row, label in zip(group.rows, group.labels, strict=True):
            scored_row = (
                row if row.score is not None else (scored | own).get(row.task_label, row)
            )  # unscored: no metric
            key = (row.task_label, scored_row.metric)
            if key not in columns:
                columns[key] = Column(*key, scored_row.scale, scored_row.higher_is_better)
            lines = blocks.setdefault((group.model, group.budget), {})
            lines.setdefault(label, []).append((columns[key], row, group.standings.get(label, "")))
    rank = {method: place for place, method in enumerate(dict.fromkeys(order))}
    built = []
    for (model, budget), by_label in sorted(blocks.items()):
        made = [_line(label, cells) for label, cells in by_label.items()]
        made.sort(key=lambda line: (rank.get(line.method, len(rank)), line.label))
        built.append(Block(model, budget, tuple(made)))
    return PaperTable(
        tuple(columns[key] for key in sorted(columns)), tuple(built), tuple(_notes(groups)), tuple(published)
    )


def _line(label: str, cells: Sequence[tuple[Column, Row, str]]) -> Line:
    first = cells[0][1]
    return Line(
        method=first.method,
        variant=first.variant,
        label=label,
        trainable=tuple(sorted({row.trainable for _, row, _ in cells if row.trainable is not None})),
        percent=tuple(sorted({row.percent for _, row, _ in cells if row.percent is not None})),
        sizes=tuple(dict.fromkeys(row.size for _, row, _ in cells if row.size)),
        cells={
            column: Cell(row.score, row.std, row.scored, standing, row.flags)
            for column, row, standing in cells
            if row.score is not None
        },
    )


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
            "Bold: best mean of its base model and budget, every one where several are equal. Underlined: not "
            "distinguishable from it at 5 %, which does not mean equal (paired tests; Holm's correction over all pairs of "
            "the group)."
        )
    groups_of: dict[str, list[str]] = {}
    for group in groups:
        for text in [
            *(f"not ranked: {difference}" for difference in group.differences if not group.ranked),
            *group.warnings,
        ]:
            groups_of.setdefault(text, []).append(group.name)
        if group.ranked:
            for difference in group.differences:
                groups_of.setdefault(f"ranked although {difference}", []).append(group.name)
    notes += summarised([(f"{label} on {group.task}", row) for group in groups for label, row in group.flagged.items()])
    for text, names in groups_of.items():
        place = "" if len(names) == len(groups) and len(groups) > 1 else f"{'; '.join(names)}: "
        notes.append(f"{place}{text}.")
    return notes


def score(column: Column, cell: Cell) -> str:
    """`0.8526 ± 0.0008`, on the metric's recorded scale; one seed has no ±."""
    return numbers.spread(cell.mean, cell.std, column.scale)


def percent(line: Line) -> str:
    """`0.649`, or `0.649 to 0.701` where it differs by task."""
    texts = list(dict.fromkeys(numbers.percent(value) for value in line.percent))
    return GAP if not texts else texts[0] if len(texts) == 1 else f"{texts[0]} to {texts[-1]}"


def heading(column: Column) -> str:
    """`sst2 (accuracy)`, with an arrow where less is better."""
    return f"{column.task} ({column.metric or GAP}{'' if column.higher_is_better else ' ↓'})"


def wide_csv(table: PaperTable) -> str:
    """One line per method, base model and budget; per task mean, std, seeds, standing and flags; and what papers published,
    on our scale, also of methods that were not run here. Full precision, as recorded."""
    parts: dict[str, Callable[[Cell], object]] = {
        "": lambda cell: cell.mean,
        " std": lambda cell: cell.std,
        " seeds": lambda cell: cell.seeds,
        " standing": lambda cell: cell.standing,
        " flags": lambda cell: ", ".join(flag.count for flag in cell.flags),
    }
    tasks = [f"{column.task} {column.metric}".strip() for column in table.columns]
    by_place = {compared.at: compared for compared in table.published}
    papers = list(dict.fromkeys((*compared.number.key[1:], compared.number.place) for compared in table.published))
    figures: dict[str, Callable[[Beside], object]] = {
        " ours": lambda compared: compared.mean,
        " published": lambda compared: compared.number.value,
        " published std": lambda compared: compared.number.std,
        " ours - published": lambda compared: compared.difference,
        " published note": lambda compared: compared.note,
    }
    heads: list[object] = ["method", "variant", "model", "budget", "size", "trainable", "percent"]
    heads += [t + p for t in tasks for p in parts]
    heads += [f"{' '.join(filter(None, paper))}{p}" for paper in papers for p in figures]
    lines = [heads]

    def published(label: str, model: str, budget: str, method: str) -> list[object]:
        values: list[object] = []
        for task, metric, place in papers:
            compared = by_place.get((label, model, budget, (method, task, metric), place))
            values += [None if compared is None else get(compared) for get in figures.values()]
        return values

    for block in table.blocks:
        for line in block.lines:
            row: list[object] = [line.method, line.variant, block.model, block.budget]
            row += ["/".join(map(str, each)) for each in (line.sizes, line.trainable, line.percent)]
            for column in table.columns:
                cell = line.cells.get(column)
                row += [None if cell is None else get(cell) for get in parts.values()]
            lines.append(row + published(line.label, block.model, block.budget, line.method))
    for method in dict.fromkeys(compared.number.method for compared in table.published if not compared.label):
        lines.append([method, "", "", "", "", "", "", *[""] * len(tasks) * len(parts), *published("", "", "", method)])
    return csv_text(lines)
