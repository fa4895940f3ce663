"""The frozen base model of a training in several processes, cut into parts of which each process keeps one (`model.shard=fsdp`,
FSDP2: torch.distributed.fsdp.fully_shard; Zhao et al. 2023, PyTorch FSDP).

A layer's weights are put together in every process when the layer computes, and given away after it; what trains is whole in
every process. So all processes must pass through the layers alike, as often: in a step one that has fewer micro-batches makes
passes that count nothing, and while process 0 alone evaluates, the others follow each of its passes with one of their own.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch import distributed as dist

from unipet.adaptation.api import adaptation, frozen, stored
from unipet.adaptation.fingerprint import fingerprint
from unipet.training.forward import evaluation_mode
from unipet.training.loop import Callback
from unipet.training.ranks import Ranks, connected

#: What process 0 says: one pass follows, all go on with their own work, or nothing follows.
_PASS, _TOGETHER, _END = 0, 1, 2


class Sharding(Callback):
    """Keeps the processes of a training in step. This one is for a base model that is whole in every process: nothing to do."""

    def together(self) -> None:
        """From here on all processes compute their own parts."""

    def lead(self) -> None:
        """From here on process 0 alone decides on passes; the others wait for `together`."""

    def follow_to_the_end(self) -> None:
        """In process 0 nothing. The others follow its passes until it leaves them."""

    def on_step_begin(self, args: Any, state: Any, control: Any) -> None:
        """Each step is everybody's."""
        self.together()

    def on_step_end(self, args: Any, state: Any, control: Any) -> None:
        """Between steps, process 0 may score a checkpoint."""
        self.lead()


class Sharded(Sharding):
    """For a base model that is cut into parts. `some` gives the model's arguments for any example."""

    def __init__(self, model: nn.Module, ranks: Ranks, some: Callable[[], Mapping[str, Tensor]]) -> None:
        """Cut the base model of `model`, which is whole here, and drop the other processes' parts."""
        self._model, self._ranks, self._some, self._leading = model, ranks, some, False
        inserted = adaptation(model)
        if ranks.rank == 0:  # which saves: later no process has all values
            inserted.base_fingerprint = fingerprint(model, inserted.head, inserted.original)
        whole = {id(each) for each in (*stored(model).values(), *frozen(model).values())}
        own = {each for each in model.parameters() if each.requires_grad or id(each) in whole}
        _shard(model, ranks, own)
        if ranks.rank == 0:
            model.register_forward_pre_hook(self._announce, prepend=True)
            ranks.farewells.append(lambda: self._say(_END))
            self._leading = True

    def together(self) -> None:
        """See `Sharding`."""
        if self._ranks.rank == 0:
            self._leading = False
            self._say(_TOGETHER)
        else:
            self._follow_until(_TOGETHER)

    def lead(self) -> None:
        """See `Sharding`."""
        self._leading = self._ranks.rank == 0

    def follow_to_the_end(self) -> None:
        """See `Sharding`."""
        if self._ranks.rank:
            self._follow_until(_END)

    def _announce(self, module: nn.Module, inputs: Any) -> None:
        if self._leading:
            self._say(_PASS)

    def _follow_until(self, last: int) -> None:
        while self._said() != last:
            with evaluation_mode(self._model) as device, torch.no_grad():
                self._model(**{name: value.to(device) for name, value in self._some().items()})

    def _say(self, word: int) -> None:
        with connected():
            dist.broadcast(torch.tensor(word), 0)

    def _said(self) -> int:
        word = torch.tensor(_TOGETHER)
        with connected():
            dist.broadcast(word, 0)
        return int(word)


def _shard(model: nn.Module, ranks: Ranks, own: set[nn.Parameter]) -> None:
    """Cut every parameter of `model` but those of `own`, layer by layer, then what belongs to no layer."""
    from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
    from torch.distributed.fsdp import fully_shard

    if ranks.gpus is None:
        mesh = init_device_mesh("cpu", (ranks.count,))
    else:
        mesh = DeviceMesh.from_group(ranks.gpus, "cuda")
    for layer in [*_layers(model), model]:
        fully_shard(layer, mesh=mesh, ignored_params=own, reshard_after_forward=True)


def _layers(model: nn.Module) -> Iterator[nn.Module]:
    """The modules of the outermost lists of modules: a transformer's layers."""
    for child in model.children():
        if isinstance(child, nn.ModuleList):
            yield from child
        else:
            yield from _layers(child)


def local_bytes(model: nn.Module) -> tuple[int, int]:
    """(bytes of the frozen parameters that this process keeps, bytes of all of them)."""
    kept = whole = 0
    for each in model.parameters():
        if not each.requires_grad:
            part: Any = each.to_local() if hasattr(each, "to_local") else each
            kept, whole = kept + part.nbytes, whole + each.numel() * each.element_size()
    return kept, whole
