"""What one training step needs, without doing it: the step runs on tensors without storage, and every allocation that
it would make is counted.

The base model's weights may be real, or on the meta device; nothing of it is read, changed or copied. The step is the one
that training takes: the same loss, micro-batch, clipping and optimiser.
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
from unipet.training.budget.fake_model import fill, hollow
from unipet.training.step import Batch, Loss

GIB = 2**30
_LARGE = 2**22  # elements above which a tensor of the batch's own (a mask, say) is no longer computed


@dataclass(frozen=True)
class Trace:
    """Bytes that a training step allocates on its device.

    `peak_bytes` is the highest sum of live tensors; `weights_bytes` are the base model's, the method's and copies of what
    it unfreezes, `optimiser_bytes` the optimiser's state, `rest_bytes` activations and gradients at the peak.
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
class StepPlan:
    """How a step is taken: whether other micro-batches came before, whether activations are computed again instead of
    kept, and the norm to which gradients are clipped (0: not at all)."""

    accumulates: bool = False
    checkpointing: bool = False
    clip: float = 1.0


class Untraceable(UnipetError):
    """A step that depends on values, which tensors without storage do not have."""


def trace_step(
    model: nn.Module,
    method: Method,
    loss: Loss,
    micro_batch: Batch,
    plan: StepPlan = StepPlan(),
    sites: Architecture | None = None,
    device: str | None = None,
    draft: Draft | None = None,
) -> Trace:
    """Trace a training step of `method` on the unadapted `model` over `micro_batch` (real tensors, on the CPU).

    The optimiser's state counts in full, as after many steps; with `plan.accumulates` the gradients of earlier
    micro-batches do, too. `device`: "cpu" or "cuda"; unless given, where the real model is. Random numbers that training
    draws later are not touched. `draft` is the method where it is built already, for a model with the same modules. Raises
    `Untraceable` where the step cannot be followed, and UnipetError as `adapt`.
    """
    if standing(model).carried:
        raise UnipetError("trace_step needs the base model without a method. Call unipet.eject(model) first.")
    kind = torch.device(device or _device_of(model))
    fake = FakeTensorMode(allow_non_fake_inputs=True)
    counter = Live(fake, kind)
    devices = [kind] if kind.type == "cuda" else []
    with torch.random.fork_rng(devices=devices), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the real step gives them again
        try:
            empty = hollow(model)
            with torch.device("meta"):
                inserted = build(empty, method, sites) if draft is None else draft.on(empty)
            inserted.name_tensors()  # from then on its tensors are in it
            for each in (empty, inserted):
                fill(each, fake, kind)
            with counter.running():
                inserted.attach(empty)
                inserted.draw(0, 0)
                return _step(empty, loss, micro_batch, plan, counter, kind)
        except UnipetError:
            raise
        except Exception as error:
            line = f"{type(error).__name__}: {(str(error).splitlines() or [''])[0]}"
            raise Untraceable(f"memory of {method.name!r} cannot be predicted: {line}") from error


def _step(model: nn.Module, loss: Loss, batch: Batch, plan: StepPlan, counter: Live, device: torch.device) -> Trace:
    for each in (*model.parameters(), *model.buffers()):
        counter.count(each)
    weights = counter.now
    model.train()
    model.config.use_cache = False  # type: ignore[union-attr]  # as the Trainer has it
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimiser = torch.optim.AdamW(trained, lr=1e-3, foreach=device.type == "cuda")
    for parameter in trained:
        with unset_fake_temporarily():
            step = torch.ones(())  # a step that was taken: no division by zero where it cannot be counted
        moments = {name: torch.zeros_like(parameter) for name in ("exp_avg", "exp_avg_sq")}
        optimiser.state[parameter] = {"step": step, **moments}
        if plan.accumulates:
            parameter.grad = torch.zeros_like(parameter)
    state = sum(_bytes(value) for entry in optimiser.state.values() for value in entry.values())
    counter.peak = counter.now
    moved = {name: value.to(device) for name, value in batch.items()}
    with checkpointed(model, plan.checkpointing):
        loss.gradients(model, moved, len(batch["labels"]))
    if plan.clip > 0:
        nn.utils.clip_grad_norm_(trained, plan.clip, foreach=device.type == "cuda")
    optimiser.step()
    return Trace(counter.peak, weights, state)


class Live(TorchDispatchMode):
    """Counts the storages that are alive on one device, in the way of PyTorch's own allocator on the CPU and in blocks of
    512 bytes on CUDA.

    What depends on the batch alone (masks, positions, which tokens are answers) is computed for real, so that control
    flow that reads it works; what depends on weights has no storage.
    """

    def __init__(self, fake: FakeTensorMode, device: torch.device):
        super().__init__()
        self.fake, self.device = fake, device
        self.block = 512 if device.type == "cuda" else 1
        self.now = self.peak = 0
        self._known: dict[int, Any] = {}

    @contextmanager
    def running(self) -> Iterator[None]:
        """This mode, with tensors that have no storage below it."""
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
        """A tensor of the batch's own, without its values where they are too many to be worth it."""
        return self.fake.from_tensor(tensor) if tensor.numel() > _LARGE else tensor

    def count(self, tensor: Tensor) -> None:
        """Note the storage of a tensor from now until nobody holds it."""
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
    """Boolean indices whose values are known as the whole numbers that they stand for: so the result has a shape."""
    found: list[Tensor | None] = []
    for index in indices:
        if index is None or index.dtype != torch.bool or isinstance(index, FakeTensor):
            found.append(index)
        else:
            with unset_fake_temporarily():
                found += index.nonzero().unbind(1)
    return found


def _tensors(values: Iterable[Any]) -> Iterator[Tensor]:
    """The tensors among an operator's arguments or results, those in lists included."""
    for value in values:
        if isinstance(value, Tensor):
            yield value
        elif isinstance(value, list | tuple):
            yield from _tensors(value)


def _bytes(tensor: Tensor) -> int:
    return tensor.untyped_storage().nbytes()


def _device_of(model: nn.Module) -> str:
    """Where a real model is; "cpu" for one on the meta device."""
    found = next(model.parameters()).device.type
    return "cpu" if found == "meta" else found
