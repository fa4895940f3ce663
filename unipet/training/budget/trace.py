"""The memory that one training step needs, predicted without executing it: the step runs on tensors without storage, and
every allocation that it would make is counted.

The base model may have real weights or be on the meta device. Its weights are not read, changed or copied. The traced step
equals that of training: the same loss, micro-batch, clipping and optimiser.
"""

from __future__ import annotations

import warnings
import weakref
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode, unset_fake_temporarily
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_map_only

from unipet.adaptation.build import build
from unipet.adaptation.describing import Draft
from unipet.adaptation.several import standing
from unipet.calculus.method import Method
from unipet.calculus.sites import Architecture
from unipet.errors import UnipetError
from unipet.training.budget.checkpointing import checkpointed
from unipet.training.budget.fake_model import fill, on_meta
from unipet.training.budget.stand_in import stand_in
from unipet.training.shares import Batch
from unipet.training.step import Loss

GIB = 2**30
_LARGE = 2**22  # larger tensors that depend on the batch alone, such as masks, are not computed


@dataclass(frozen=True)
class Trace:
    """The bytes that a training step allocates on its device.

    `peak_bytes` is the highest sum of live tensors. `weights_bytes` are the weights of base model and method, and copies
    of unfrozen weights; `optimiser_bytes` are the optimiser's state; `rest_bytes` are activations and gradients at the
    peak.
    """

    peak_bytes: int
    weights_bytes: int
    optimiser_bytes: int

    @property
    def rest_bytes(self) -> int:
        return self.peak_bytes - self.weights_bytes - self.optimiser_bytes

    @property
    def peak_gib(self) -> float:
        return self.peak_bytes / GIB


@dataclass(frozen=True)
class StepSettings:
    """How a step is computed: whether it accumulates gradients of several micro-batches, whether gradient checkpointing is
    on, and the norm to which gradients are clipped (0: no clipping)."""

    accumulates: bool = False
    checkpointing: bool = False
    clip: float = 1.0


class Untraceable(UnipetError):
    """The step depends on values of tensors, which tensors without storage do not have."""


def trace_step(
    model: nn.Module,
    method: Method,
    loss: Loss,
    micro_batch: Batch,
    settings: StepSettings = StepSettings(),
    sites: Architecture | None = None,
    device: str | None = None,
    draft: Draft | None = None,
) -> Trace:
    """Trace a training step of `method` on the unadapted `model` over `micro_batch` (real tensors, on the CPU).

    The optimiser's state counts in full, as after many steps; with `settings.accumulates`, the gradients of earlier
    micro-batches count, too. `device` is "cpu" or "cuda", by default that of the model. The state of the random number
    generators is preserved. `draft` may hold the method, already built for a model with the same modules. Raises
    `Untraceable` if the step cannot be traced, and UnipetError as `adapt`.
    """
    if standing(model).carried:
        raise UnipetError("trace_step needs the base model without a method. Call unipet.eject(model) first.")
    kind = torch.device(device or _device_of(model))
    fake = FakeTensorMode(allow_non_fake_inputs=True)
    counter = Live(fake, kind)
    devices = [kind] if kind.type == "cuda" else []
    with torch.random.fork_rng(devices=devices), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the real step repeats them
        try:
            empty = on_meta(model)
            stand_in(empty, model)
            with torch.device("meta"):
                inserted = build(empty, method, sites) if draft is None else draft.on(empty)
            inserted.name_tensors()  # from then on its tensors are in it
            for each in (empty, inserted):
                fill(each, fake, kind)
            with counter.running():
                inserted.attach(empty)
                inserted.draw(0, 0)
                return _step(empty, loss, micro_batch, settings, counter, kind)
        except UnipetError:
            raise
        except Exception as error:
            line = f"{type(error).__name__}: {(str(error).splitlines() or [''])[0]}"
            raise Untraceable(f"memory of {method.name!r} cannot be predicted: {line}") from error


