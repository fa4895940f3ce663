"""The part of the page on what each design dimension does."""

from __future__ import annotations

from collections.abc import Sequence

from unipet.report.numbers import score
from unipet.report.page.comparisons import Comparison
from unipet.report.page.effects import SAME, Effect, across_tasks, effects
from unipet.report.page.markup import section, table, tag
from unipet.report.page.places import Charts, per_group, place

NOTE = (
    "A pair is two configurations that differ in one design dimension only, compared seed by seed. A diamond is the mean "
    "over all pairs of a change, whatever the rest of the configuration was. Few pairs say little."
)
NO_PAIRS = (
    "No two configurations of this comparison differ in one dimension alone. A sweep over one choice makes such pairs: "
    "unipet train -m method=… method.insertions.….position.form=parallel,sequential"
)


def dimensions(comparisons: Sequence[Comparison], charts: Charts) -> str:
    """The effect of changing one dimension alone."""
    found = {one.id: effects(one) for one in comparisons}
    empty = per_group(comparisons, [key for key, value in found.items() if not value], NO_PAIRS)
    tables = "".join(
        _effect_table(f"Effects: {one.title}", found[one.id], data_group=one.id) for one in comparisons if found[one.id]
    )
    pooled = "".join(
        _effect_table(f"Averaged over tasks: {what}", shared) for what, shared in across_tasks(comparisons)
    )
    chart = place("effects", "Differences in score by change") if "effects" in charts else ""
    note = tag("p", NOTE, css="note")
    return section("dimensions", "Effect of each design dimension", note, chart, empty, tables, pooled)


def _effect_table(caption: str, found: Sequence[Effect], **given: object) -> str:
    heads = ("dimension", "change", "mean difference", "smallest and largest pair", "pairs", "seeds of all", "the rest")
    return table(caption, heads, map(_effect_row, found), (2, 3, 4, 5), **given)


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
