"""A report by another metric than each run's first one: `unipet report --metric f1`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from unipet.errors import UnipetError, nearest
from unipet.report.aggregate import score_of
from unipet.report.collect import Entry
from unipet.runs.record import Data
from unipet.tasks.scoring import METRICS


def by_metric(entries: Sequence[Entry], metric: str) -> list[Entry]:
    """The entries with this metric as their score; those that have a score and did not record it are left out.

    Raises `UnipetError` where no run has recorded it.
    """
    known = sorted({name for entry in entries for name in entry.record.metrics})
    if metric not in known:
        has = f"They have: {', '.join(known)}." if known else "None has a score."
        raise UnipetError(f"--metric {metric}: no run has recorded it. {has}{nearest(metric, known)}")
    shared: dict[int, Data] = {}  # runs that share their data's record share it afterwards
    chosen = []
    for entry in entries:
        record = entry.record
        if score_of(record) is None:
            chosen.append(entry)
        elif metric in record.metrics:
            data = shared.setdefault(id(record.data), _scored_by(record.data, metric))
            changed = replace(record, score=record.metrics[metric], metric=metric, data=data)
            chosen.append(replace(entry, record=changed))
    return chosen


def _scored_by(data: Data, metric: str) -> Data:
    better = METRICS[metric].higher_is_better if metric in METRICS else data.scoring.higher_is_better
    return replace(data, scoring=replace(data.scoring, higher_is_better=better))
