"""What may stand in one chart: configurations of the same task, base model, budget and metric."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from statistics import mean
from typing import Any

from unipet.report.aggregate import Row, grouped, named, score_of
from unipet.report.collect import Entry
from unipet.report.comparing import Group, compare
from unipet.runs.labels import leaves
from unipet.runs.record import Record

#: cost -> (what a record says of it, what the axis says, how a value is written)
COSTS: dict[str, tuple[Callable[[Record], float | None], str, str]] = {
    "parameters": (lambda record: record.params.trainable, "trainable parameters", ",.0f"),
    "memory": (lambda record: record.own_peak_gib, "peak memory, GiB", ".2f"),
    "time": (lambda record: record.own_train_s, "training time, s", ".1f"),
}
UNLIMITED = "none"  # the budget that says nothing, so that what a run adds to it must be shown
LIMITS = {"max_steps"}
SINGLE = 600  # runs that a page shows one by one: more would be neither read nor fast


@dataclass(frozen=True)
class Line:
    """One configuration in a comparison: its row and its runs, one per seed. `id` is unique on the page."""

    id: str
    row: Row
    entries: tuple[Entry, ...]
    costs: Mapping[str, float] = field(default_factory=dict)  # means over the runs with a score; absent: not recorded
    most: int | None = None  # runs of it that are shown one by one; None: all

    @property
    def single(self) -> tuple[Entry, ...]:
        """The runs that are shown one by one; the means are over all."""
        return self.entries[: self.most]

    @property
    def label(self) -> str:
        return self.row.label

    def cost(self, name: str) -> float | None:
        """One of its costs; None where not every run recorded it."""
        return self.costs.get(name)


@dataclass(frozen=True)
class Comparison:
    """Configurations that one chart may show side by side, best mean first."""

    id: str
    task: str
    synthetic: bool
    model: str
    budget: str
    metric: str
    lines: tuple[Line, ...]
    verdict: Group | None = None  # what the statistics say

    @property
    def title(self) -> str:
        """Task (marked where it is synthetic), base model, budget."""
        task = f"{self.task} (synthetic)" if self.synthetic else self.task
        return f"{task} · {self.model} · budget {self.budget}"

    @property
    def metric_text(self) -> str:
        """The metric, its scale, and which end of it is good where that is the lower one."""
        row = self.lines[0].row
        about = ", ".join(filter(None, [row.scale, "" if row.higher_is_better else "lower is better"]))
        return (self.metric or "none yet") + (f" ({about})" if about else "")

    @property
    def scored(self) -> list[Line]:
        """The configurations with a score, best mean first."""
        return [line for line in self.lines if line.row.score is not None]

    @property
    def ranked(self) -> bool:
        """Whether the runs have enough in common to be ranked."""
        return self.verdict is None or self.verdict.ranked

    @property
    def shown(self) -> list[Line]:
        """In the order of a chart: by mean score, or by name where there is no ranking."""
        return self.scored if self.ranked else sorted(self.scored, key=lambda line: line.label)

    def standing(self, line: Line) -> str:
        """What the statistics say of one configuration; empty where they say nothing."""
        return self.verdict.standings.get(line.label, "") if self.verdict else ""


def comparisons_of(entries: Sequence[Entry], known: Sequence[Group] = ()) -> list[Comparison]:
    """The comparisons among these runs. A run without a score joins the one that its task, model and budget name.

    `known`: groups that were compared before; only the others are compared here.
    Raises `UnipetError` for a damaged predictions.jsonl.
    """
    budgets = budget_labels(entries)
    groups: dict[tuple[str, str, str, str], list[Line]] = {}
    rows = grouped(entries)
    most = None if len(entries) <= SINGLE else max(1, SINGLE // len(rows))
    for number, (row, runs) in enumerate(rows):
        key = (row.task, row.model, budgets[_budget(runs[0])], row.metric)
        groups.setdefault(key, []).append(Line(f"c{number}", row, tuple(runs), costs_of(runs), most))
    for key in [key for key in groups if not key[3]]:  # no run of it has a score, so none names the metric
        home = next((other for other in groups if other[:3] == key[:3] and other[3]), None)
        if home is not None:
            groups[home] += groups.pop(key)
    return [_comparison(f"g{number}", key, groups[key], known) for number, key in enumerate(sorted(groups))]


def _comparison(name: str, key: tuple[str, str, str, str], lines: Sequence[Line], known: Sequence[Group]) -> Comparison:
    rows = {line.row for line in lines}
    verdict = next((group for group in known if set(group.rows) == rows), None)
    if verdict is None:
        found = compare([entry for line in lines for entry in line.entries])
        verdict = (
            found[0] if len(found) == 1 else None
        )  # configurations changed after their runs may disagree with records
    synthetic = any(line.row.synthetic for line in lines)
    return Comparison(name, key[0], synthetic, *key[1:], tuple(lines), verdict)


def costs_of(entries: Iterable[Entry]) -> dict[str, float]:
    """What the scored runs cost on average."""
    scored = [entry.record for entry in entries if score_of(entry.record) is not None]
    costs = {}
    for cost, (cost_of, _, _) in COSTS.items():
        values = [value for record in scored if (value := cost_of(record)) is not None]
        if values and len(values) == len(scored):
            costs[cost] = float(mean(values))
    return costs


def _budget(entry: Entry) -> str:
    """A budget as a text with all its limits, so that two budgets of one name differ."""
    content = entry.setting("budget")
    name = named(entry.record.budget)
    return json.dumps(
        {**leaves(content), "name": name} if isinstance(content, Mapping) else {"name": name}, sort_keys=True
    )


def budget_labels(entries: Iterable[Entry]) -> dict[str, str]:
    """Budget in full -> its name, with its limits where the name alone would not tell them."""
    contents: dict[str, dict[str, Any]] = {text: json.loads(text) for text in dict.fromkeys(map(_budget, entries))}
    labels = {}
    for text, content in contents.items():
        namesakes = [other for other in contents.values() if other["name"] == content["name"]]
        differing = {
            key for one in namesakes for key in one if any(other.get(key) != one.get(key) for other in namesakes)
        }
        if content["name"] == UNLIMITED:
            differing |= LIMITS & content.keys()
        says = ", ".join(f"{key} {content[key]}" for key in sorted(differing) if content.get(key) is not None)
        labels[text] = content["name"] + (f" ({says})" if says else "")
    return labels
