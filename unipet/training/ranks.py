"""One training in several processes, one for each device: each takes a part of every batch, and they add up their gradients.

The effective batch, its padding, the order of the data and the routes of mixtures are those of one process. A process computes
the sum over the answers of its own rows, divided by the answers of the whole batch; the sum over the processes is then the
batch's mean, whatever the parts. Every process takes the same optimiser step.
"""

from __future__ import annotations

import hashlib
import os
import socket
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch import distributed as dist

from unipet.errors import UnipetError
from unipet.training.loop import Callback
from unipet.training.movement import marks

_BUCKET = 2**25  # bytes of gradients in one message
_PATIENCE = timedelta(days=7)  # process 0 may score a split for hours; that a process has ended shows at once
_PATIENCE_GPU = timedelta(minutes=10)  # all processes have spoken just before, so only one that died keeps silent
_INTERFACE = "GLOO_SOCKET_IFNAME"


class Disconnected(RuntimeError):
    """Another process of the training has ended."""


@dataclass(frozen=True)
class Ranks:
    """The place of this process among the `count` processes of a training: its number is `rank`, and 0 leads."""

    rank: int = 0
    count: int = 1
    gpus: Any = None  # the process group of tensors on GPUs
    farewells: list[Callable[[], None]] = field(default_factory=list, compare=False)  # before it leaves the others

    def part(self, rows: int) -> slice:
        """The rows that this process takes of a batch; the first processes take one more where they cannot be equal."""
        size, more = divmod(rows, self.count)
        first = self.rank * size + min(self.rank, more)
        return slice(first, first + size + (self.rank < more))

    def add_up(self, losses: Tensor, tensors: Sequence[Tensor]) -> Tensor:
        """The sums of all processes' losses, a number or (L,); the gradients of `tensors` become their sums.

        A tensor that has no gradient in any process stays without one: the optimiser leaves it alone.
        """
        if self.count == 1:
            return losses
        has = [float(tensor.grad is not None) for tensor in tensors]
        said = torch.tensor([*losses.flatten().tolist(), *has], dtype=torch.float64)
        self._sum(said)
        count = losses.numel()
        learning = [tensor for tensor, number in zip(tensors, said[count:].tolist(), strict=True) if number]
        for tensor in learning:
            if tensor.grad is None:
                tensor.grad = torch.zeros_like(tensor)
        for bucket in _buckets([tensor.grad for tensor in learning if tensor.grad is not None]):
            flat = torch.cat([gradient.flatten().to(_sum_type(gradient)) for gradient in bucket])
            self._sum(flat)
            for gradient, total in zip(bucket, flat.split([each.numel() for each in bucket]), strict=True):
                gradient.copy_(total.view_as(gradient))
        return said[:count].view(losses.shape).to(losses)

    def total(self, values: Tensor) -> Tensor:
        """The sums of all processes' `values`."""
        summed = values.detach().cpu().double()
        self._sum(summed)
        return summed.to(values)

    def leader_says(self, value: bool) -> bool:
        """What process 0 gives as `value`."""
        if self.count == 1:
            return value
        said = torch.tensor([value])
        with connected():
            dist.broadcast(said, 0)
        return bool(said)

    def begin_alike(self, tensors: Iterable[Tensor]) -> None:
        """Every process' tensors get the values of process 0."""
        if self.count == 1:
            return
        for tensor in tensors:
            if tensor.numel() == 0:
                continue
            flat = tensor.detach().flatten().to("cpu", copy=True)
            with connected():
                dist.broadcast(flat.view(torch.uint8), 0)
            tensor.detach().copy_(flat.view(tensor.shape))

    def check_alike(self, tensors: Mapping[str, Tensor]) -> None:
        """Raises `UnipetError` unless all processes have the same values, bit for bit."""
        if self.count == 1:
            return
        own = torch.tensor(list(marks(tensors).values()), dtype=torch.int64)
        low, high = own.clone(), own.clone()
        with connected():
            dist.all_reduce(low, dist.ReduceOp.MIN)
            dist.all_reduce(high, dist.ReduceOp.MAX)
        differing = [name for name, same in zip(tensors, (low == high).tolist(), strict=True) if not same]
        if differing:
            raise UnipetError(
                f"training: the processes of this run (budget.gpus={self.count}) ended with different values in "
                f"{len(differing)} of {len(tensors)} tensors, such as {differing[0]}. Set budget.gpus=1."
            )

    def _sum(self, values: Tensor) -> None:
        with connected():
            dist.all_reduce(values, group=self.gpus if values.is_cuda else None)


