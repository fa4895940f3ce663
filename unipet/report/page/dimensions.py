"""The part of the page on what each design dimension does."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from unipet.report.numbers import score
from unipet.report.page.comparisons import Comparison
from unipet.report.page.effects import SAME, Effect, across_tasks
from unipet.report.page.rendering import Table


def effect_tables(effects: Mapping[str, Sequence[Effect]], comparisons: Sequence[Comparison]) -> list[Table]:
    """The effects of every comparison that has any; `effects`: id of a comparison -> its effects."""
    return [
        _table(f"Effects: {comparison.title}", effects[comparison.id], comparison.id)
        for comparison in comparisons
        if effects[comparison.id]
    ]


def pooled_tables(comparisons: Sequence[Comparison]) -> list[Table]:
    """The effects averaged over tasks."""
    return [_table(f"Averaged over tasks: {scope}", shared) for scope, shared in across_tasks(comparisons)]


def _table(caption: str, effects: Sequence[Effect], group: str | None = None) -> Table:
    heads = ("dimension", "change", "mean difference", "smallest and largest pair", "pairs", "seeds of all", "the rest")
    return Table(caption, heads, [_effect_row(effect) for effect in effects], (2, 3, 4, 5), group)


def _effect_row(effect: Effect) -> tuple[str, ...]:
    means, scale = [pair.mean for pair in effect.pairs], effect.pairs[0].before.row.scale
    tuned = sum(pair.rest != SAME for pair in effect.pairs)
    return (
        effect.dimension,
        f"{effect.before} → {effect.after}",
        score(effect.mean, scale, "+"),
        f"{score(min(means), scale, '+')} to {score(max(means), scale, '+')}",
        str(len(effect.pairs)),
        str(sum(len(pair.differences) for pair in effect.pairs)),
        f"optimiser differs in {tuned}" if tuned else "the same",
    )
