"""The part of the page with the scores: every seed's, and what the statistics say of each comparison."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from unipet.report.flagged import MARK, explained
from unipet.report.numbers import score
from unipet.report.page.comparisons import Comparison
from unipet.report.page.rendering import Table, number

PAIRS = 60  # that a comparison shows: their number grows with the square of the configurations


@dataclass(frozen=True)
class Verdicts:
    """What the statistics say of one comparison: reasons not to rank, every pair, what to beware of."""

    group: str
    reasons: Sequence[str]
    pairs_title: str
    pairs: Table
    beware: Sequence[str]


def score_table(comparison: Comparison) -> Table:
    """Mean and every seed's score of each configuration."""
    rows = [
        (
            line.label,
            score(line.row.score, line.row.scale) + (f" {MARK}" if line.row.flags else ""),
            score(line.row.std, line.row.scale),
            str(line.row.scored),
            ", ".join(score(value, line.row.scale) for value in line.row.scores),
        )
        for line in comparison.shown
    ]
    heads = ("configuration", f"mean {comparison.metric}", "± std", "seeds", "score of each seed")
    return Table(f"Scores: {comparison.title}", heads, rows, (1, 2, 3), comparison.id)


def verdicts(comparisons: Sequence[Comparison]) -> list[Verdicts]:
    """Those of every comparison that the statistics speak of."""
    return [found for comparison in comparisons if (found := _verdicts(comparison)) is not None]


def _verdicts(comparison: Comparison) -> Verdicts | None:
    group = comparison.verdict
    if group is None:
        return None
    how = "Ranked although" if group.ranked else "Not ranked, and shown by name:"
    reasons = [f"{how} {label}." for label in group.differences]
    reasons += [
        f"Flagged, and the best mean all the same: {text}."
        for text in explained((label, row) for label, row in group.flagged.items() if label in group.best)
    ]
    heads = ("better mean", "other", "difference", "95 % interval", "p, corrected", "verdict", "tested over")
    scale = group.rows[0].scale
    shown = sorted(group.pairs, key=lambda pair: pair.a not in group.best)[:PAIRS]
    rows = [
        (
            pair.a,
            pair.b,
            score(pair.difference, scale, "+"),
            "–"
            if pair.low is None or pair.high is None
            else f"{score(pair.low, scale, '+')} to {score(pair.high, scale, '+')}",
            number(pair.p_adjusted, ".3g"),
            pair.verdict,
            pair.basis or "–",
        )
        for pair in shown
    ]
    title = f"Every pair, tested ({len(rows)})"
    if len(rows) < len(group.pairs):
        title = (
            f"{len(rows)} of {len(group.pairs)} pairs, those with the best first; unipet report --pairs FILE writes all"
        )
    pairs = Table(f"Paired tests: {comparison.title}", heads, rows, (2, 3, 4))
    return Verdicts(comparison.id, reasons, title, pairs, group.warnings)
