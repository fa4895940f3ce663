"""The rows of a batch that one of several adaptations on a model works on.

Shapes: B batch, O the own rows among them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor

from unipet.errors import UnipetError


class OwnRows:
    """For each row that `unipet.rows` names, whether it belongs to this adaptation.

    A batch may hold k entries for each of these rows, one after another: the beams or returned sequences of an example, or
    its tokens where a model flattens them. All of them go the way of their row.
    """

    def __init__(self, mine: Sequence[bool]) -> None:
        self.mine, self._whole = tuple(mine), all(mine)
        self._index: dict[tuple[int, torch.device], Tensor] = {}  # (B, device) -> the own rows of such a batch

    @property
    def draws(self) -> AbstractContextManager[None]:
        """Inside, random numbers come from the stream of these rows."""
        return nullcontext()

    def stacked(self, views: int) -> OwnRows:
        """The own rows where the batch is several stacked views of the same examples."""
        return self if views == 1 else OwnRows(self.mine * views)

    def index(self, batch: Tensor) -> Tensor:
        """The own rows of a batch, (O,). Raises UnipetError where its rows are not those that were named."""
        count, known = batch.shape[0], (batch.shape[0], batch.device)
        if known not in self._index:
            each, left = divmod(count, len(self.mine))
            if left or not each:
                raise UnipetError(
                    f"unipet.rows names {len(self.mine)} rows, but this batch has {count}. Name the adaptation of every row, "
                    "or call unipet.use(model, NAME) for one adaptation on all rows."
                )
            own = [row for row in range(count) if self.mine[row // each]]
            self._index[known] = torch.tensor(own, dtype=torch.long, device=batch.device)
        return self._index[known]

    def pick(self, batch: Tensor) -> Tensor:
        """The own rows of a tensor, (O, ...). One that is the same for all rows, (1, ...), stays."""
        if self._whole or (batch.shape[0] == 1 and len(self.mine) > 1):
            return batch
        return batch.index_select(0, self.index(batch))

    def put(self, batch: Tensor, own: Tensor) -> Tensor:
        """The batch with `own`, (O, ...), in the place of its own rows."""
        return own.to(batch.dtype) if self._whole else batch.index_copy(0, self.index(batch), own.to(batch.dtype))

    def flags(self, batch: Tensor) -> Tensor:
        """Which rows of a batch are own ones, (B,)."""
        return torch.zeros(len(batch), dtype=torch.bool, device=batch.device).index_fill(0, self.index(batch), True)


class Cut:
    """A batch cut into blocks of rows, one after another. The cuts of a few tensors are kept: a gradient then comes back to each
    tensor once, however many blocks there are."""

    KEPT = 4

    def __init__(self, sizes: Sequence[int]) -> None:
        self.sizes, self.total = list(sizes), sum(sizes)
        self._kept: list[tuple[Tensor, int, tuple[Tensor, ...]]] = []

    def pieces(self, batch: Tensor) -> tuple[Tensor, ...]:
        """The blocks of a tensor whose rows are k entries for each row of the batch."""
        for known, version, pieces in self._kept:
            if known is batch and version == batch._version and pieces[0].requires_grad == _in_graph(batch):
                return pieces
        each = batch.shape[0] // self.total
        pieces = batch.split([each * size for size in self.sizes])
        self._kept = [(batch, batch._version, pieces), *self._kept[: self.KEPT - 1]]
        return pieces


def _in_graph(batch: Tensor) -> bool:
    return batch.requires_grad and torch.is_grad_enabled()


class OwnBlock(OwnRows):
    """Own rows that are the block `number` of a cut. Several views of the same examples are among them already. `stream` gives
    them a random stream of their own."""

    def __init__(self, cut: Cut, number: int, stream: Callable[[], AbstractContextManager[None]] = nullcontext) -> None:
        self.first = sum(cut.sizes[:number])
        self.end = self.first + cut.sizes[number]
        super().__init__([self.first <= row < self.end for row in range(cut.total)])
        self.cut, self.number, self._stream = cut, number, stream

    @property
    def draws(self) -> AbstractContextManager[None]:
        return self._stream()

    def stacked(self, views: int) -> OwnRows:
        return self

    def pick(self, batch: Tensor) -> Tensor:
        if self._whole or (batch.shape[0] == 1 and len(self.mine) > 1):
            return batch
        self.index(batch)  # or an error
        return self.cut.pieces(batch)[self.number]

    def put(self, batch: Tensor, own: Tensor) -> Tensor:
        if self._whole:
            return own.to(batch.dtype)
        self.index(batch)
        pieces = list(self.cut.pieces(batch))
        pieces[self.number] = own.to(batch.dtype)
        return torch.cat(pieces)
