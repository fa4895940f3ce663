"""A batch in micro-batches, each with its share in the means that the batch's loss consists of."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from unipet.tasks import Readout, answers_in
from unipet.tasks.encode_text import IGNORED

Batch = Mapping[str, Tensor]


@dataclass(frozen=True)
class Share:
    """A micro-batch's share in a mean over the answers of the batch, and in the task's loss, which may weigh them."""

    answers: float
    task: float


WHOLE, NOTHING = Share(1.0, 1.0), Share(0.0, 0.0)


def shares(
    batch: Batch, micro_batch: int, rows: slice, read: Readout, class_weights: Sequence[float] = ()
) -> Iterator[tuple[Batch, Share]]:
    """Split the `rows` of a batch into micro-batches, each with its share of the answers of the whole batch. A mean over the
    batch is the sum of those of the micro-batches times their shares. A micro-batch without an answer is left out.

    With `class_weights` (C,), an answer counts in the task's loss by the weight of its label. Every micro-batch keeps the
    padding of the whole batch.
    """
    labels = batch["labels"]
    whole, weight = answers_in(labels, read), _weight(labels, class_weights)
    first, end, _ = rows.indices(len(labels))
    for at in range(first, end, micro_batch):
        piece = {name: value[at : min(at + micro_batch, end)] for name, value in batch.items()}
        if own := answers_in(piece["labels"], read):
            share = own / whole
            yield piece, Share(share, _weight(piece["labels"], class_weights) / weight if weight else share)


def _weight(labels: Tensor, class_weights: Sequence[float]) -> float:
    """The sum of the weights of all answers; 0 without weights, and where weights are of a yes and of no answer as a whole."""
    if not class_weights or labels.is_floating_point():
        return 0.0
    return float(torch.tensor(class_weights, dtype=torch.float64)[labels[labels != IGNORED].cpu()].sum())
