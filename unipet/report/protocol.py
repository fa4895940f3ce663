"""What runs must have in common to be ranked, and how they differ in it."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from unipet.report.aggregate import score_of
from unipet.report.collect import Entry
from unipet.runs.comparable import MEASURED, UNSAID, comparable
from unipet.runs.record import Comparable

#: How much training there was: what may not differ within a pair of a contrast, although other settings of the optimiser may.
EFFORT = tuple(key for key in MEASURED["training"] if key.startswith("optim."))


@dataclass(frozen=True)
class Difference:
    """A setting that is not the same in all runs: each value, and the labels of the runs that have it."""

    part: str
    key: str
    values: tuple[tuple[str, tuple[str, ...]], ...]

    @property
    def hard(self) -> bool:
        """Whether it changes what is measured, so that the runs are not ranked."""
        return self.part in MEASURED

    @property
    def name(self) -> str:
        return self.key if self.key == self.part else f"{self.part}: {self.key}"

    def __str__(self) -> str:
        return f"{self.name} differs: " + "; ".join(f"{value} ({some(labels)})" for value, labels in self.values)

    def lines(self) -> list[str]:
        """As a diff: the setting, then each value with who has it."""
        width = max(len(value) for value, _ in self.values)
        return [f"{self.name} differs:", *(f"  {value.ljust(width)}  {some(labels)}" for value, labels in self.values)]


def differing(runs: Mapping[str, Sequence[Entry]]) -> list[Difference]:
    """Every setting that is not the same in all scored runs, by label; unknown values do not count."""
    values: dict[tuple[str, str], dict[str, list[str]]] = {}  # (part, key) -> value -> labels
    for label, parts in _parts_of(runs):
        for part, content in parts.items():
            for key, value in {**UNSAID.get(part, {}), **content.values}.items():
                if value is not None or key.startswith(("task.", "budget.")):
                    who = values.setdefault((part, key), {}).setdefault(json.dumps(value, default=str), [])
                    if label not in who:
                        who.append(label)
    return [
        Difference(part, key, tuple((value, tuple(labels)) for value, labels in labels_of.items()))
        for (part, key), labels_of in values.items()
        if len(labels_of) > 1
    ]


def unrecorded(runs: Mapping[str, Sequence[Entry]]) -> list[str]:
    """The labels whose records are from before this was recorded, where others have it: their configurations tell it."""
    states = {
        label: {bool(entry.record.comparable) for entry in some_runs if score_of(entry.record) is not None}
        for label, some_runs in runs.items()
    }
    return (
        [label for label, known in states.items() if False in known]
        if any(True in known for known in states.values())
        else []
    )


def _parts_of(runs: Mapping[str, Sequence[Entry]]) -> Iterator[tuple[str, Mapping[str, Comparable]]]:
    for label, entries in runs.items():
        seen: set[tuple[object, ...]] = set()
        for entry in entries:
            if score_of(entry.record) is not None and (same := _made_of(entry)) not in seen:
                seen.add(same)
                yield label, entry.record.comparable or comparable(entry.config, entry.record)


def _made_of(entry: Entry) -> tuple[object, ...]:
    """What the parts are made of: runs of one label that share all of these objects say the same."""
    record = entry.record
    own = (id(entry.config.get(key)) for key in ("task", "budget", "optim", "model"))
    parts = (
        id(record.comparable) if record.comparable else 0,
        id(record.data),
        id(record.versions),
        id(record.identity),
    )
    return (record.metric, record.precision, record.trial.effort, *parts, *own)


def some(labels: Sequence[str], most: int = 3) -> str:
    """The first few labels, and how many more there are."""
    return ", ".join(labels[:most]) + (f" and {len(labels) - most} more" if len(labels) > most else "")
