"""What any two runs differ in, as small as it can be said: what all share is counted, the rest is kept per run."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from unipet.report.collect import Entry
from unipet.runs.labels import leaves

#: Keys of a configuration that say where a run happened, not what it was.
APART = ("tracking", "checkpoint", "runs_dir", "rerun")
#: Parts of a record that may explain a difference although no configuration names them.
RECORDED = ("versions", "git_commit", "data.source", "data.fingerprint")


def own_values(entries: Sequence[Entry]) -> tuple[int, list[dict[str, Any]]]:
    """(how many values all runs share, for each run the values that not all share), keys dotted."""
    flat = [values_of(entry) for entry in entries]
    everywhere = set.intersection(*(set(one) for one in flat)) if flat else set()
    shared = {key for key in everywhere if len({json.dumps(one[key], default=str) for one in flat}) == 1}
    return len(shared), [{key: value for key, value in one.items() if key not in shared} for one in flat]


def values_of(entry: Entry) -> dict[str, Any]:
    """A run's configuration and what its record says of its surroundings, flat. Lists are values."""
    config = leaves({key: value for key, value in entry.config.items() if key not in APART})
    if not config or not entry.config:  # a record alone still has its names
        config = {key: entry.record.get(key) for key in ("method", "task", "model", "budget", "seed")}
    record = leaves(dict(entry.record))
    recorded = {
        f"record: {key}": value
        for key, value in record.items()
        if any(key == part or key.startswith(f"{part}.") for part in RECORDED) and value is not None
    }
    return {**config, **recorded}
