"""What the statistics say: in words for a terminal, and every pair as CSV."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

from unipet.output.csv_text import csv_text
from unipet.report.comparing import NOT_WORSE, UNTESTED, WORSE, Group, Pair
from unipet.report.flagged import MARK, explained

TEXT_COLUMNS = [field.name for field in dataclasses.fields(Pair)]


def verdicts_text(groups: Sequence[Group]) -> str:
    """For each group: the best rows, those not distinguishable from them, those that are worse, and warnings."""
    return "\n".join(line for group in groups for line in _group(group))


def _group(group: Group) -> list[str]:
    lines = [f"{group.name}: {_tests(group)}"]
    best = group.best
    if best:
        against = {pair.b: pair for pair in group.pairs if pair.a == best[0]}
        lines.append(f"  best mean{' (equal)' * (len(best) > 1)}: {' and '.join(best)}")
        winners = ((label, row) for label, row in group.flagged.items() if label in best)
        lines += [f"    {MARK} flagged: {text}" for text in explained(winners)]
        for standing in (NOT_WORSE, WORSE, UNTESTED):
            labels = [_named(label, against) for label, own in group.standings.items() if own == standing]
            if labels:
                lines.append(f"  {standing}: {', '.join(labels)}")
    if not group.ranked:
        lines += _diff(group)
    else:
        lines += [f"  warning: ranked although {difference}" for difference in group.differences]
    return lines + [f"  warning: {warning}" for warning in group.warnings]


def _diff(group: Group) -> list[str]:
    """Why a group is not ranked: each setting that differs, with its values below it."""
    known = {str(each): each.lines() for each in group.diff}
    several = [known.get(difference, [difference]) for difference in group.differences]
    lines = [f"  not ranked: {first}\n" + "".join(f"    {line}\n" for line in rest) for first, *rest in several]
    return [line for text in lines for line in text.splitlines()] + ["  --anyway ranks all the same"]


def _named(label: str, against: Mapping[str, Pair]) -> str:
    pair = against.get(label)
    return label if pair is None or pair.p_adjusted is None else f"{label} (p {p_text(pair.p_adjusted)})"


def p_text(p: float) -> str:
    """Two digits; a smaller p than the resamples can show is `< 0.001`."""
    return "< 0.001" if p < 0.001 else f"{p:.2g}"


def _tests(group: Group) -> str:
    """What the group's tests speak of."""
    if not group.ranked:
        return "no ranking"
    tested = [pair for pair in group.pairs if pair.basis]
    if not tested:
        return "nothing to compare" if len(group.rows) < 2 else "nothing can be tested (one seed and no predictions)"
    parts = []
    for basis in dict.fromkeys(pair.basis for pair in tested):
        some = [pair for pair in tested if pair.basis == basis]
        seeds, examples = sorted({pair.seeds for pair in some}), some[0].examples
        splits = sorted({pair.splits for pair in some})
        blocks = f"{_range(seeds)} seeds"
        if splits != [1]:
            blocks = f"{_range(splits)} few-shot splits ({_range(seeds)} runs of each method)"
        over = {
            "seeds": blocks,
            "examples": f"{examples} examples, the trained models fixed",
            "seeds and examples": f"{blocks} and {examples} examples",
        }
        parts.append(over[basis])
    return f"paired over {'; or '.join(parts)}; Holm over {len(tested)} pair{'s' * (len(tested) > 1)}"


def _range(values: Sequence[int]) -> str:
    return str(values[0]) if len(values) == 1 else f"{values[0]} to {values[-1]}"


def pairs_csv(groups: Sequence[Group]) -> str:
    """Every pair of every group: difference (a - b, more is better), limits, p-values, verdict. An empty cell is not known."""
    lines: list[list[object]] = [["task", "model", "budget", "metric", *TEXT_COLUMNS]]
    for group in groups:
        metric = next((row.metric for row in group.rows if row.metric), "")
        for pair in group.pairs:
            values = [getattr(pair, name) for name in TEXT_COLUMNS]
            lines.append([group.task, group.model, group.budget, metric, *values])
    return csv_text(lines)
