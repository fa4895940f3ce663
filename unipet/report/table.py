"""Rows as text for a terminal, as Markdown and as CSV; the same rows, the same order."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from unipet.output.csv_text import csv_text
from unipet.output.files import write_asked
from unipet.report.aggregate import Row, Unscored
from unipet.report.flagged import MARK, counted, explained
from unipet.report.numbers import GAP, percent, seconds, spread, wrapped
from unipet.report.published.beside import Beside
from unipet.runs.labels import SEPARATOR

WIDTH = 120  # of a terminal table; only the method's label gives way, to more lines

CSV_COLUMNS: dict[str, Callable[[Row], object]] = {
    "method": lambda row: row.method,
    "variant": lambda row: row.variant,
    "task": lambda row: row.task,
    "synthetic": lambda row: "yes" if row.synthetic else "no",
    "model": lambda row: row.model,
    "budget": lambda row: row.budget,
    "metric": lambda row: row.metric,
    "size": lambda row: row.size,
    "trainable": lambda row: row.trainable,
    "percent": lambda row: row.percent,
    "score_mean": lambda row: row.score,
    "score_std": lambda row: row.std,
    "seeds": lambda row: row.scored,
    "runs": lambda row: row.runs,
    "train_s": lambda row: row.train_s,
    "flags": counted,
    "other_metrics": lambda row: "; ".join(f"{name}={mean!r}" for name, mean in row.others),
    "certified": lambda row: row.certified.count,
}


def score_text(row: Row) -> str:
    """`0.9123 ± 0.0021`, with a mark where the row has flags. One run has no ±; without a score it is a gap."""
    return spread(row.score, row.std, row.scale) + (f" {MARK}" if row.flags else "")


def seeds_text(row: Row) -> str:
    """`3`, or `2 of 3` when a run has no score."""
    return str(row.runs) if row.scored == row.runs else f"{row.scored} of {row.runs}"


def train_text(row: Row) -> str:
    """`12.3 s`; where all runs trained in packs, whose time is common, that word."""
    if row.train_s is None:
        return "packed" if row.packed else seconds(None)
    return f"{seconds(row.train_s)} s"


# heading -> (value, right-aligned). What all rows share goes above the table instead of into a column.
COLUMNS: dict[str, tuple[Callable[[Row], str], bool]] = {
    "method": (lambda row: row.label, False),
    "task": (lambda row: row.task_label, False),
    "model": (lambda row: row.model, False),
    "budget": (lambda row: row.budget, False),
    "size": (lambda row: row.size or GAP, True),
    "trainable": (lambda row: GAP if row.trainable is None else f"{row.trainable:,d}", True),
    "%": (lambda row: percent(row.percent), True),
    "metric": (lambda row: row.metric or GAP, False),
    "score": (score_text, True),
    "seeds": (seeds_text, True),
    "train": (train_text, True),
    "certified": (lambda row: row.certified.text, False),
}
SHARED = ("task", "model", "budget", "metric", "certified")


def split_shared(rows: Sequence[Row]) -> tuple[str, list[str]]:
    """What every row has in common, as one line, and the headings that remain."""
    values = {heading: {COLUMNS[heading][0](row) for row in rows} for heading in SHARED}
    for heading in ("metric", "certified"):  # an unscored row has none
        values[heading] -= {GAP} if len(values[heading]) > 1 else set()
    hidden = ["certified"] if values["certified"] == {GAP} else []  # records from before there were certificates
    common = [heading for heading in SHARED if len(values[heading]) == 1]
    line = "   ".join(f"{heading}: {next(iter(values[heading]))}" for heading in common if heading not in hidden)
    # sizes are shown where a budget solved them: the method's file does not tell them
    hidden += [] if any(row.fitted for row in rows) else ["size"]
    return line, [heading for heading in COLUMNS if heading not in [*common, *hidden]]


def cells(rows: Sequence[Row], headings: Sequence[str]) -> list[list[str]]:
    """The table's body as text."""
    return [[COLUMNS[heading][0](row) for heading in headings] for row in rows]


def by_budget(rows: Sequence[Row], across_budgets: bool) -> list[list[Row]]:
    """The rows of each table: one for every budget, unless one for all is asked for."""
    if across_budgets or not rows:
        return [list(rows)]
    budgets = dict.fromkeys(row.budget for row in rows)
    return [[row for row in rows if row.budget == budget] for budget in budgets]


