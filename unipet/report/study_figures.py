"""Figures of a study: main effects and contrasts with their intervals, and the critical-difference diagram of mean ranks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from unipet.output.terminal import plain
from unipet.report.averages import Averages
from unipet.report.contrasts import Contrast
from unipet.report.effect_rows import Effect, shown, where
from unipet.report.estimates import Estimated
from unipet.report.flagged import MARK
from unipet.report.numbers import wrapped
from unipet.report.standings import DIFFERENT

if TYPE_CHECKING:
    from matplotlib.figure import Figure

MOST = 40  # rows of a figure
LABEL = 44  # characters of a label's line
BLUE, GREY = "#0b5fa5", "#444444"


def study_figures(
    effects: Sequence[Effect], contrasts: Sequence[Contrast], averages: Sequence[Averages]
) -> dict[str, Figure]:
    """Name -> figure, of what there is anything for."""
    figures = {}
    changed = [
        (f"{each.change.factor}: {each.change.before} → {each.change.after}", one)
        for each in effects
        for one in shown(each.estimates)
    ]
    asked = [(each.asked, one) for each in contrasts for one in each.estimates]
    if changed:
        figures["effects"] = intervals(changed[:MOST], "after - before")
    if asked:
        figures["contrasts"] = intervals(asked[:MOST], "first - second")
    if averages:
        figures["ranks"] = critical_differences(averages)
    return figures


def intervals(rows: Sequence[tuple[str, Estimated]], meaning: str) -> Figure:
    """One line per estimate: its mean and its 95 % interval; filled where it differs from zero after correction."""
    from matplotlib.figure import Figure

    names = [
        "\n".join(wrapped(plain(f"{name}, {where(each, False)}"), LABEL)) + f" {MARK}" * bool(each.flagged)
        for name, each in rows
    ]
    figure = Figure(figsize=(6.4, 0.9 + 0.22 * sum(name.count("\n") + 1 for name in names)), layout="constrained")
    axis = figure.subplots()
    axis.axvline(0.0, color="#999999", linestyle="--", linewidth=0.8)
    for place, (_, each) in enumerate(rows):
        colour = BLUE if each.verdict == DIFFERENT else GREY
        if each.low is not None and each.high is not None:
            axis.plot([each.low, each.high], [place, place], color=colour, linewidth=1.2)
        axis.plot(
            [each.difference or 0.0],
            [place],
            "D",
            ms=5,
            mec=colour,
            mfc=colour if each.verdict == DIFFERENT else "white",
        )
    axis.set_yticks(range(len(rows)), names)
    axis.set_ylim(len(rows) - 0.5, -0.5)
    axis.set_xlabel(
        f"difference ({meaning}, more is better) and its 95 % interval\nfilled: different after Holm's correction"
    )
    axis.grid(axis="x", alpha=0.3)
    return figure


def critical_differences(averages: Sequence[Averages]) -> Figure:
    """Demšar's diagram (2006, Figure 1), one panel per base model and budget: methods at their mean ranks, and a bar over those
    that are not distinguishable; the critical difference as a ruler on top."""
    from matplotlib.figure import Figure

    heights = [1.0 + 0.24 * (len(each.lines) + len(each.ranking.alike)) for each in averages]
    figure = Figure(figsize=(6.4, sum(heights)), layout="constrained")
    axes = figure.subplots(len(averages), 1, squeeze=False, height_ratios=heights)[:, 0]
    for each, axis in zip(averages, axes, strict=True):
        for place, line in enumerate(each.lines):
            axis.plot([line.rank], [place], "D", ms=5, color=GREY)
        for number, run in enumerate(each.ranking.alike, 1):
            ends = [each.lines[at].rank for at in (run[0], run[-1])]
            axis.plot(ends, [len(each.lines) - 1 + 0.7 * number] * 2, color=BLUE, linewidth=3, solid_capstyle="butt")
        best = each.lines[0].rank
        axis.plot([best, best + each.ranking.critical], [-0.8, -0.8], "|-", color="#999999", linewidth=1)
        axis.text(
            best, -1.0, f"critical difference {each.ranking.critical:.2f}", fontsize=7, color="#666666", va="bottom"
        )
        names = ["\n".join(wrapped(plain(line.label), LABEL)) + f" {MARK}" * bool(line.flags) for line in each.lines]
        axis.set_yticks(range(len(each.lines)), names)
        axis.set_ylim(len(each.lines) - 0.3 + 0.7 * len(each.ranking.alike), -1.8)
        axis.set_xlim(0.8, len(each.lines) + 0.2)
        axis.set_xlabel(
            f"mean rank over {each.ranking.tasks} tasks (1 is the best); bars join what ranks do not tell apart"
        )
        axis.set_title(plain(f"{each.model}, budget {each.budget}"), fontsize=8)
        axis.grid(axis="x", alpha=0.3)
    return figure
