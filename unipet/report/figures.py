"""Figures for papers, each as PDF and PNG: every group's scores by method, and scores against trainable parameters."""

from __future__ import annotations

import io
import math
import textwrap
from collections.abc import Callable, Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from unipet.errors import UnipetError
from unipet.output.files import write_asked
from unipet.output.terminal import plain
from unipet.report.aggregate import Row
from unipet.report.comparing import BEST, NOT_WORSE, Group
from unipet.report.flagged import MARK
from unipet.report.numbers import wrapped
from unipet.report.tuning import Curve

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

FORMATS = ("pdf", "png")
LABEL = 40  # characters of a label's line
ACROSS = 3  # panels in a row
MARKERS = "osD^vP*X<>ph"
#: Of lines that are told apart by colour and mark: dark ones first, then their light twins (matplotlib's tab20).
COLOURS = [f"C{number}" for number in range(10)] + [
    *("#aec7e8", "#ffbb78", "#98df8a", "#ff9896", "#c5b0d5", "#c49c94", "#f7b6d2", "#c7c7c7", "#dbdb8d", "#9edae5")
]
BANDS = 4  # lines of a panel up to which each shows its interval
SETTINGS = {
    "pdf.fonttype": 42,
    "font.size": 8,
    "axes.formatter.useoffset": False,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "text.parse_math": False,  # a $ in a name is a $
}


def check_figures() -> None:
    """Raise `UnipetError` where matplotlib is missing."""
    if find_spec("matplotlib") is None:
        raise UnipetError(
            "--figures: the package matplotlib is not installed. Install it: `pip install 'unipet[plots]'`."
        )


def write_figures(
    directory: Path,
    groups: Sequence[Group],
    tuning: Sequence[Curve] = (),
    more: Callable[[], Mapping[str, Figure]] = dict,
) -> list[Path]:
    """`scores` and `scores_by_parameters` as .pdf and .png in `directory`, `tuning` where a search has made curves of it, and
    what `more` draws; the paths.

    Raises `UnipetError` where matplotlib is missing, no run has a score, or a file cannot be written.
    """
    check_figures()
    import matplotlib

    shown = [group for group in groups if any(row.score is not None for row in group.rows)]
    if not shown:
        raise UnipetError("--figures: no run has a score, so there is nothing to draw.")
    drawn: list[tuple[Path, bytes]] = []
    with matplotlib.rc_context(SETTINGS):
        figures = {name: draw(shown) for name, draw in FIGURES.items()} | (
            {"tuning": efforts(tuning)} if tuning else {}
        )
        figures |= more()
        for name, figure in figures.items():
            for kind in FORMATS:
                buffer = io.BytesIO()
                dates = {"CreationDate": None} if kind == "pdf" else {"Software": None}  # the same input, the same file
                # As large as its texts: the layout gives titles no room at the sides.
                figure.savefig(buffer, format=kind, dpi=200, metadata=dates, bbox_inches="tight", pad_inches=0.04)
                drawn.append((directory / f"{name}.{kind}", buffer.getvalue()))
    for path, content in drawn:
        write_asked(path, content)
    return [path for path, _ in drawn]


def efforts(tuning: Sequence[Curve]) -> Figure:
    """The expected best selection score against the number of trials, one line for each study, and its interval where few
    lines share a panel. A study has one colour and mark in all panels; the legend stands beside them."""
    from matplotlib.ticker import MaxNLocator

    places = list(dict.fromkeys(curve.place for curve in tuning))
    labels = list(dict.fromkeys(curve.label for curve in tuning))
    figure, axes = _panels(len(places), max(2.4, 0.16 * len(labels)))
    lines = {}
    for panel, place in zip(axes, places, strict=False):
        own = [curve for curve in tuning if curve.place == place]
        for curve in own:
            number = labels.index(curve.label)
            counts, colour = range(1, len(curve.expected) + 1), COLOURS[number % len(COLOURS)]
            if len(own) <= BANDS:
                panel.fill_between(counts, curve.low, curve.high, color=colour, alpha=0.15, linewidth=0)
            mark = MARKERS[number % len(MARKERS)]
            (lines[curve.label],) = panel.plot(counts, curve.expected, mark + "-", markersize=3, lw=1, color=colour)
        task, model, budget, metric = place
        panel.set_title(plain(f"{task}, {model}\n{budget}"))
        panel.set_xlabel("trials" if len(own) <= BANDS else "trials (intervals: --tuning FILE)")
        panel.set_ylabel(f"best {metric} expected, selection split")
        panel.xaxis.set_major_locator(MaxNLocator(integer=True))
    names = ["\n".join(wrapped(plain(label), LABEL)) for label in labels]
    figure.legend([lines[label] for label in labels], names, loc="outside right upper", frameon=False)
    return figure


def _panels(count: int, height: float) -> tuple[Figure, list[Axes]]:
    from matplotlib.figure import Figure

    across = min(count, ACROSS)
    down = math.ceil(count / across)
    figure = Figure(figsize=(1.6 + 2.9 * across, 0.6 + height * down), layout="constrained")
    axes = figure.subplots(down, across, squeeze=False).ravel().tolist()
    for spare in axes[count:]:
        spare.set_visible(False)
    return figure, axes[:count]


def _wrapped(task: str, model: str, limits: str) -> str:
    """A panel's title, no wider than the panel."""
    return plain(f"{task}\n{textwrap.fill(model + (f', {limits}' if limits else ''), 34)}")


def _axis(row: Row) -> str:
    return row.metric + ("" if row.higher_is_better else " (less is better)")


