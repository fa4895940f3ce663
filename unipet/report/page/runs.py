"""The parts of the page about single runs: those without a score and why, and what any two differ in."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from unipet.report import numbers
from unipet.report.aggregate import grouped, named, score_of, unscored
from unipet.report.collect import Entry
from unipet.report.page.command import command_of
from unipet.report.page.differences import own_values
from unipet.report.page.rendering import Table


def failures(entries: Sequence[Entry]) -> Table:
    """Every run without a score, with its reason."""
    missing = sorted(unscored(entries), key=lambda each: each.status)
    rows = [(each.status, each.run, each.error) for each in missing]
    return Table("Failed, skipped and unfinished runs", ("status", "run", "reason"), rows)


def run_labels(entries: Sequence[Entry]) -> list[str]:
    """The runs in a list: each by its variant, unique by its number."""
    labels = {id(entry): row.label for row, runs in grouped(entries) for entry in runs}
    return [_label(entry, number, labels.get(id(entry))) for number, entry in enumerate(entries)]


def _label(entry: Entry, number: int, variant: str | None) -> str:
    record = entry.record
    score = score_of(record)
    shown = numbers.score(score) if score is not None else record.status
    names = " · ".join([variant or named(record.method), named(record.task), named(record.budget)])
    return f"{number + 1}: {names} · seed {record.seed} · {shown}"


def run_data(entries: Sequence[Entry]) -> dict[str, Any]:
    """For page.js: commands, and the values that not all runs share, every text once."""
    shared, differing = own_values(entries)
    keys: dict[str, int] = {}
    values: dict[str, int] = {}
    coded = [
        [
            [
                keys.setdefault(key, len(keys)),
                values.setdefault(json.dumps(value, default=str, ensure_ascii=False), len(values)),
            ]
            for key, value in run.items()
        ]
        for run in differing
    ]
    return {
        "shared": shared,
        "keys": list(keys),
        "values": list(values),
        "own": coded,
        "commands": [command_of(entry) for entry in entries],
    }
