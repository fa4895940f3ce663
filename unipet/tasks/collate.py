"""Making batches: features padded on the right, prompts padded on the left."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from unipet.errors import UnipetError
from unipet.tasks.encode_text import IGNORED
from unipet.tasks.encoded import Feature

if TYPE_CHECKING:
    from torch import Tensor

Collate = Callable[[list[Feature]], "dict[str, Tensor]"]


def collate(tokenizer: Any) -> Collate:
    """A function that turns features into tensors, padded on the right to the longest feature of the batch.

    ids, mask and types are int64 (B, L), or (B, choices, L). Labels are int64 (B,), float32 (B,) for regression, or, with
    one label per token, int64 (B, L) padded with -100; for sets of labels, float32 (B, labels). Raises UnipetError for a
    tokenizer without a padding token.
    """
    import torch

    if tokenizer.pad_token_id is None:
        raise UnipetError("model: its tokenizer has no padding token, so examples cannot be batched. Choose another.")
    padding = {"input_ids": tokenizer.pad_token_id, "attention_mask": 0, "token_type_ids": tokenizer.pad_token_type_id}

    def batch(features: list[Feature]) -> dict[str, Tensor]:
        grouped = isinstance(features[0]["input_ids"][0], list)
        tensors: dict[str, Tensor] = {}
        for name, pad in padding.items():
            if name in features[0]:
                rows = [row for feature in features for row in (feature[name] if grouped else [feature[name]])]
                padded = torch.tensor(_right(rows, pad), dtype=torch.int64)
                tensors[name] = padded.reshape(len(features), -1, padded.shape[-1]) if grouped else padded
        labels = [feature["labels"] for feature in features]
        if isinstance(labels[0], list) and not (labels[0] and isinstance(labels[0][0], float)):
            tensors["labels"] = torch.tensor(_right(labels, IGNORED), dtype=torch.int64)
        else:
            kind = torch.float32 if isinstance(labels[0], (float, list)) else torch.int64
            tensors["labels"] = torch.tensor(labels, dtype=kind)
        return tensors

    return batch


def left_padded(prompts: Sequence[Sequence[int]], pad: int) -> dict[str, Tensor]:
    """Prompts of a decoder, aligned at their ends, where generation continues: ids and mask, int64 (B, L)."""
    import torch

    longest = max(map(len, prompts))
    ids = [[pad] * (longest - len(row)) + list(row) for row in prompts]
    mask = [[0] * (longest - len(row)) + [1] * len(row) for row in prompts]
    return {"input_ids": torch.tensor(ids), "attention_mask": torch.tensor(mask)}


def _right(rows: Sequence[Sequence[int]], pad: int) -> list[list[int]]:
    longest = max(map(len, rows))
    return [[*row, *[pad] * (longest - len(row))] for row in rows]
