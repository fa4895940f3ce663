"""The comparison table: every configuration a row, sortable by every column, filtered by text, task, budget and model."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from unipet.report.comparing import BEST, NOT_WORSE, WORSE
from unipet.report.flagged import MARK, counted
from unipet.report.numbers import percent, score
from unipet.report.page.comparisons import Comparison, Line
from unipet.report.page.markup import attributes, e, number, options, section, table, tag
from unipet.report.table import score_text, seeds_text

#: verdict of the statistics -> how the table says it
STANDINGS = {BEST: "★ best", NOT_WORSE: "≈ not distinguishable", WORSE: "↓ worse"}
#: What all rows share stands above the table instead of in a column.
SHARED: dict[str, Callable[[Comparison], str]] = {
    "task": lambda one: one.task,
    "model": lambda one: one.model,
    "budget": lambda one: one.budget,
}


@dataclass(frozen=True)
class Cell:
    """What a cell shows, already as markup, and what it is sorted by; None where there is nothing."""

    shown: str
    value: object
    css: str | None = None


def _figure(value: float | None, pattern: str) -> Cell:
    return Cell(e(number(value, pattern)), value, "n")


def _method(comparison: Comparison, line: Line) -> Cell:
    link = tag("a", e(line.row.method), href=f"#{method_id(line.row.method)}")
    variant = tag("span", e(line.row.variant), css="variant") if line.row.variant else ""
    return Cell(link + variant, line.label)


def _task(comparison: Comparison, line: Line) -> Cell:
    mark = tag("span", "synthetic", css="chip") if line.row.synthetic else ""
    return Cell(e(line.row.task) + mark, line.row.task)


def _score(comparison: Comparison, line: Line) -> Cell:
    seeds = ", ".join(score(one, line.row.scale) for one in line.row.scores)
    metric = tag("span", e(line.row.metric), css="variant")
    flags = tag("span", e(counted(line.row)), css="chip flag") if line.row.flags else ""
    return Cell(tag("span", e(score_text(line.row)), title=seeds or None) + metric + flags, line.row.score, "n")


def _standing(comparison: Comparison, line: Line) -> Cell:
    unranked = not comparison.ranked and line.row.score is not None
    standing = comparison.standing(line) or ("not ranked" if unranked else "–")
    return Cell(e(STANDINGS.get(standing, standing)), standing, "nowrap")


COLUMNS: dict[str, Callable[[Comparison, Line], Cell]] = {
    "method": _method,
    "task": _task,
    "model": lambda one, line: Cell(e(one.model), one.model),
    "budget": lambda one, line: Cell(e(one.budget), one.budget),
    "score": _score,
    "against the best": _standing,
    "seeds": lambda one, line: Cell(e(seeds_text(line.row)), line.row.scored, "n"),
    "size": lambda one, line: Cell(e(line.row.size or "–"), line.row.size or None, "n"),
    "trainable": lambda one, line: _figure(line.row.trainable, ",d"),
    "%": lambda one, line: Cell(e(percent(line.row.percent)), line.row.percent, "n"),
    "memory, GiB": lambda one, line: _figure(line.costs.get("memory"), ".2f"),
    "training, s": lambda one, line: _figure(line.row.train_s, ".1f"),
}
FIGURES = ("score", "seeds", "size", "trainable", "%", "memory, GiB", "training, s")


def comparison_table(comparisons: Sequence[Comparison]) -> str:
    """The table with its filters."""
    values = {name: sorted({get(one) for one in comparisons}) for name, get in SHARED.items()}
    heads = [head for head in COLUMNS if len(values.get(head, "several")) > 1]
    rows = "".join(_row(comparison, line, heads) for comparison in comparisons for line in comparison.lines)
    grid = tag(
        "table",
        tag("caption", "Mean ± sample standard deviation over seeds; a row per configuration", css="visually-hidden"),
        tag("thead", tag("tr", *map(_head, heads))),
        tag("tbody", rows),
        id="comparison-table",
    )
    shared = ", ".join(f"{name} {of[0]}" for name, of in values.items() if len(of) == 1)
    return section(
        "table",
        "Comparison",
        tag("p", e(f"All rows: {shared}."), css="note") if shared else "",
        _filters(values, sum(len(comparison.lines) for comparison in comparisons)),
        tag("div", grid, css="scroll tall", role="region", tabindex="0", aria_label="comparison table"),
        tag(
            "p",
            "± is the sample standard deviation over seeds. “Against the best”: paired tests within one task, base model ",
            "and budget, corrected for their number; “not distinguishable” is from the best mean. Equal best means are all ",
            "“best”. Size: as trained, after a budget solved it. Scores are on the scale on which they are recorded.",
            css="note",
        ),
        _flags(comparisons),
    )


def _flags(comparisons: Sequence[Comparison]) -> str:
    """What the mark at a score means, for every configuration that has one."""
    rows = [
        (line.label, comparison.title, flag.count, flag.text)
        for comparison in comparisons
        for line in comparison.lines
        for flag in line.row.flags
    ]
    if not rows:
        return ""
    heads = ("configuration", "comparison", "flag", "what was found, in the first such run")
    return table(f"{MARK} Flags: scores that are worth less than they look", heads, rows)


def _filters(values: dict[str, list[str]], rows: int) -> str:
    """Search, a select for each thing that varies, and how many rows are left."""
    search = f"<input{attributes(type='search', id='filter-text', placeholder='method, option, task')}>"
    parts = [tag("label", "search ", search)]
    for name, of in values.items():
        if len(of) > 1:
            choices = options([("", "all"), *((one, one) for one in of)])
            parts.append(tag("label", f"{name} ", tag("select", choices, data_filter=name)))
    parts.append(tag("output", f"{rows} of {rows} rows", id="filter-count", aria_live="polite"))
    return tag("div", *parts, css="bar", role="search", aria_label="filter the comparison table")


def _head(head: str) -> str:
    button = tag("button", e(head), tag("span", css="arrow", aria_hidden="true"), type="button")
    return tag("th", button, scope="col", aria_sort="none", css="n" if head in FIGURES else None)


def _row(comparison: Comparison, line: Line, heads: Sequence[str]) -> str:
    cells = [(head, COLUMNS[head](comparison, line)) for head in heads]
    inside = [
        tag(
            "th" if head == "method" else "td",
            cell.shown,
            scope="row" if head == "method" else None,
            css=cell.css,
            data_value="" if cell.value is None else cell.value,
        )
        for head, cell in cells
    ]
    data = {f"data_{name}": get(comparison) for name, get in SHARED.items()}
    return tag("tr", *inside, **data)


def method_id(method: str) -> str:
    """The anchor of a method's part of the page."""
    letters = (letter if letter.isascii() and letter.isalnum() else f"-{ord(letter):x}-" for letter in method)
    return "method-" + "".join(letters)
