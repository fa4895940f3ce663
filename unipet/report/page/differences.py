"""What any two runs differ in: values that all runs share are counted, the others are kept for each run."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from unipet.report.collect import Entry
from unipet.runs.identity import APART
from unipet.runs.labels import leaves


def own_values(entries: Sequence[Entry]) -> tuple[int, list[dict[str, Any]]]:
    """(number of values that all runs share, each run's other values), with dotted keys."""
    flat = [values_of(entry) for entry in entries]
    everywhere = set.intersection(*(set(values) for values in flat)) if flat else set()
    shared = {key for key in everywhere if len({json.dumps(values[key], default=str) for values in flat}) == 1}
    return len(shared), [{key: value for key, value in values.items() if key not in shared} for values in flat]


def values_of(entry: Entry) -> dict[str, Any]:
    """A run's configuration and what its record says of its surroundings, flat. Lists are values."""
    record = entry.record
    config = leaves({key: value for key, value in entry.config.items() if key not in APART})
    if not config or not entry.config:  # a record alone still has its names
        config = {"method": record.method, "task": record.task, "model": record.model}
        config |= {"budget": record.budget, "seed": record.seed}
    recorded = {  # what may explain a difference although no configuration names it
        **leaves(record.versions.to_dict(), "versions"),
        "git_commit": record.git_commit,
        "data.source": record.data.source,
        "data.fingerprint": record.data.fingerprint,
    }
    return config | {f"record: {key}": value for key, value in recorded.items() if value is not None}
