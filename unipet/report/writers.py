"""The files that `unipet report` writes: option -> what it is, and how it is made. A new file is a row."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from unipet.report.aggregate import Row, Unscored
from unipet.report.average_rows import averages_csv, improvements_csv
from unipet.report.averages import Averages
from unipet.report.collect import Entry
from unipet.report.comparing import Group
from unipet.report.contrasts import Contrast
from unipet.report.effect_rows import Effect, contrasts_csv, effects_csv
from unipet.report.latex import latex
from unipet.report.markdown import markdown
from unipet.report.page.document import page
from unipet.report.paper import PaperTable, paper_table, wide_csv
from unipet.report.published.beside import Beside
from unipet.report.table import csv_table
from unipet.report.tuning import Curve, curves_csv
from unipet.report.verdicts import pairs_csv


@dataclass(frozen=True)
class Report:
    """Everything that a file may show."""

    entries: Sequence[Entry]
    rows: Sequence[Row]
    missing: Sequence[Unscored]
    groups: Sequence[Group]
    published: Sequence[Beside] = ()
    tuning: Sequence[Curve] = ()
    effects: Sequence[Effect] = ()
    contrasts: Sequence[Contrast] = ()
    averages: Sequence[Averages] = ()

    @property
    def table(self) -> PaperTable:
        """The paper's table."""
        return paper_table(self.groups, self.order, self.published)

    @property
    def order(self) -> list[str]:
        """The methods in the order of their runs: in a sweep, the order in which they were asked for."""
        return [str(entry.record.method) for entry in self.entries]


WRITERS: dict[str, tuple[str, Callable[[Report], str]]] = {
    "html": (
        "one page with tables, charts, drawings and differences, which needs no network (needs unipet[report])",
        lambda report: page(
            *(report.entries, report.groups),
            published=report.published,
            tuning=report.tuning,
            effects=report.effects,
            contrasts=report.contrasts,
            averages=report.averages,
        ),
    ),
    "latex": (
        "a paper's table in LaTeX: rows methods, columns tasks, best bold, not distinguishable from it underlined",
        lambda report: latex(report.table),
    ),
    "markdown": ("the same table in Markdown", lambda report: markdown(report.table)),
    "csv": ("the same table in full precision", lambda report: wide_csv(report.table)),
    "rows": (
        "one line per method, task, base model and budget, as printed",
        lambda report: csv_table(report.rows, report.published),
    ),
    "pairs": (
        "every pair of methods: difference, interval, p-values, verdict",
        lambda report: pairs_csv(report.groups),
    ),
    "effects": (
        "main effects of every choice that varies, on each task and over tasks: difference, interval, p-values",
        lambda report: effects_csv(report.effects),
    ),
    "contrasts": (
        "the contrasts that --contrast asks for, on each task and over tasks",
        lambda report: contrasts_csv(report.contrasts),
    ),
    "averages": (
        "methods over tasks: mean score with its interval, mean rank, critical difference",
        lambda report: averages_csv(report.averages),
    ),
    "improvement": (
        "every pair of methods over tasks: the probability that a run of one is better than a run of the other",
        lambda report: improvements_csv(report.averages),
    ),
    "tuning": (
        "tuning-effort curves as CSV: the best selection score that n trials of each study may expect",
        lambda report: curves_csv(report.tuning),
    ),
}
