"""Hashes of what two runs must have in common for their scores to be compared: labels, template, loss mask, splits, selection."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from unipet.config import RunConfig
from unipet.runs.record_files import canonical_json

if TYPE_CHECKING:
    from unipet.tasks import Encoded, TaskData

EXAMPLES = 64  # whose loss masks are looked at
#: What makes a text of a row, and tokens of the text.
TEMPLATE = ("kind", "text", "label", "choices", "verbalizers", "demonstrations", "target", "references", "separator", "languages")
LENGTHS = ("max_length", "max_source", "max_target")
SELECTION = ("selection", "selection_split", "selection_size", "selection_metric")


def compared_inputs(config: RunConfig, data: TaskData, encoded: Encoded) -> dict[str, str]:
    """A hash of each, from the configuration and from what a run reads."""
    task = config.task
    count = min(EXAMPLES, len(encoded.train))
    return {
        "labels": _hash([data.labels, data.regression, data.label_order]),
        "template": _hash([getattr(task, name) for name in (*TEMPLATE, *LENGTHS)]),
        "loss_mask": _hash(_mask(encoded.train[index]["labels"]) for index in range(count)),
        "splits": _hash([data.fingerprint, data.splits]),
        "selection": _hash([[getattr(task, name) for name in SELECTION], [str(row["id"]) for row in data.selection]]),
    }


def _mask(labels: Any) -> list[bool] | None:
    """Which tokens have a label; None where an example has one."""
    return [label != -100 for label in labels] if isinstance(labels, list) else None


def _hash(value: Any) -> str:
    plain = list(value) if isinstance(value, Iterable) else value
    return hashlib.sha256(canonical_json(plain).encode()).hexdigest()[:16]
