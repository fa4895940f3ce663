"""The parts of the page about single runs: those without a score and why, and what any two differ in."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from unipet.report import numbers
from unipet.report.aggregate import named, score_of, unscored
from unipet.report.collect import Entry
from unipet.report.page.command import command_of
from unipet.report.page.comparisons import SINGLE, Comparison
from unipet.report.page.differences import own_values
from unipet.report.page.rendering import Table

FAILURES = 500  # that a page lists


def failures(entries: Sequence[Entry]) -> Table:
    """The runs without a score, with their reasons; `unlisted` says of how many there is no room."""
    missing = sorted(unscored(entries), key=lambda each: each.status)[:FAILURES]
    rows = [(each.status, each.run, each.error) for each in missing]
    return Table("Failed, skipped and unfinished runs", ("status", "run", "reason"), rows)


def single_runs(entries: Sequence[Entry], comparisons: Sequence[Comparison]) -> list[Entry]:
    """The runs that are shown one by one, in their order: all, where there are not too many."""
    if len(entries) <= SINGLE:
        return list(entries)
    shown = {id(entry) for comparison in comparisons for line in comparison.lines for entry in line.single}
    return [entry for entry in entries if id(entry) in shown]


def left_out(entries: Sequence[Entry], single: Sequence[Entry]) -> str:
    """What is not shown one by one, and where it is to be found; empty where all is shown."""
    if len(single) == len(entries):
        return ""
    return (
        f"{len(single):,d} of {len(entries):,d} runs are shown one by one, equally many of each configuration; means, deviations "
        "and tests are over all. unipet runs --csv FILE writes every run, unipet runs --diff RUN RUN compares any two."
    )


def unlisted(entries: Sequence[Entry]) -> str:
    """Of how many runs without a score the table has no room, and where they are; empty where it has them all."""
    beyond = len(unscored(entries)) - FAILURES
    return f"{beyond:,d} more runs have no score; unipet runs score=null lists all." if beyond > 0 else ""


def run_labels(entries: Sequence[Entry], comparisons: Sequence[Comparison]) -> list[str]:
    """The runs in a list: each by its variant, unique by its number."""
    lines = (line for comparison in comparisons for line in comparison.lines)
    labels = {id(entry): line.label for line in lines for entry in line.entries}
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
