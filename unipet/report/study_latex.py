"""Contrasts, main effects and averages as tables in LaTeX, each a `table` environment that needs booktabs and nothing else."""

from __future__ import annotations

from collections.abc import Sequence

from unipet.report import average_rows, effect_rows
from unipet.report.averages import Averages
from unipet.report.contrasts import Contrast
from unipet.report.effect_rows import HEADS, Effect
from unipet.report.latex import escape

MOST = 60  # rows of a table


def study_latex(
    effects: Sequence[Effect],
    contrasts: Sequence[Contrast],
    averages: Sequence[Averages],
    label: str = "tab:comparison",
) -> str:
    """The tables that there is anything for; "" for none."""
    tables = []
    rows = [(each, one) for each in contrasts for one in each.estimates]
    if rows:
        places = effect_rows.several_places([one for _, one in rows])
        body = [[each.asked, effect_rows.where(one, places), *effect_rows.cells(one)] for each, one in rows]
        caption = effect_rows.contrasts_caption(contrasts)
        tables.append(_table(["contrast", "on", *HEADS], "ll", body, caption, f"{label}:contrasts"))
    changed = [(each.change, one) for each in effects for one in effect_rows.shown(each.estimates)]
    if changed:
        places = effect_rows.several_places([one for _, one in changed])
        body = [
            [
                change.factor,
                f"{change.before} → {change.after}",
                effect_rows.where(one, places),
                *effect_rows.cells(one),
            ]
            for change, one in changed[:MOST]
        ]
        caption = effect_rows.effects_caption(effects)
        tables.append(_table(["factor", "change", "on", *HEADS], "lll", body, caption, f"{label}:effects"))
    for number, each in enumerate(averages):
        body = [average_rows.cells(each, line) for line in each.lines]
        caption = f"Over {each.name}. {'. '.join(average_rows.statements(each))}."
        tables.append(_table(average_rows.heads(each), "l", body, caption, f"{label}:averages{number or ''}"))
    return "\n".join(tables)


def _table(heads: Sequence[str], left: str, body: Sequence[Sequence[str]], caption: str, label: str) -> str:
    columns = left + "r" * (len(heads) - len(left))
    lines = [r"\begin{table}[t]", r"\centering", rf"\begin{{tabular}}{{{columns}}}", r"\toprule"]
    lines += [" & ".join(map(escape, heads)) + r" \\", r"\midrule"]
    lines += [" & ".join(map(escape, row)) + r" \\" for row in body]
    lines += [
        r"\bottomrule",
        r"\end{tabular}",
        rf"\caption{{{escape(caption)}}}",
        rf"\label{{{label}}}",
        r"\end{table}",
    ]
    return "\n".join(lines) + "\n"