def _step(
    model: nn.Module, loss: Loss, batch: Batch, settings: StepSettings, counter: Live, device: torch.device
) -> Trace:
    for each in (*model.parameters(), *model.buffers()):
        counter.count(each)
    weights = counter.now
    model.train()
    model.config.use_cache = False  # type: ignore[union-attr]  # as the Trainer has it
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimiser = torch.optim.AdamW(trained, lr=1e-3, fused=True)
    for parameter in trained:
        with unset_fake_temporarily():
            step = torch.ones(())  # as after one step, because AdamW divides by a term that is zero at step 0
        moments = {name: torch.zeros_like(parameter) for name in ("exp_avg", "exp_avg_sq")}
        optimiser.state[parameter] = {"step": step, **moments}
        if settings.accumulates:
            parameter.grad = torch.zeros_like(parameter)
    state = sum(_bytes(value) for entry in optimiser.state.values() for value in entry.values())
    counter.peak = counter.now
    moved = {name: value.to(device) for name, value in batch.items()}
    with checkpointed(model, settings.checkpointing):
        loss.gradients(model, moved, len(batch["labels"]))
    if settings.clip > 0:
        nn.utils.clip_grad_norm_(trained, settings.clip, foreach=device.type == "cuda")
    optimiser.step()
    return Trace(counter.peak, weights, state)


class Live(TorchDispatchMode):
    """Counts the bytes of live storages on one device: as PyTorch's allocator does on the CPU, in blocks of 512 bytes on
    CUDA.

    Tensors that depend on the batch alone (masks, positions, the tokens of the answer) are computed, so that control flow
    can read them. Tensors that depend on weights have no storage.
    """

    def __init__(self, fake: FakeTensorMode, device: torch.device):
        super().__init__()
        self.fake, self.device = fake, device
        self.block = 512 if device.type == "cuda" else 1
        self.now = self.peak = 0
        self._known: dict[int, Any] = {}

    @contextmanager
    def running(self) -> Iterator[None]:
        """Run this mode on top of the mode for tensors without storage."""
        with self.fake, self:
            yield

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        tensors = [*_tensors(args), *_tensors(kwargs.values())]
        faked = any(isinstance(leaf, FakeTensor) for leaf in tensors)
        if (tensors and not faked) or kwargs.get("generator") is not None:
            with unset_fake_temporarily():
                out = func(*args, **kwargs)
            out = tree_map_only(Tensor, self._emptied, out)
        else:
            if func is torch.ops.aten.index.Tensor:
                args = (args[0], _whole_numbers(args[1]))
            elif func is torch.ops.aten.index_put.default and torch._C._current_graph_task_id() != -1:
                func = torch.ops.aten.index_put_.default  # what the backward pass of indexing does to real tensors
            out = func(*args, **kwargs)
        for tensor in _tensors((out,)):
            self.count(tensor)
        return out

    def _emptied(self, tensor: Tensor) -> Tensor:
        """A tensor that depends on the batch alone; a large one loses its values."""
        return self.fake.from_tensor(tensor) if tensor.numel() > _LARGE else tensor

    def count(self, tensor: Tensor) -> None:
        """Count the storage of a tensor from now until it is freed."""
        if tensor.device.type != self.device.type:
            return
        storage = tensor.untyped_storage()
        key = storage._cdata
        if key in self._known:
            return
        size = -(-storage.nbytes() // self.block) * self.block
        self._known[key] = weakref.ref(storage, lambda _: self._forget(key, size))
        self.now += size
        self.peak = max(self.peak, self.now)

    def _forget(self, key: int, size: int) -> None:
        del self._known[key]
        self.now -= size


def _whole_numbers(indices: list[Tensor | None]) -> list[Tensor | None]:
    """Boolean indices with known values, converted to integer indices, so that the result has a known shape."""
    found: list[Tensor | None] = []
    for index in indices:
        if index is None or index.dtype != torch.bool or isinstance(index, FakeTensor):
            found.append(index)
        else:
            with unset_fake_temporarily():
                found += index.nonzero().unbind(1)
    return found


def _tensors(values: Iterable[Any]) -> Iterator[Tensor]:
    """The tensors among an operator's arguments or results, also inside lists."""
    for value in values:
        if isinstance(value, Tensor):
            yield value
        elif isinstance(value, list | tuple):
            yield from _tensors(value)


def _bytes(tensor: Tensor) -> int:
    return tensor.untyped_storage().nbytes()


def _device_of(model: nn.Module) -> str:
    """The device type of a real model; "cpu" for a model on the meta device."""
    found = next(model.parameters()).device.type
    return "cpu" if found == "meta" else found