def text_table(
    rows: Sequence[Row], missing: Sequence[Unscored] = (), width: int = WIDTH, across_budgets: bool = False
) -> str:
    """For the terminal and `comparison.txt`, at most `width` columns wide; reasons of failures below it may be longer.

    What was run on different budgets is not ranked in one table unless `across_budgets` asks for it.
    """
    lines = ["\n\n".join(_text(part, width) for part in by_budget(rows, across_budgets))]
    if notes := flag_notes(rows):
        lines += ["", *(f"{MARK} {text}" for text in notes)]
    if missing:
        lines += ["", *(f"{each.status}: {each.run}\n    {each.error}" for each in missing)]
    return "\n".join(lines)


def flag_notes(rows: Sequence[Row]) -> list[str]:
    """What the mark at a score means, row by row."""
    several = {part: len({getattr(row, part) for row in rows}) > 1 for part in ("task", "model", "budget")}
    labels = []
    for row in rows:
        place = ", ".join(getattr(row, part) for part in several if several[part])
        labels.append(f"{row.label} ({place})" if place else row.label)
    return explained(zip(labels, rows, strict=True))


def _text(rows: Sequence[Row], width: int) -> str:
    line, headings = split_shared(rows)
    body = cells(rows, headings)
    widths = [max(len(row[i]) for row in [list(headings), *body]) for i in range(len(headings))]
    widths[0] = max(24, min(widths[0], width - sum(widths[1:]) - 2 * (len(widths) - 1)))

    def render(row: Sequence[str]) -> str:
        label = wrapped(row[0], widths[0])
        fields = [label[0].ljust(widths[0])]
        for heading, value, size in zip(headings[1:], row[1:], widths[1:], strict=True):
            fields.append(value.rjust(size) if COLUMNS[heading][1] else value.ljust(size))
        return "\n".join(["  ".join(fields).rstrip(), *label[1:]])

    lines = [line, ""] if line else []
    lines += [render(headings), "-" * (sum(widths) + 2 * (len(widths) - 1)), *map(render, body)]
    return "\n".join(lines)


def markdown_table(rows: Sequence[Row], missing: Sequence[Unscored] = ()) -> str:
    """For `comparison.md`: one table for each budget."""
    lines: list[str] = []
    for part in by_budget(rows, across_budgets=False):
        line, headings = split_shared(part)
        escape = [[value.replace("|", "\\|") for value in row] for row in cells(part, headings)]
        lines += ([""] if lines else []) + ([line, ""] if line else [])
        lines.append("| " + " | ".join(headings) + " |")
        lines.append("|" + "|".join(" ---: " if COLUMNS[heading][1] else " --- " for heading in headings) + "|")
        lines += ["| " + " | ".join(row) + " |" for row in escape]
    if notes := flag_notes(rows):
        lines += ["", *(f"- {MARK} {text}".replace("|", "\\|") for text in notes)]
    if missing:
        lines += ["", "Without a score:", "", *(f"- {each.status}: `{each.run}`: {each.error}" for each in missing)]
    return "\n".join(lines) + "\n"


def csv_table(rows: Sequence[Row], published: Sequence[Beside] = ()) -> str:
    """For `comparison.csv`: every column, full precision, an empty cell for what there is not.

    With `published` numbers there are further columns. A number of the row's metric stands in the row's line; one of
    another metric, or of a method that was not run here, has a line of its own.
    """
    more = ["published", "published_std", "difference", "published_note", "published_source"] if published else []
    lines: list[list[object]] = [[*CSV_COLUMNS, *more]]
    left = {compared.at: compared for compared in published}
    for row in rows:
        values = [get(row) for get in CSV_COLUMNS.values()]
        place = (row.label, row.model, row.budget, (row.method, row.task, row.metric))
        compared = left.pop(next((at for at in left if at[:4] == place), (*place, "")), None)
        lines.append([*values, *([""] * len(more) if compared is None else _published_values(compared))])
    for compared in left.values():
        method, task, metric = compared.number.key
        known: dict[str, object] = {
            "method": method,
            "task": task,
            "metric": metric,
            "model": compared.model,
            "budget": compared.budget,
        }
        known |= {"variant": compared.label.removeprefix(method).removeprefix(SEPARATOR)} if compared.label else {}
        known |= {"score_mean": compared.mean, "score_std": compared.std, "seeds": compared.seeds}
        lines.append([*(known.get(name) for name in CSV_COLUMNS), *_published_values(compared)])
    return csv_text(lines)


def _published_values(compared: Beside) -> list[object]:
    number = compared.number
    return [number.value, number.std, compared.difference, compared.note, number.source]


def write_comparison(directory: Path, rows: Sequence[Row], missing: Sequence[Unscored]) -> None:
    """comparison.csv, comparison.md and comparison.txt in `directory`."""
    write_asked(directory / "comparison.csv", csv_table(rows))
    write_asked(directory / "comparison.md", markdown_table(rows, missing))
    write_asked(directory / "comparison.txt", text_table(rows, missing) + "\n")
