"""Averages, ranks and probabilities of improvement as rows of text and as CSV."""

from __future__ import annotations

from collections.abc import Sequence

from unipet.output.csv_text import csv_text
from unipet.output.text_table import text_table
from unipet.report.averages import Average, Averages
from unipet.report.flagged import MARK
from unipet.report.numbers import GAP, figure, score
from unipet.report.verdicts import p_text

FEW_TASKS = 5  # fewer are warned of
COLUMNS = (
    *("model", "budget", "method", "tasks", "mean_rank", "mean", "low", "high", "seeds", "friedman_p"),
    *("critical_difference", "not_distinguishable_by_rank_from", "flags"),
)


def heads(averages: Averages) -> list[str]:
    """The columns of `cells`."""
    return ["method", "mean rank", "mean over tasks", "95 % interval", *averages.tasks, "P(the first is better)"]


def cells(averages: Averages, line: Average) -> list[str]:
    """One method's row."""
    interval = GAP
    if line.low is not None and line.high is not None:
        interval = f"{score(line.low, averages.scale)} to {score(line.high, averages.scale)}"
    flagged = {task for task, _ in line.flags}
    return [
        line.label,
        figure(line.rank, 2),
        score(line.mean, averages.scale),
        interval,
        *(
            score(value) + (f" {MARK}" if task in flagged else "")
            for task, value in zip(averages.tasks, line.scores, strict=True)
        ),
        _better(averages, line),
    ]


def _better(averages: Averages, line: Average) -> str:
    """How probable it is that a run of the first method is better than one of this one."""
    first = averages.lines[0].label
    known = next((each for each in averages.improvements if (each.a, each.b) == (first, line.label)), None)
    return GAP if known is None else f"{known.probability:.2f} [{known.low:.2f}, {known.high:.2f}]"


def statements(averages: Averages) -> list[str]:
    """What the ranks say, and what is not in the table."""
    ranked, labels = averages.ranking, [line.label for line in averages.lines]
    said = [
        f"Friedman over {ranked.tasks} tasks: p {p_text(ranked.p)} (Iman-Davenport F {ranked.f:.3g}); "
        + (
            f"mean ranks further apart than {ranked.critical:.2f} differ (Nemenyi, 5 %)"
            if ranked.differ
            else f"no ranks differ (Nemenyi's critical difference would be {ranked.critical:.2f})"
        )
    ]
    if ranked.differ:
        said += [f"not distinguishable by rank: {', '.join(labels[at] for at in run)}" for run in ranked.alike]
    if ranked.tasks < FEW_TASKS:
        said.append(f"warning: {ranked.tasks} tasks are a small sample for a test of ranks")
    if averages.missing:
        said.append(
            "left out, with no score on: "
            + "; ".join(f"{label} ({', '.join(t)})" for label, t in averages.missing.items())
        )
    if averages.unranked:
        said.append(f"tasks left out, whose runs are not ranked: {', '.join(averages.unranked)}")
    if not averages.scale:
        said.append("no mean over tasks: the scales of their metrics do not allow one")
    return said


def averages_text(several: Sequence[Averages]) -> str:
    """For the terminal."""
    parts = []
    for each in several:
        metrics = ", ".join(f"{task} ({metric})" for task, metric in zip(each.tasks, each.metrics, strict=True))
        table = text_table(heads(each), [cells(each, line) for line in each.lines], width=120)
        parts.append("\n".join([f"over {each.name}: {metrics}", table, *(f"  {said}" for said in statements(each))]))
    return "\n\n".join(parts)


def averages_csv(several: Sequence[Averages]) -> str:
    """One line for each method, base model and budget, in full precision."""
    tasks = list(dict.fromkeys(task for each in several for task in each.tasks))
    columns = [
        "model",
        "budget",
        "method",
        "tasks",
        "mean_rank",
        "mean",
        "low",
        "high",
        "seeds",
        "friedman_p",
        "critical_difference",
    ]
    lines: list[list[object]] = [[*columns, "not_distinguishable_by_rank_from", "flags", *tasks]]
    for each in several:
        for at, line in enumerate(each.lines):
            by_task = dict(zip(each.tasks, line.scores, strict=True))
            near = [
                each.lines[other].label for other in range(len(each.lines)) if other != at and _alike(each, at, other)
            ]
            flags = ", ".join(f"{task}: {flag.count}" for task, flag in line.flags)
            values: list[object] = [
                *(each.model, each.budget, line.label, len(each.tasks), line.rank, line.mean, line.low, line.high),
                *(line.seeds, each.ranking.p, each.ranking.critical, " | ".join(near), flags),
                *(by_task.get(task) for task in tasks),
            ]
            lines.append(values)
    return csv_text(lines)


def _alike(averages: Averages, at: int, other: int) -> bool:
    return any(at in run and other in run for run in averages.ranking.alike)


def improvements_csv(several: Sequence[Averages]) -> str:
    """One line for each pair of methods: P(a run of a is better than one of b), with its limits."""
    lines: list[list[object]] = [["model", "budget", "a", "b", "tasks", "probability", "low", "high"]]
    for each in several:
        for pair in each.improvements:
            numbers = (len(each.tasks), pair.probability, pair.low, pair.high)
            lines.append([each.model, each.budget, pair.a, pair.b, *numbers])
    return csv_text(lines)
