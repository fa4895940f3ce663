"""The finished runs beside one run that differ from it in the seed alone."""

from __future__ import annotations

from unipet.errors import UnipetError
from unipet.report.aggregate import grouped, score_of
from unipet.report.collect import Entry, collect


def other_seeds(entry: Entry) -> list[Entry]:
    """The run and those in the same directory that a report would put into one row with it, by seed; the run alone where the
    others cannot be read."""
    if entry.directory is None:
        return [entry]
    try:
        rows = grouped(collect(entry.directory.parent))
    except UnipetError:
        return [entry]
    own = next((runs for _, runs in rows if any(run.record.run_id == entry.record.run_id for run in runs)), [entry])
    scored = [run for run in own if score_of(run.record) is not None]
    return sorted(scored, key=lambda run: (run.record.seed is None, run.record.seed))
