"""What runs must have in common to be ranked: data, what chose the checkpoint, limits, how much training there was, and how much
tuning."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from unipet.report.aggregate import score_of
from unipet.report.collect import Entry
from unipet.runs.labels import Leaves

#: Keys of the configuration that must agree for a ranking, besides all of task.* and budget.*.
EFFORT = ("optim.epochs", "optim.batch_size")
#: What may differ: names, places, and metrics beside the first.
FREE = (
    "task.name",
    "task.data_dir",
    "task.split_seed",
    "task.metrics",
    "task.submission",
    "task.submission_names",
    "task.submission_range",
    "budget.name",
)


def protocol(entry: Entry, flat: Mapping[str, Any]) -> dict[str, Any]:
    """What must agree for two runs to be ranked: data, selection, limits, and how much training and tuning there was. `flat` is
    the run's configuration with dotted keys."""
    data = entry.record.data
    parts: dict[str, Any] = {
        "metric": entry.record.metric,
        "data fingerprint": data.pool or data.fingerprint,
        "train examples": data.train if data.shots is None else f"{data.shots} of each label",
        "evaluation examples": data.evaluation,
        "selection": data.selection.by,
        "selection examples": data.selection.examples if data.shots is None else None,
        "tuning effort": entry.record.trial.effort or "no search",
    }
    for key, value in flat.items():
        if key not in FREE and (key.startswith(("task.", "budget.")) or key in EFFORT):
            parts[key] = value
    return parts


def differing(runs: Mapping[str, Sequence[Entry]]) -> list[str]:
    """One sentence per part of the protocol that is not the same in all scored runs; unknown values do not count."""
    values: dict[str, dict[str, list[str]]] = {}  # part -> value -> labels
    flat = Leaves()
    for label, entries in runs.items():
        seen: set[tuple[object, ...]] = set()
        for entry in entries:
            if score_of(entry.record) is None or (same := _parts(entry)) in seen:
                continue
            seen.add(same)
            for part, value in protocol(entry, flat.of(entry.config)).items():
                if value is not None or part.startswith(("task.", "budget.")):
                    who = values.setdefault(part, {}).setdefault(json.dumps(value, default=str), [])
                    if label not in who:
                        who.append(label)
    said = []
    for part, labels_of in values.items():
        if len(labels_of) > 1:
            each = "; ".join(f"{value} ({some(labels)})" for value, labels in labels_of.items())
            said.append(f"{part} differs: {each}")
    return said


def _parts(entry: Entry) -> tuple[object, ...]:
    """What a protocol is made of: runs of one label that share all of these objects say the same."""
    own = (id(entry.config.get(key)) for key in ("task", "budget", "optim"))
    return (entry.record.metric, id(entry.record.data), entry.record.trial.effort, *own)


def some(labels: Sequence[str], most: int = 3) -> str:
    """The first few labels, and how many more there are."""
    return ", ".join(labels[:most]) + (f" and {len(labels) - most} more" if len(labels) > most else "")
