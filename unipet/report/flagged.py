"""Flags of runs in a report. Records from before there were flags are judged by the predictions that the runs left."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from unipet.errors import UnipetError
from unipet.runs.flags import NAMES, raised
from unipet.runs.prediction_lines import read_lines
from unipet.runs.record import Flag
from unipet.runs.record_files import METRICS, PREDICTIONS
from unipet.training.history import read_steps

if TYPE_CHECKING:
    from unipet.report.aggregate import Row
    from unipet.report.collect import Entry

MARK = "†"  # behind a score with flags


@dataclass(frozen=True)
class Flagged:
    """One flag of a row: which of its runs have it, and what the first of them says."""

    name: str
    seeds: tuple[str, ...]
    runs: int  # scored runs of the row
    text: str

    @property
    def count(self) -> str:
        """`one_answer`, or `one_answer (2 of 3 seeds)` where not all runs have it."""
        return self.name if len(self.seeds) == self.runs else f"{self.name} ({len(self.seeds)} of {self.runs} seeds)"


def flags_of(entry: Entry) -> Sequence[Flag]:
    """A scored run's flags. A record from before there were flags is judged by its predictions, if the run left them."""
    record = entry.record
    if record.flags is not None:
        return record.flags
    if entry.directory is None or not (entry.directory / PREDICTIONS).is_file():
        return []
    regression = record.data.regression
    if regression is None:
        regression = entry.setting("task.kind") == "regression"
    try:
        return raised(read_lines(entry.directory / PREDICTIONS), regression, read_steps(entry.directory / METRICS))
    except (UnipetError, TypeError, ValueError, OverflowError):  # damaged: whoever compares examples says so
        return []


def flagged(entries: Sequence[Entry]) -> tuple[Flagged, ...]:
    """The flags of a row's scored runs, each once."""
    seeds: dict[str, list[str]] = {}
    texts: dict[str, str] = {}
    for entry in entries:
        for flag in flags_of(entry):
            seeds.setdefault(flag.name, []).append(str(entry.record.seed))
            texts.setdefault(flag.name, flag.text)
    return tuple(Flagged(name, tuple(having), len(entries), texts[name]) for name, having in seeds.items())


def summarised(rows: Iterable[tuple[str, Row]]) -> list[str]:
    """A sentence per flag: what it means, and which labelled rows have it."""
    labels: dict[str, list[str]] = {}
    for label, row in rows:
        for flag in row.flags:
            share = "" if len(flag.seeds) == flag.runs else f" ({len(flag.seeds)} of {flag.runs} seeds)"
            labels.setdefault(flag.name, []).append(f"{label}{share}")
    return [f"{MARK} {name} ({NAMES.get(name, 'flagged')}): {', '.join(who)}." for name, who in labels.items()]


def counted(row: Row) -> str:
    """A row's flags in one cell: `one_answer (1 of 3 seeds), diverged`."""
    return ", ".join(flag.count for flag in row.flags)


def explained(rows: Iterable[tuple[str, Row]]) -> list[str]:
    """A sentence per flag of each labelled row: what was found in which run."""
    return [
        f"{label}: {flag.count}: {'' if flag.runs == 1 else f'seed {flag.seeds[0]}: '}{flag.text}"
        for label, row in rows
        for flag in row.flags
    ]
