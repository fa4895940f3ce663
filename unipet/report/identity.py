"""What a run is, apart from its seed; and which records are one run.

A run is its content: the configuration without places, the data by their fingerprint, the base model by the record's
fingerprint of it where there is one. So two spellings of one path are one configuration, and two contents under one path are two.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from unipet.runs.design import fitted_sizes
from unipet.runs.labels import Told, leaves

if TYPE_CHECKING:
    from unipet.report.collect import Entry

# Not part of what is compared: the seed is averaged over; the rest is where a run happened, not what it was.
IGNORED = ("seed", "runs_dir", "rerun", "tracking", "checkpoint")
#: A place in the configuration -> (the key of what is found there, where a record may hold its fingerprint).
CONTENT: dict[str, tuple[str, tuple[tuple[str, ...], ...]]] = {
    "task.data_dir": ("task.data", (("data", "fingerprint"),)),
    "model.path": ("model.content", (("identity", "base_model"),)),
}
FITTED = "fitted."  # then the key of a size: what the budget solved


def identities(entries: Sequence[Entry]) -> list[dict[str, Any]]:
    """What each run is, apart from its seed, flat.

    A run that failed before its record knew the content of a place has the content that the others found there, if
    they agree.
    """
    seen: dict[tuple[str, str], set[str]] = {}
    for entry in entries:
        for place in CONTENT:
            if found := _content(entry.record, place):
                seen.setdefault((place, _place(entry, place)), set()).add(found)
    known = {where: next(iter(found)) for where, found in seen.items() if len(found) == 1}
    return [_identity(entry, known) for entry in entries]


def _identity(entry: Entry, known: Mapping[tuple[str, str], str]) -> dict[str, Any]:
    flat = leaves({key: value for key, value in entry.config.items() if key not in IGNORED})
    method = entry.config.get("method")
    insertions = method.get("insertions") if isinstance(method, Mapping) else None
    if isinstance(insertions, Mapping) and len(insertions) > 1:
        flat["method.order"] = list(insertions)  # where insertions meet, the first acts first
    for place, (key, _) in CONTENT.items():
        where = _place(entry, place)
        content = _content(entry.record, place) or known.get((place, where))
        given = flat.pop(place, None)
        if content is not None:
            named = where or str((entry.record.get("data") or {}).get("source") or "")
            flat[key] = Told(content, os.path.basename(named) or named, named)
        elif given is not None:
            flat[place] = where
    for key, size in fitted_sizes(entry.record).items():
        flat[FITTED + key] = size
    return flat


def _place(entry: Entry, place: str) -> str:
    part, key = place.split(".")
    given = entry.config.get(part)
    path = given.get(key) if isinstance(given, Mapping) else None
    return os.path.normpath(str(path)) if path else ""


def _content(record: Mapping[str, Any], place: str) -> str | None:
    for path in CONTENT[place][1]:
        value: Any = record
        for part in path:
            value = value.get(part) if isinstance(value, Mapping) else None
        if value:  # a fingerprint, or the checksum of every file
            return value if isinstance(value, str) else hashlib.sha256(as_key(value).encode()).hexdigest()[:16]
    return None


def as_key(identity: Mapping[str, Any]) -> str:
    """An identity as one text, for dictionaries."""
    return json.dumps(identity, sort_keys=True, default=str)


def distinct(entries: Sequence[Entry]) -> list[Entry]:
    """Every run once, as its last version, wherever its records lie: copied, nested, or a job of several sweeps.

    One run is one `run_id` on the same data and base model. Jobs that failed before they had a run_id stay.
    """
    latest: dict[object, Entry] = {}
    for number, entry in enumerate(entries):
        record = entry.record
        key: object = number
        if record.get("run_id"):
            contents = [_content(record, place) for place in CONTENT]
            key = (record["run_id"], str(record.get("model")), str(record.get("seed")), *contents)
        if key not in latest or str(record.get("finished")) >= str(latest[key].record.get("finished")):
            latest[key] = entry
    return list(latest.values())


def one_per_seed(entries: Sequence[Entry], scored: Sequence[bool]) -> list[Entry]:
    """The runs of one configuration, each seed once: one with a score before one without, then the last that finished."""
    best: dict[str, tuple[bool, str, Entry]] = {}
    for entry, known in zip(entries, scored, strict=True):
        seed, rank = str(entry.record.get("seed")), (known, str(entry.record.get("finished")))
        if seed not in best or rank >= best[seed][:2]:
            best[seed] = (*rank, entry)
    return [entry for _, _, entry in best.values()]