ALONE = Ranks()


class OwnDropout(Callback):
    """Draws of dropout that no other process has: a function of seed, process and step. Those of process 0 are untouched."""

    def __init__(self, ranks: Ranks, seed: int) -> None:
        self._rank, self._seed = ranks.rank, seed

    def on_step_begin(self, args: Any, state: Any, control: Any) -> None:
        if self._rank:
            place = f"{self._seed} {self._rank} {state.global_step}".encode()
            torch.manual_seed(int.from_bytes(hashlib.sha256(place).digest()[:8]) >> 1)  # the CPU reads the low 32 bits


@contextmanager
def joined(rank: int, count: int, meeting: Path) -> Iterator[Ranks]:
    """Inside, this is process `rank` of `count`, which find each other through the file `meeting` on this machine."""
    with _loopback(), connected():
        dist.init_process_group(
            "gloo", init_method=meeting.absolute().as_uri(), rank=rank, world_size=count, timeout=_PATIENCE
        )
    try:
        gpus = dist.new_group(backend="nccl", timeout=_PATIENCE_GPU) if torch.cuda.is_available() else None
        ranks = Ranks(rank, count, gpus)
        yield ranks
        for farewell in ranks.farewells:
            farewell()
    finally:
        dist.destroy_process_group()


def check_can_join() -> None:
    """Raises `UnipetError` where this process cannot be one of several."""
    if not dist.is_available() or not dist.is_gloo_available():
        raise UnipetError("budget.gpus: this PyTorch was built without torch.distributed. Set budget.gpus=1.")
    if dist.is_initialized():
        raise UnipetError(
            "budget.gpus: this program has already called torch.distributed.init_process_group, and a run on several "
            "devices starts its processes itself. Call destroy_process_group first, or set budget.gpus=1."
        )


@contextmanager
def connected() -> Iterator[None]:
    """Inside, a lost connection to the other processes is `Disconnected`."""
    try:
        yield
    except (RuntimeError, ValueError) as error:  # what a lost connection is to gloo, and to its store
        raise Disconnected(str(error)) from error


@contextmanager
def _loopback() -> Iterator[None]:
    """Processes of one machine need no network, and nobody else should reach them."""
    names = [name for _, name in socket.if_nameindex() if name in ("lo", "lo0")]
    if _INTERFACE in os.environ or not names:
        yield
        return
    os.environ[_INTERFACE] = names[0]
    try:
        yield
    finally:
        del os.environ[_INTERFACE]


def _sum_type(gradient: Tensor) -> torch.dtype:
    """Sums of half-precision gradients are taken in float32."""
    return torch.promote_types(gradient.dtype, torch.float32)


def _buckets(gradients: list[Tensor]) -> Iterator[list[Tensor]]:
    """The gradients in groups of one type and device, none larger than a message but for single tensors."""
    bucket: list[Tensor] = []
    size = 0
    for gradient in gradients:
        if bucket and (
            size + gradient.nbytes > _BUCKET or (bucket[0].dtype, bucket[0].device) != (gradient.dtype, gradient.device)
        ):
            yield bucket
            bucket, size = [], 0
        bucket.append(gradient)
        size += gradient.nbytes
    if bucket:
        yield bucket
