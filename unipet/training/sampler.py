"""The order of training examples, which is the same for every method with the same seed."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import torch
from torch.utils.data import Sampler


class GroupedOrder(Sampler[int]):
    """A shuffled order in which the examples of each batch have similar lengths.

    The order of an epoch is a function of (lengths, batch size, seed, epoch) and does not use the global random state. So
    two methods with the same seed see the same batches, although they draw different numbers of random values.
    """

    def __init__(self, sizes: Sequence[int], batch_size: int, seed: int, pool: int = 50) -> None:
        """`pool` is the number of batches whose examples are sorted by length together."""
        self._sizes, self._batch_size, self._seed, self._pool = sizes, batch_size, seed, pool
        self._epoch = self._skipped = 0

    def __len__(self) -> int:
        return len(self._sizes)

    def __iter__(self) -> Iterator[int]:
        self._epoch += 1
        skipped, self._skipped = self._skipped, 0
        return iter(self.order(self._epoch - 1)[skipped:])

    def begin_after(self, steps: int) -> None:
        """The next iteration begins behind the batches of so many steps: within an epoch, it is the rest of that one."""
        self._epoch, batches = divmod(steps, self._batches_per_epoch)
        self._skipped = batches * self._batch_size

    def epochs(self, steps: int) -> float:
        """How many epochs so many steps are."""
        epochs, batches = divmod(steps - 1, self._batches_per_epoch)
        return epochs + (batches + 1) / self._batches_per_epoch

    @property
    def _batches_per_epoch(self) -> int:
        return math.ceil(len(self._sizes) / self._batch_size)

    def order(self, epoch: int) -> list[int]:
        """The indices of one epoch. An incomplete batch comes last."""
        generator = torch.Generator().manual_seed(self._seed * 1_000_003 + epoch)
        shuffled = torch.randperm(len(self._sizes), generator=generator).tolist()
        whole = len(shuffled) - len(shuffled) % self._batch_size
        batches = []
        for start in range(0, whole, self._pool * self._batch_size):
            pool = shuffled[start : min(start + self._pool * self._batch_size, whole)]
            pool.sort(key=self._sizes.__getitem__)
            batches += [pool[at : at + self._batch_size] for at in range(0, len(pool), self._batch_size)]
        mixed = [batches[index] for index in torch.randperm(len(batches), generator=generator).tolist()]
        return [index for batch in mixed for index in batch] + shuffled[whole:]

    def batches(self) -> Iterator[list[int]]:
        """An endless iterator over the batches of all epochs. It does not change the state of this object."""
        epoch = 0
        while True:
            order = self.order(epoch)
            yield from (order[at : at + self._batch_size] for at in range(0, len(order), self._batch_size))
            epoch += 1
