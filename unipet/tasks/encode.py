"""From text to token ids, once; and from rows of ids to padded batches."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from unipet.errors import UnipetError
from unipet.tasks.load import TaskData
from unipet.tasks.rows import Row

if TYPE_CHECKING:
    from torch import Tensor

Feature = dict[str, Any]  # {"input_ids": [int], "attention_mask": [int], "token_type_ids": [int] if used, "labels"}


class EncodedRows:
    """A data set as torch's DataLoader wants it: `len(rows)`, `rows[i]` -> Feature. `lengths[i]` counts its tokens."""

    def __init__(self, columns: dict[str, list[list[int]]], labels: list[int | float], truncated: float) -> None:
        self.lengths: list[int] = [len(ids) for ids in columns["input_ids"]]
        self.truncated = truncated  # the share of rows that max_length cut
        self._labels = labels
        self._ends = np.cumsum([0, *self.lengths])
        # One flat array per column: lists of Python numbers would take eight times the memory.
        self._columns = {
            name: np.fromiter((i for row in rows for i in row), dtype=np.int32, count=int(self._ends[-1]))
            for name, rows in columns.items()
        }

    def __len__(self) -> int:
        return len(self._labels)

    def __getitem__(self, index: int) -> Feature:
        index = range(len(self))[index]
        start, end = self._ends[index], self._ends[index + 1]
        feature: Feature = {name: column[start:end].tolist() for name, column in self._columns.items()}
        return {**feature, "attention_mask": [1] * int(end - start), "labels": self._labels[index]}


@dataclass(frozen=True)
class Encoded:
    """Both splits, tokenised. `truncated` gives the share of rows that max_length cut, per split."""

    train: EncodedRows
    evaluation: EncodedRows
    max_length: int

    @property
    def truncated(self) -> dict[str, float]:
        return {"train": self.train.truncated, "evaluation": self.evaluation.truncated}


_ENCODED: dict[tuple[str, str, int], Encoded] = {}


def encode(data: TaskData, tokenizer: Any, max_length: int) -> Encoded:
    """Tokenise both splits, once per (data, tokenizer, max_length) in this process; pairs lose from the longer text.

    Raises UnipetError when `max_length` is more than the tokenizer's model can take or leaves no room for text.
    """
    key = (data.fingerprint, tokenizer_identity(tokenizer), max_length)
    if key not in _ENCODED:
        _check_length(data, tokenizer, max_length)
        _ENCODED[key] = Encoded(
            _tokenise(data.train, tokenizer, max_length), _tokenise(data.evaluation, tokenizer, max_length), max_length
        )
    return _ENCODED[key]


def tokenizer_identity(tokenizer: Any) -> str:
    """A hash of what decides the ids: two tokenizers loaded from the same files share it."""
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is not None:
        state = json.loads(backend.to_str())
        state.pop("truncation", None)  # these two are settings of the last call, not of the tokenizer
        state.pop("padding", None)
    else:
        state = sorted(tokenizer.get_vocab().items())
    given = [type(tokenizer).__name__, list(tokenizer.model_input_names), tokenizer.truncation_side, state]
    return hashlib.sha256(json.dumps(given, sort_keys=True).encode()).hexdigest()


def collate(tokenizer: Any) -> Callable[[list[Feature]], dict[str, Tensor]]:
    """A function from features to tensors padded on the right to the longest of the batch.

    ids, mask and types are int64 (B, L); labels are int64 (B,), or float32 (B,) for regression. Raises UnipetError for
    a tokenizer without a padding token.
    """
    import torch

    if tokenizer.pad_token_id is None:
        raise UnipetError("model: its tokenizer has no padding token, so examples cannot be batched. Choose another.")
    padding = {"input_ids": tokenizer.pad_token_id, "attention_mask": 0, "token_type_ids": tokenizer.pad_token_type_id}

    def batch(features: list[Feature]) -> dict[str, Tensor]:
        longest = max(len(feature["input_ids"]) for feature in features)
        tensors: dict[str, Tensor] = {}
        for name, pad in padding.items():
            if name in features[0]:
                rows = [feature[name] + [pad] * (longest - len(feature[name])) for feature in features]
                tensors[name] = torch.tensor(rows, dtype=torch.int64)
        labels = [feature["labels"] for feature in features]
        tensors["labels"] = torch.tensor(labels, dtype=torch.float32 if isinstance(labels[0], float) else torch.int64)
        return tensors

    return batch


def _check_length(data: TaskData, tokenizer: Any, max_length: int) -> None:
    pair = len(data.train[0]["text"]) == 2
    room = tokenizer.num_special_tokens_to_add(pair=pair) + (2 if pair else 1)
    limit = tokenizer.model_max_length  # a huge number when the tokenizer does not know
    if not room <= max_length <= limit:
        raise UnipetError(
            f"task.max_length: {max_length} given; this base model's tokenizer allows {room} to {limit} tokens here."
        )


def _tokenise(rows: list[Row], tokenizer: Any, max_length: int) -> EncodedRows:
    columns = _call(rows, tokenizer, truncation=True, max_length=max_length)
    # Only a row that fills max_length can have been cut: those few are tokenised whole to know.
    full = [row for row, ids in zip(rows, columns["input_ids"], strict=True) if len(ids) >= max_length]
    whole = _call(full, tokenizer, truncation=False)["input_ids"] if full else []
    cut = sum(len(ids) > max_length for ids in whole)
    return EncodedRows(columns, [row["label"] for row in rows], cut / len(rows))


def _call(rows: list[Row], tokenizer: Any, **options: Any) -> dict[str, list[list[int]]]:
    texts = [list(column) for column in zip(*(row["text"] for row in rows), strict=True)]
    made = tokenizer(*texts, padding=False, return_attention_mask=False, verbose=False, **options)
    return {name: made[name] for name in ("input_ids", "token_type_ids") if name in made}
