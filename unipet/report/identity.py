"""What a run is, apart from its seed; and which records are one run.

A run is its content: the configuration without places, the data by their fingerprint, the base model by the record's
fingerprint of it where there is one. So two spellings of one path are one configuration, and two contents under one path are two.
"""

from __future__ import annotations

import functools
import hashlib
import json
import os
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from unipet.runs.identity import APART
from unipet.runs.labels import INSERTION_ORDER, Leaves, Told
from unipet.runs.record import Record

if TYPE_CHECKING:
    from unipet.report.collect import Entry

# Not part of what is compared: the seed is averaged over; the rest is where a run happened and who asked for it, not what it
# was. Trials of a search never get here.
IGNORED = ("seed", "trial", *APART)
#: A place in the configuration -> (the key of what is there, what of a record names the content).
CONTENT: dict[str, tuple[str, Callable[[Record], str | None]]] = {
    "task.data_dir": ("task.data", lambda record: record.data.pool or record.data.fingerprint),
    "model.path": ("model.content", lambda record: _digest(record.identity.base_model)),
}
Block = tuple[int, int]
FITTED = "fitted."  # then the key of a size: what the budget solved


def identities(entries: Sequence[Entry]) -> list[dict[str, Any]]:
    """What each run is, apart from its seed, flat.

    A run may fail before its record knows the content of a place. It then has the content that the other runs read from
    that place, if they agree.
    """
    seen: dict[tuple[str, str], set[str]] = {}
    for entry in entries:
        for place in CONTENT:
            if content := content_of(entry.record, place):
                seen.setdefault((place, _place(entry, place)), set()).add(content)
    known = {key: next(iter(contents)) for key, contents in seen.items() if len(contents) == 1}
    flat: dict[tuple[object, ...], dict[str, Any]] = {}
    parts = Leaves()
    for entry in entries:
        if (key := _parts(entry)) not in flat:
            flat[key] = _identity(entry, known, parts)
    return [flat[_parts(entry)] for entry in entries]


def _parts(entry: Entry) -> tuple[object, ...]:
    """What an identity is made of: runs that share all of these objects share the identity."""
    record = entry.record
    own = [
        (key, ("part", id(value)) if isinstance(value, dict | list) else value)
        for key, value in entry.config.items()
        if key not in IGNORED
    ]
    return (id(record.identity), id(record.data), id(record.fitted), *own)


def _identity(entry: Entry, known: Mapping[tuple[str, str], str], parts: Leaves) -> dict[str, Any]:
    flat = parts.of({key: value for key, value in entry.config.items() if key not in IGNORED})
    if entry.setting("task.shots") is not None:
        flat.pop("task.split_seed", None)  # averaged over, as the seed
    insertions = entry.setting("method.insertions")
    if isinstance(insertions, Mapping) and len(insertions) > 1:
        flat[INSERTION_ORDER] = list(insertions)  # where insertions meet, the first acts first
    for place, (key, _) in CONTENT.items():
        path = _place(entry, place)
        content = content_of(entry.record, place) or known.get((place, path))
        asked = flat.pop(place, None)
        if content is not None:
            named = path or entry.record.data.source or ""
            flat[key] = Told(content, os.path.basename(named) or named, named)
        elif asked is not None:
            flat[place] = path
    for key, size in entry.record.fitted.sizes.items():
        flat[FITTED + key] = size
    return flat


def _place(entry: Entry, place: str) -> str:
    path = entry.setting(place)
    return os.path.normpath(str(path)) if path else ""


def _digest(checksums: Mapping[str, str]) -> str | None:
    return _digest_of(tuple(sorted(checksums.items()))) if checksums else None


@functools.lru_cache(maxsize=256)
def _digest_of(checksums: tuple[tuple[str, str], ...]) -> str:
    return hashlib.sha256(as_key(dict(checksums)).encode()).hexdigest()[:16]


def content_of(record: Record, place: str) -> str | None:
    """A name for the content that a run had from this place; None where its record does not tell."""
    return CONTENT[place][1](record) or None


def as_key(identity: Mapping[str, Any]) -> str:
    """An identity as one text, for dictionaries."""
    return json.dumps(identity, sort_keys=True, default=str)


def distinct(entries: Sequence[Entry]) -> list[Entry]:
    """Every run once, by the record that finished last. Its records may be copies, nested, or jobs of several sweeps.

    One run is one `run_id` on the same data and base model. Jobs that failed before they had a run_id stay.
    """
    latest: dict[object, Entry] = {}
    for number, entry in enumerate(entries):
        record = entry.record
        key: object = number
        if record.run_id:
            key = (record.run_id, record.model, record.seed, *(content_of(record, place) for place in CONTENT))
        if key not in latest or str(record.finished) >= str(latest[key].record.finished):
            latest[key] = entry
    return list(latest.values())


def block_of(entry: Entry) -> Block:
    """Which few-shot split (0 without), and which seed: what runs of two methods are paired by."""
    split = entry.setting("task.split_seed") if entry.setting("task.shots") is not None else None
    return split or 0, entry.record.seed or 0


def one_per_seed(entries: Sequence[Entry], scored: Sequence[bool]) -> list[Entry]:
    """The runs of one configuration, each block once: one with a score before one without, then the last that finished."""
    best: dict[Block, tuple[bool, str, Entry]] = {}
    for entry, known in zip(entries, scored, strict=True):
        block, rank = block_of(entry), (known, str(entry.record.finished))
        if block not in best or rank >= best[block][:2]:
            best[block] = (*rank, entry)
    return [entry for _, _, entry in best.values()]
