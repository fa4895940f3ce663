"""A selection of the encoded examples in given batches, and the size of a batch in tokens."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from unipet.tasks import EncodedRows


class Selected:
    """The examples of some batches, in the batches' order, with the interface of `EncodedRows`.

    With `keep_together`, the number of its batch stands for an example's length. An order that groups equal lengths then
    yields exactly these batches, if all have equally many examples.
    """

    def __init__(self, rows: EncodedRows, batches: Sequence[Sequence[int]], keep_together: bool = False) -> None:
        self._rows = rows
        self.indices = [index for batch in batches for index in batch]
        self.lengths = [rows.lengths[index] for index in self.indices]
        if keep_together:
            self.lengths = [number for number, batch in enumerate(batches) for _ in batch]
        self.target_lengths = [rows.target_lengths[index] for index in self.indices] if rows.target_lengths else []

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, index: int) -> dict[str, Any]:
        return self._rows[self.indices[index]]

    def prompt(self, index: int) -> list[int]:
        """As `EncodedRows.prompt`."""
        return self._rows.prompt(self.indices[index])


def batch_size_in_tokens(rows: EncodedRows, batch: Sequence[int], encoder_decoder: bool) -> int:
    """The tokens of a batch, including padding, and for an encoder-decoder also those of the decoder's batch."""
    size = len(batch) * max(rows.lengths[index] for index in batch)
    if encoder_decoder and rows.target_lengths:
        size += len(batch) * max(rows.target_lengths[index] for index in batch)
    return size
