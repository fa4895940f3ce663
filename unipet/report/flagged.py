"""Flags of runs in a report: from their records, or for records from before there were flags, from what the runs left."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from unipet.errors import UnipetError
from unipet.report.resampling import read_lines
from unipet.runs.flags import NAMES, raised
from unipet.runs.record import METRICS, PREDICTIONS
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


def flags_of(entry: Entry) -> list[Mapping[str, Any]]:
    """A scored run's flags, `{"name", "text"}` each. A record without the key is judged by its predictions, if it has them."""
    record = entry.record
    if isinstance(record.get("flags"), list):
        return [one for one in record["flags"] if isinstance(one, Mapping) and one.get("name")]
    if entry.directory is None or not (entry.directory / PREDICTIONS).is_file():
        return []
    config, data = entry.config.get("task"), record.get("data") or {}
    regression = data.get("regression", isinstance(config, Mapping) and config.get("kind") == "regression")
    try:
        return list(
            raised(read_lines(entry.directory / PREDICTIONS), bool(regression), read_steps(entry.directory / METRICS))
        )
    except (UnipetError, TypeError, ValueError):  # damaged: whoever compares examples says so
        return []


def flagged(entries: Sequence[Entry]) -> tuple[Flagged, ...]:
    """The flags of a row's scored runs, each once."""
    found: dict[str, tuple[list[str], str]] = {}
    for entry in entries:
        for flag in flags_of(entry):
            seeds, _ = found.setdefault(str(flag["name"]), ([], str(flag.get("text") or "")))
            seeds.append(str(entry.record.get("seed")))
    return tuple(Flagged(name, tuple(seeds), len(entries), text) for name, (seeds, text) in found.items())


def summarised(rows: Iterable[tuple[str, Row]]) -> list[str]:
    """A sentence per flag: what it means, and which labelled rows have it."""
    found: dict[str, list[str]] = {}
    for label, row in rows:
        for flag in row.flags:
            share = "" if len(flag.seeds) == flag.runs else f" ({len(flag.seeds)} of {flag.runs} seeds)"
            found.setdefault(flag.name, []).append(f"{label}{share}")
    return [f"{MARK} {name} ({NAMES.get(name, 'flagged')}): {', '.join(who)}." for name, who in found.items()]


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
