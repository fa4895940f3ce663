"""The paper's table in LaTeX: one `table` environment that needs the package booktabs and nothing else."""

from __future__ import annotations

import unicodedata

from unipet.report import numbers
from unipet.report.comparing import BEST, NOT_WORSE
from unipet.report.flagged import MARK
from unipet.report.numbers import GAP
from unipet.report.paper import Cell, Column, PaperTable, percent
from unipet.report.published.beside import BESIDE, DIFFER, PUBLISHED, setting_notes

_SIGNS = {
    "\\": r"\textbackslash{}",
    "{": r"\{",
    "}": r"\}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    **{sign: f"\\{sign}" for sign in "#$%&_"},
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    '"': "''",
    "±": r"$\pm$",
    "↓": r"$\downarrow$",
    "×": r"$\times$",
    "…": r"\ldots{}",
    "–": "--",
    "·": r"$\cdot$",
    MARK: r"$^\dagger$",
}


def escape(text: str) -> str:
    """Text that LaTeX prints as it is, in any font encoding. Other signs than ASCII and accented letters become `?`."""
    return "".join(_SIGNS.get(sign) or _letter(sign) for sign in " ".join(text.split()))


def _letter(sign: str) -> str:
    return sign if unicodedata.normalize("NFD", sign)[0].isascii() else "?"


def latex(table: PaperTable, label: str = "tab:comparison") -> str:
    r"""A `table` for `\input`; its caption ends with the notes."""
    columns = table.columns
    lines = [
        "% Made by `unipet report --latex`. Needs \\usepackage{booktabs}.",
        r"\begin{table}[t]",
        r"\centering",
        r"\begin{tabular}{lr" + "r" * len(columns) + "}",
        r"\toprule",
        " & ".join(["method", r"\%", *(escape(column.task) for column in columns)]) + r" \\",
        " & ".join(["", "", *(_metric(column) for column in columns)]) + r" \\",
    ]
    for block in table.blocks:
        lines.append(r"\midrule")
        lines.append(rf"\multicolumn{{{2 + len(columns)}}}{{l}}{{\emph{{{escape(block.heading)}}}}} \\")
        for line in block.lines:
            cells = [_score(column, line.cells[column]) if column in line.cells else GAP for column in columns]
            lines.append(" & ".join([escape(line.label), escape(percent(line)), *cells]) + r" \\")
    notes = " ".join(escape(note) for note in table.notes)
    lines += [
        r"\bottomrule",
        r"\end{tabular}",
        rf"\caption{{{notes} \%: trainable parameters in percent of the base model's.}}",
        rf"\label{{{label}}}",
        r"\end{table}",
    ]
    return "\n".join([*lines, *_published(table, label)]) + "\n"


def _published(table: PaperTable, label: str) -> list[str]:
    """A second table: papers' numbers beside ours."""
    if not table.published:
        return []
    notes = setting_notes(table.published)
    differ = f" {DIFFER}: {' / '.join(notes)}." if notes else ""
    return [
        "",
        r"\begin{table}[t]",
        r"\centering",
        r"\begin{tabular}{llllrrrrll}",
        r"\toprule",
        " & ".join(map(escape, BESIDE)) + r" \\",
        r"\midrule",
        *(" & ".join(map(escape, compared.texts())) + r" \\" for compared in table.published),
        r"\bottomrule",
        r"\end{tabular}",
        rf"\caption{{{escape(PUBLISHED + '.' + differ)}}}",
        rf"\label{{{label}:published}}",
        r"\end{table}",
    ]


def _metric(column: Column) -> str:
    return escape(f"({column.metric or GAP}{'' if column.higher_is_better else ' ↓'})")


def _score(column: Column, cell: Cell) -> str:
    text = numbers.score(cell.mean, column.scale)
    text = {BEST: rf"\mathbf{{{text}}}"}.get(cell.standing, text)
    text += "" if cell.std is None else rf" \pm {numbers.score(cell.std, column.scale)}"
    text = rf"\underline{{${text}$}}" if cell.standing == NOT_WORSE else f"${text}$"
    return text + (r"$^\dagger$" if cell.flags else "")
