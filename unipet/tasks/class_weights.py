"""Weights of labels in the loss of classification: given, or balanced by the training rows."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

from unipet.config import TaskConfig
from unipet.errors import UnipetError, unknown
from unipet.tasks.kinds import KINDS
from unipet.tasks.rows import Row

BALANCED = "balanced"
KEY = "task.class_weights"


def check_class_weights(task: TaskConfig) -> None:
    """Raise UnipetError for weights of a kind without classes, and for a label without a weight."""
    asked = task.class_weights
    if asked is None:
        return
    kind = KINDS[task.kind]
    why = {
        "number": "its answers are numbers, which have no classes",
        "text": "its loss is over the tokens of a text, which are no classes",
    }.get(kind.answer)
    if task.kind == "multiple_choice":
        why = "its labels are places among the choices, and no place is rarer for what it means"
    if why is not None:
        raise UnipetError(f"{KEY}: {asked} given, but task.kind={task.kind}: {why}. Use {KEY}=null.")
    if isinstance(asked, Mapping):
        for name in asked:
            if name not in task.labels:
                raise unknown(KEY, name, task.labels)
        lacking = [name for name in task.labels if name not in asked]
        if lacking:
            raise UnipetError(
                f"{KEY}: no weight for {', '.join(map(repr, lacking))}. Give every label of task.labels one (1 is the usual "
                f"weight), or {KEY}={BALANCED}."
            )


def class_weights(task: TaskConfig, rows: Sequence[Row]) -> list[float]:
    """The weight of each label, in the order of `task.labels`; [] without weights. `rows` are those of training.

    `balanced`: with C labels, n answers and n_c of them label c, n / (C · n_c), so that all labels have the same sum and the
    mean over the answers is 1. Where an example has several labels, each is a yes or no of its own, and its weight is that of
    a yes: the number of rows without the label over those with it. Raises UnipetError for a label whose balanced weight would
    be infinite or 0.
    """
    if task.class_weights is None:
        return []
    if isinstance(task.class_weights, Mapping):
        return [float(task.class_weights[name]) for name in task.labels]
    answers = [label for row in rows for label in (row["label"] if isinstance(row["label"], list) else [row["label"]])]
    counts, several = Counter(answers), KINDS[task.kind].answer == "label_set"
    never = [name for index, name in enumerate(task.labels) if not counts[index]]
    always = [name for index, name in enumerate(task.labels) if several and counts[index] == len(rows)]
    for names, what in ((never, "no training row has"), (always, "every training row has")):
        if names:
            raise UnipetError(
                f"{KEY}={BALANCED}: {what} the label {names[0]!r}, so no weight balances it. Give weights for each label, "
                f"such as {KEY}={{{task.labels[0]}: 1, ...}}, or leave the label out of the data and of task.labels."
            )
    if several:
        return [(len(rows) - counts[index]) / counts[index] for index in range(len(task.labels))]
    return [len(answers) / (len(task.labels) * counts[index]) for index in range(len(task.labels))]
