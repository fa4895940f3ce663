"""The part of the page about mixtures: how the ways of evaluating their experts compare, and how training used each expert."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from unipet.report import numbers
from unipet.report.page.comparisons import Comparison, Line
from unipet.report.page.rendering import Table, number
from unipet.report.page.shapes import Box, Drawing, Shape, Text, short
from unipet.runs.expert_report import Evaluated, ExpertReport

ORACLE = "oracle_expert"  # chosen on the examples that it is scored on: an upper bound of the scores of experts
#: A key of `ways` -> what a table calls it.
WAYS = {
    "merged": "merged",
    "mean_of_outputs": "mean of outputs",
    "ensemble_logits": "ensemble of logits",
    "random": "random routing",
    "best_expert": "best single expert",
    ORACLE: "oracle: best single expert on these examples",
    "routed": "routed",
}
WIDTH, HEIGHT, LEFT = 380, 150, 34
DRAWN = 24  # uses that are drawn on one page, at most


@dataclass(frozen=True)
class Use:
    """The picture of how one run used its experts, and its caption."""

    drawing: Drawing
    caption: str


def expert_tables(comparisons: Sequence[Comparison]) -> list[Table]:
    """For each comparison with mixtures the mean scores of every way of evaluating them, over runs."""
    found = []
    for comparison in comparisons:
        rows = [row for line in comparison.lines if (row := _row(line)) is not None]
        if rows:
            heads = ("configuration", "runs", *WAYS.values(), "barrier (loss)", "cosine of experts")
            found.append(Table(f"{comparison.title}: experts", heads, rows, range(1, len(heads)), comparison.id))
    return found


def _reports(line: Line) -> list[ExpertReport]:
    return [entry.record.mixture for entry in line.entries if entry.record.mixture is not None]


def _row(line: Line) -> tuple[str, ...] | None:
    reports = [report for report in _reports(line) if report.ways]
    if not reports:
        return None
    scores = []
    for way in WAYS:
        own = [ways[way].score for ways in map(_ways, reports) if way in ways]
        scores.append(numbers.score(_mean([score for score in own if score is not None])))
    cosines = [
        value
        for report in reports
        for slots in report.similarity.values()
        for sites in slots.values()
        for value in sites.values()
    ]
    barrier = _mean([report.barrier for report in reports if report.barrier is not None])
    return (line.label, str(len(reports)), *scores, number(barrier, ".3g"), number(_mean(cosines), ".2f"))


def _ways(report: ExpertReport) -> dict[str, Evaluated]:
    """The ways of a report. Earlier records call an oracle the best expert."""
    oracle = report.best_by == "evaluation"
    return {ORACLE if oracle and way == "best_expert" else way: each for way, each in report.ways.items()}


def _mean(values: Sequence[float]) -> float | None:
    return sum(values) / len(values) if values else None


def expert_uses(comparisons: Sequence[Comparison]) -> list[Use]:
    """For each configuration the use of experts in its first run that has a mixture."""
    found = []
    for comparison in comparisons:
        for line in comparison.lines:
            entry = next(
                (each for each in line.entries if each.record.mixture is not None and each.record.mixture.use), None
            )
            report = None if entry is None else entry.record.mixture
            if entry is None or report is None:
                continue
            for insertion, shares in report.use.items():
                collapsed = len(report.collapsed.get(insertion, ())) if insertion in report.collapsed else 0
                warning = f" The router has collapsed at {collapsed} sites." if collapsed else ""
                caption = f"{line.label}, {insertion}, seed {entry.record.seed}.{warning}"
                found.append(Use(_use(caption, report.use_steps, shares), caption))
    return found[:DRAWN]


def _use(title: str, steps: Sequence[int], shares: Sequence[Sequence[float]]) -> Drawing:
    """Stacked shares, one column for each interval."""
    body: list[Shape] = [Text(LEFT - 6, 22, "100%", "small", "end"), Text(LEFT - 6, HEIGHT - 26, "0", "small", "end")]
    step = (WIDTH - LEFT - 8) / max(len(shares), 1)
    height = HEIGHT - 48
    for at, column in enumerate(shares):
        y = 18.0
        for expert, share in enumerate(column):
            body.append(Box(LEFT + at * step, y, max(step - 1, 1), share * height, f"expert e{expert % 8}"))
            if at == len(shares) - 1 and share * height > 12:
                body.append(Text(LEFT + at * step + step / 2, y + share * height / 2 + 4, str(expert), "small"))
            y += share * height
    if steps:
        body.append(Text(LEFT, HEIGHT - 8, "step 1", "small", "start"))
        body.append(Text(WIDTH - 8, HEIGHT - 8, f"step {steps[-1]}", "small", "end"))
    last = ", ".join(f"expert {expert} {share:.0%}" for expert, share in enumerate(shares[-1])) if shares else "none"
    return Drawing(WIDTH, HEIGHT, f"Use of experts: {short(title, 120)}", f"At the end: {last}", body, "circuit")
