"""The examples of one run: from JSON lines, from the hub, or generated."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from dataclasses import dataclass, field
from random import Random
from typing import Any

from unipet.config import TaskConfig
from unipet.errors import UnipetError
from unipet.tasks.check import check_task
from unipet.tasks.hub import hub_source, read_hub
from unipet.tasks.jsonl import read_jsonl
from unipet.tasks.rows import Row
from unipet.tasks.synthetic import generate

SUBSET_SEED = 20240229  # any fixed number, and never the run's seed: every method and seed sees the same examples


@dataclass(frozen=True)
class TaskData:
    """Checked examples. A row is `{"id": str, "text": [str] or [str, str], "label": int | float}`."""

    train: list[Row]
    evaluation: list[Row]
    labels: list[str]  # names in index order; empty for regression
    regression: bool
    source: str  # "hub:<address>@<revision>", "jsonl:<directory>" or "synthetic:<generator> seed <n>"
    synthetic: bool
    fingerprint: str  # of the labels and of every row: the same examples give the same 16 hex digits
    available: dict[str, int] = field(default_factory=dict)  # rows before task.max_train / task.max_evaluation

    def record(self) -> dict[str, Any]:
        """What a run's record says of its data (DESIGN 7): JSON-ready."""
        counts = Counter(row["label"] for row in self.train)
        return {
            "source": self.source,
            "fingerprint": self.fingerprint,
            "train": len(self.train),
            "evaluation": len(self.evaluation),
            "train_available": self.available.get("train", len(self.train)),
            "evaluation_available": self.available.get("evaluation", len(self.evaluation)),
            "synthetic": self.synthetic,
            "regression": self.regression,
            "train_labels": {name: counts[i] for i, name in enumerate(self.labels)},
        }


def load_task(task: TaskConfig) -> TaskData:
    """Check `task`, read or generate its examples and cut them to size. Raises UnipetError for every mistake."""
    check_task(task)
    train, evaluation, source, synthetic = _read(task)
    chosen_train, chosen_evaluation = _first(train, task.max_train), _first(evaluation, task.max_evaluation)
    labels = list(task.labels)
    return TaskData(
        train=chosen_train,
        evaluation=chosen_evaluation,
        labels=labels,
        regression=task.kind == "regression",
        source=source,
        synthetic=synthetic,
        fingerprint=_fingerprint(labels, chosen_train, chosen_evaluation),
        available={"train": len(train), "evaluation": len(evaluation)},
    )


def _read(task: TaskConfig) -> tuple[list[Row], list[Row], str, bool]:
    if task.data_dir is not None:
        return (
            read_jsonl(task, task.train_split),
            read_jsonl(task, task.evaluation_split),
            f"jsonl:{task.data_dir}",
            False,
        )
    if task.generator is not None:
        return *generate(task), f"synthetic:{task.generator} seed {task.generator_seed}", True
    if task.hub is not None:
        return *read_hub(task), hub_source(task), False
    raise UnipetError(
        f"task.data_dir: task {task.name} has neither a hub data set nor a generator, so task.data_dir=DIR is needed, "
        f"with {task.train_split}.jsonl and {task.evaluation_split}.jsonl (columns: {', '.join([*task.text, task.label])})."
    )


def _first(rows: list[Row], count: int | None) -> list[Row]:
    """The first `count` of a fixed shuffle, so that a smaller subset lies within a larger one; all if fewer."""
    if count is None or count >= len(rows):
        return rows
    return [rows[i] for i in Random(SUBSET_SEED).sample(range(len(rows)), len(rows))[:count]]


def _fingerprint(labels: list[str], train: list[Row], evaluation: list[Row]) -> str:
    digest = hashlib.sha256(json.dumps(labels).encode())
    for name, rows in (("train", train), ("evaluation", evaluation)):
        digest.update(f"\n{name} {len(rows)}\n".encode())
        for row in rows:
            digest.update(json.dumps([row["id"], row["text"], row["label"]]).encode())
    return digest.hexdigest()[:16]
