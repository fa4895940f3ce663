"""What changing one design dimension alone does: paired differences between runs that are otherwise the same.

A pair is two configurations of one comparison whose methods have the same number of insertions and differ in one
dimension only, and the same seed of both. Its difference is score(after) - score(before). A change is averaged over all
its pairs: first over the seeds of two configurations, then over these, so that more seeds do not weigh more.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from statistics import mean
from typing import Any

from unipet.report.aggregate import score_of
from unipet.report.identity import CONTENT, IGNORED, Block, block_of
from unipet.report.page.comparisons import Comparison, Line
from unipet.runs.design import trained
from unipet.runs.labels import leaves, plain

DIMENSIONS = ("function", "size", "position", "composition", "scaling", "mixture")
SAME, TUNED = "everything else is the same", "the optimiser's settings differ, too"


@dataclass(frozen=True)
class Pair:
    """Two configurations, and the difference for every seed that both have a score for."""

    before: Line
    after: Line
    rest: str  # SAME or TUNED
    differences: tuple[float, ...]

    @property
    def mean(self) -> float:
        return mean(self.differences)


@dataclass(frozen=True)
class Effect:
    """One change of one dimension: what it was, what it became, and all pairs that show it."""

    dimension: str
    before: str
    after: str
    pairs: tuple[Pair, ...]

    @property
    def mean(self) -> float:
        """Averaged over the pairs."""
        return mean(pair.mean for pair in self.pairs)


def effects(comparison: Comparison) -> list[Effect]:
    """Every change that this comparison has a pair for, by dimension; [] where none differ in one dimension alone."""
    pairs: dict[tuple[str, str, str], list[Pair]] = {}
    for left, right in combinations(comparison.scored, 2):
        change = only_change(left, right)
        rest = rest_of(left, right)
        if change is None or rest is None:
            continue
        dimension, before, after = change
        first, second = (left, right) if _order(before) <= _order(after) else (right, left)
        before, after = sorted((before, after), key=_order)
        differences = by_seed(first, second)
        if differences:
            pairs.setdefault((dimension, before, after), []).append(Pair(first, second, rest, differences))
    ordered = sorted(pairs.items(), key=lambda item: (DIMENSIONS.index(item[0][0]), item[0][1:]))
    return [Effect(*key, tuple(pairs)) for key, pairs in ordered]


def by_seed(before: Line, after: Line) -> tuple[float, ...]:
    """score(after) - score(before) for each seed that both have, in order of the seed."""
    first, second = _scores(before), _scores(after)
    return tuple(second[seed] - first[seed] for seed in sorted(first.keys() & second.keys()))


def _scores(line: Line) -> dict[Block, float]:
    scores = {block_of(entry): score_of(entry.record) for entry in line.entries}
    return {seed: score for seed, score in scores.items() if score is not None}


def rest_of(left: Line, right: Line) -> str | None:
    """`SAME` or `TUNED`: what else two configurations share besides the method; None where more than the optimiser differs."""
    first, second = ({key: value for key, value in _config(line).items() if key != "method"} for line in (left, right))
    if first == second:
        return SAME
    return TUNED if all(first.get(key) == second.get(key) for key in {*first, *second} - {"optim"}) else None


def only_change(left: Line, right: Line) -> tuple[str, str, str] | None:
    """(dimension, its value here, its value there) where the methods differ in one dimension alone; else None."""
    first, second = (_config(line).get("method") for line in (left, right))
    if not first or not second:
        return None
    outside = [
        {key: value for key, value in method.items() if key not in ("name", "insertions")} for method in (first, second)
    ]
    insertions = [list((method.get("insertions") or {}).values()) for method in (first, second)]
    if outside[0] != outside[1] or len(insertions[0]) != len(insertions[1]) or not insertions[0]:
        return None
    differing = [
        (dimension, index)
        for index, (here, there) in enumerate(zip(*insertions, strict=True))
        for dimension in ("function", "position", "composition", "scaling", "mixture")
        if here.get(dimension) != there.get(dimension)
    ]
    dimensions = {dimension for dimension, _ in differing}
    if len(dimensions) != 1:
        return None
    (dimension,) = dimensions
    changes = list(
        dict.fromkeys(
            difference(insertions[0][index].get(dimension), insertions[1][index].get(dimension))
            for _, index in differing
        )
    )
    before, after = (" and ".join(change[side] for change in changes) for side in (0, 1))
    if dimension == "function" and before.startswith("size ") and "," not in before:
        dimension = "size"
    return dimension, before, after


def difference(here: Any, there: Any) -> tuple[str, str]:
    """Two values of a dimension in words: their names, or the options that differ where the names are the same."""
    if not isinstance(here, Mapping) or not isinstance(there, Mapping):
        return _whole(here), _whole(there)
    if here.get("name") != there.get("name"):
        return _whole(here), _whole(there)
    first, second = leaves(here), leaves(there)
    keys = [key for key in dict.fromkeys([*first, *second]) if first.get(key) != second.get(key)]
    before, after = (", ".join(f"{key} {_text(one.get(key))}" for key in keys) for one in (first, second))
    return before, after


def _whole(value: Any) -> str:
    if value is None:
        return "none"
    if not isinstance(value, Mapping):
        return _text(value)
    if "name" not in value:
        return ", ".join(f"{key} {_text(inner)}" for key, inner in value.items() if inner not in (None, [], {}))
    size = value.get("size", value.get("value", value.get("alpha")))
    return f"{value['name']}" + (f" {_text(size)}" if size is not None else "")


def _text(value: Any) -> str:
    return " ".join(value) if isinstance(value, list) and all(isinstance(one, str) for one in value) else plain(value)


def _order(text: str) -> tuple[Any, ...]:
    """Numbers by size, the rest by letters."""
    number = text.rsplit(" ", 1)[-1]
    try:
        return (0, float(number), text)
    except ValueError:
        return (1, 0.0, text)


def _config(line: Line) -> dict[str, Any]:
    """The configuration of a line as plain JSON: the method as it was trained, without the seed and without places."""
    entry = line.entries[0]
    config = {key: value for key, value in entry.config.items() if key not in IGNORED}
    config["method"] = trained(entry.record, entry.config)
    found: dict[str, Any] = json.loads(json.dumps(config, default=str))
    for part, place in (key.split(".") for key in CONTENT):
        if isinstance(found.get(part), dict):
            found[part].pop(
                place, None
            )  # one comparison has one base model; its data are compared by their fingerprint
    return found | {"data": entry.record.data.fingerprint}


def across_tasks(comparisons: Sequence[Comparison]) -> list[tuple[str, list[Effect]]]:
    """(what was averaged over, the effects) for tasks that share base model, budget and metric; [] where none do."""
    alike: dict[tuple[str, str, str], list[Comparison]] = {}
    for comparison in comparisons:
        alike.setdefault((comparison.model, comparison.budget, comparison.metric), []).append(comparison)
    found = []
    for (model, budget, metric), group in alike.items():
        pairs: dict[tuple[str, str, str], list[Pair]] = {}
        for effect in (effect for comparison in group for effect in effects(comparison)):
            pairs.setdefault((effect.dimension, effect.before, effect.after), []).extend(effect.pairs)
        if len(group) > 1 and pairs:
            tasks = ", ".join(comparison.task for comparison in group)
            found.append(
                (
                    f"{tasks} ({metric}) · {model} · budget {budget}",
                    [Effect(*key, tuple(all_)) for key, all_ in pairs.items()],
                )
            )
    return found