def scores(groups: Sequence[Group]) -> Figure:
    """One panel per group: methods from best to worst, every seed a dot, mean and ± one standard deviation."""
    lines = max(sum(len(wrapped(label, LABEL)) for label in group.labels) for group in groups)
    figure, axes = _panels(len(groups), 0.9 + 0.2 * lines)
    for group, axis in zip(groups, axes, strict=True):
        there = [(row, label) for row, label in zip(group.rows, group.labels, strict=True) if row.score is not None]
        for place, (row, label) in enumerate(there):
            standing = group.standings.get(label)
            colour = {BEST: "#0b5fa5", NOT_WORSE: "#0b5fa5"}.get(standing or "", "#444444")
            axis.plot(list(row.scores), [place] * row.scored, "o", ms=3.5, mfc="none", mec=colour)
            error = None if row.std is None else [row.std]
            full = colour if standing == BEST else "white"  # filled: best; white: the others
            axis.errorbar([row.score or 0.0], [place], xerr=error, fmt="D", ms=5, color=colour, mfc=full)
        names = [
            "\n".join(wrapped(plain(label), LABEL))
            + f" {MARK}" * bool(row.flags)
            + " =" * (group.standings.get(label) == NOT_WORSE)
            for row, label in there
        ]
        axis.set_yticks(range(len(there)), names)
        axis.set_ylim(len(there) - 0.5, -0.5)
        _single(axis.set_xticks, [value for row, _ in there for value in row.scores])
        axis.set_xlabel(_axis(there[0][0]))
        axis.set_title(_wrapped(there[0][0].task_label, group.model, f"budget {group.budget}"), fontsize=8)
        axis.grid(axis="x", alpha=0.3)
    figure.supxlabel(
        "○ a seed   ◇ mean ± one standard deviation   ◆ best mean   = not distinguishable from it at 5 %"
        + f"   {MARK} flagged" * any(group.flagged for group in groups),
        fontsize=7,
    )
    return figure


def scores_by_parameters(groups: Sequence[Group]) -> Figure:
    """One panel per task and base model: mean score ± one standard deviation against trainable parameters in percent.

    A method's points are joined over the budgets that differ in parameters alone: the curves of He et al. (2022), Figure 4.
    """
    methods = list(dict.fromkeys(row.label for group in groups for row in group.rows))
    looks: dict[str, dict[str, Any]] = {
        label: {"marker": MARKERS[i % len(MARKERS)], "color": f"C{i % 10}"} for i, label in enumerate(methods)
    }
    panels: dict[tuple[str, ...], dict[str, list[Row]]] = {}
    for row in (row for group in groups for row in group.rows if row.score is not None and row.percent is not None):
        panel = panels.setdefault((row.task_label, row.model, row.metric, row.beside), {})
        panel.setdefault(row.label, []).append(row)
    figure, axes = _panels(max(len(panels), 1), 2.6)
    positive = [row.percent for curves in panels.values() for rows in curves.values() for row in rows if row.percent]
    flagged = {label for curves in panels.values() for label, rows in curves.items() if any(row.flags for row in rows)}
    handles: dict[str, Any] = {}
    for ((task, model, _, beside), curves), axis in zip(panels.items(), axes, strict=False):
        for label, rows in curves.items():
            points = sorted(rows, key=lambda row: row.percent or 0.0)
            handles[f"{label} {MARK}" if label in flagged else label] = axis.errorbar(
                [row.percent or 0.0 for row in points],
                [row.score or 0.0 for row in points],
                yerr=[math.nan if row.std is None else row.std for row in points],
                linewidth=0.8,
                elinewidth=0.5,
                capsize=1.5,
                ms=4,
                **looks[label],
            )
        _percent_axis(axis, positive)
        axis.set_xlabel("trainable parameters, % of the base model")
        _single(axis.set_yticks, [row.score or 0.0 for rows in curves.values() for row in rows])
        axis.set_ylabel(_axis(next(iter(curves.values()))[0]))
        axis.set_title(_wrapped(task, model, beside), fontsize=8)
        axis.grid(alpha=0.3)
    if handles:
        names = ["\n".join(wrapped(plain(label), LABEL)) for label in handles]
        figure.legend(list(handles.values()), names, loc="outside right upper", fontsize=7)
    return figure


def _single(set_ticks: Callable[..., Any], values: Sequence[float]) -> None:
    """Label an axis that has one value with this value."""
    if len(set(values)) == 1:
        set_ticks([values[0]], [f"{values[0]:.6g}"])


def _percent_axis(axis: Axes, positive: Sequence[float]) -> None:
    """Make the axis logarithmic, the same in every panel, with a place for zero on the left."""
    if not positive:
        return
    low, high = min(positive), max(positive)
    ticks = [m * 10.0**e for e in range(-6, 3) for m in (1, 2, 5) if low / 1.5 <= m * 10.0**e <= 1.5 * high]
    if len(ticks) < 2 or low == high:
        ticks = sorted({low, high})  # no round number tells where these are
    axis.set_xscale("symlog", linthresh=low, linscale=0.4)
    axis.set_xticks([0.0, *ticks], ["0", *(f"{tick:.4g}" for tick in ticks)])
    axis.set_xticks([], minor=True)
    axis.set_xlim(-0.4 * low, 1.6 * high)


FIGURES: dict[str, Callable[[Sequence[Group]], Figure]] = {
    "scores": scores,
    "scores_by_parameters": scores_by_parameters,
}
