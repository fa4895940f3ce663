"""The selection split: examples held out of the training set that choose checkpoints and learning rates. It is never reported."""

from __future__ import annotations

from random import Random

from unipet.config import TaskConfig
from unipet.errors import UnipetError
from unipet.tasks.kinds import KINDS
from unipet.tasks.rows import Row, grouped

HOLDOUT_SEED = 20240301  # fixed and not the run's seed, so that every method and seed uses the same examples
LARGEST_SHARE = 5  # hold out at most one example in five
LOSS = "loss"  # the mean negative log-likelihood per target token


def selection_metric(task: TaskConfig) -> str:
    """The metric that compares checkpoints: `task.selection_metric`, or its default. For generation the default is the loss,
    because decoding the selection split at every checkpoint would take longer than training."""
    if task.selection_metric is not None:
        return task.selection_metric
    return LOSS if KINDS[task.kind].generates else task.metrics[0]


def protocol(task: TaskConfig) -> str:
    """What chooses the checkpoint: `task.selection`, or its default. Few-shot learning has no examples to spare for it."""
    if task.selection != "auto":
        return task.selection
    return "train_holdout" if task.shots is None else "none"


def carve(rows: list[Row], size: int) -> tuple[list[Row], list[Row]]:
    """Split `rows` into training and selection examples, in the order of the data. About `size` examples, at most a fifth,
    are held out for selection.

    Examples with the same source text stay together, so that no held-out source occurs in training with another target.
    Raises UnipetError if there are fewer than two different sources.
    """
    sources: dict[tuple[str, ...], list[int]] = {}
    for i, row in enumerate(rows):
        sources.setdefault(tuple(row["text"]), []).append(i)
    if len(sources) < 2:
        raise UnipetError(
            f"task.selection: too few training examples to hold some out: {len(rows)}, with {len(sources)} different text. "
            "Use task.selection=none."
        )
    wanted = max(1, min(size, len(rows) // LARGEST_SHARE))
    order = list(sources)
    Random(HOLDOUT_SEED).shuffle(order)
    held: set[int] = set()
    for source in order[: len(order) - 1]:
        if len(held) >= wanted:
            break
        held.update(sources[source])
    chosen = [rows[i] for i in sorted(held)]
    if "target" in rows[0]:
        with_references = [
            {**{key: value for key, value in row.items() if key != "target"}, "references": [row["target"]]}
            for row in chosen
        ]
        chosen = grouped(with_references)
    return [row for i, row in enumerate(rows) if i not in held], chosen
