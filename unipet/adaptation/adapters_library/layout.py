"""How the adapters library names tensors: `<module>.<kind>.<adapter's name>.<tensor>`, and where in a layer its modules are."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from unipet.calculus.sites import ARCHITECTURES, Architecture, architecture_of, prefix_of
from unipet.errors import UnipetError

BOTTLENECK, LINEAR, PREFIX, GATE, SHARED = "adapters", "loras", "prefix_tunings", "prefix_gates", "shared_parameters"
#: Where a layer has its bottlenecks, by the place's end: modules of the layer, or members that the library adds to it.
_BLOCKS = {
    "attention.output": "attn",
    "crossattention.output": "cross",
    "output": "ffn",
    "attention_adapters": "attn",
    "cross_attention_adapters": "cross",
    "output_adapters": "ffn",
}
_SUBLAYER = re.compile(r"layer\.(\d)")  # a layer that is a list of sublayers
_CROSS = ("encoder_attn", "EncDecAttention", "crossattention")


@dataclass(frozen=True)
class Where:
    """A place in one layer of one stack: `attn`, `cross` or `ffn`."""

    stack: str
    layer: int
    block: str


@dataclass
class Stored:
    """The tensors of a directory by kind, place and name; `take` gives one out, `left` names what nobody took."""

    tensors: dict[tuple[str, object], dict[str, Tensor]]
    names: dict[tuple[str, object, str], str]  # as they are called in the file
    taken: set[tuple[str, object, str]] = field(default_factory=set)

    def places(self, kind: str) -> list[Any]:
        """Where tensors of a kind are."""
        return [place for own, place in self.tensors if own == kind]

    def has(self, kind: str, place: object, leaf: str) -> bool:
        """Whether there is such a tensor."""
        return leaf in self.tensors.get((kind, place), {})

    def size(self, kind: str, place: object, leaf: str, axis: int = 0) -> int:
        """The size of a stored tensor along an axis; 0 where there is none."""
        tensor = self.tensors.get((kind, place), {}).get(leaf)
        return tensor.shape[axis] if tensor is not None and tensor.dim() > axis else 0

    def take(self, source: Path, kind: str, place: object, leaf: str) -> Tensor:
        """One tensor. Raises UnipetError where it is missing."""
        if not self.has(kind, place, leaf):
            raise UnipetError(f"{source}: the {leaf} of {kind} at {place} is missing. Copy the whole adapter again.")
        self.taken.add((kind, place, leaf))
        return self.tensors[kind, place][leaf]

    def left(self) -> list[str]:
        """The names of the tensors that nobody took."""
        return [name for key, name in self.names.items() if key not in self.taken]


def stored(source: Path, adapter: str, tensors: Mapping[str, Tensor], model: nn.Module) -> Stored:
    """The tensors of the adapter called `adapter`, each at its place in this model. Raises UnipetError for any other tensor."""
    table, modules = architecture_of(model, ARCHITECTURES), {name for name, _ in model.named_modules()}
    found = Stored({}, {})
    for name, tensor in tensors.items():
        kind, path, leaf = _split(source, adapter, name, model)
        place: object = path
        if kind == BOTTLENECK:
            place = _where(source, path, table, cross=None)
        elif kind == GATE:
            place = _where(source, path, table, cross=any(mark in path for mark in _CROSS))
        elif kind == LINEAR:
            place = prefix_of(model) + path
            if place not in modules:
                raise UnipetError(f"{source}: {name}: this {type(model).__name__} has no {place}; it fits another.")
        elif kind == PREFIX:
            place, _, leaf = leaf.partition(".")
        else:
            place = ""
        own = found.tensors.setdefault((kind, place), {})
        if leaf in own and not torch.equal(own[leaf], tensor):
            raise UnipetError(f"{source}: {name} is stored twice, with other values.")
        own[leaf] = tensor
        found.names[kind, place, leaf] = name
    return found


def _split(source: Path, adapter: str, name: str, model: Any) -> tuple[str, str, str]:
    """(kind, module's path relative to the base model, tensor)."""
    for kind in (PREFIX, GATE, LINEAR, BOTTLENECK, SHARED):
        path, mark, leaf = f".{name}".partition(f".{kind}.{adapter}.")
        if mark:
            return kind, path.removeprefix(".").removeprefix(f"{model.base_model_prefix}."), leaf
    raise UnipetError(
        f"{source}: {name[:120]} is no tensor of {adapter!r} that can be imported. Read here: bottlenecks, low-rank maps, "
        "rescaling vectors, prefixes and unions of them."
    )


def _where(source: Path, path: str, table: Architecture, cross: bool | None) -> Where:
    """The place that a module's path means; `cross` says for an attention module whether it is the cross-attention's."""
    for name, stack in table.stacks.items():
        match = re.fullmatch(rf"{re.escape(stack.layers)}\.(\d+)\.(.+)", path)
        if match is None:
            continue
        if cross is not None:
            return Where(name, int(match[1]), "cross" if cross else "attn")
        sublayer = _SUBLAYER.fullmatch(match[2])
        if sublayer is not None:
            blocks = ("attn", "cross", "ffn") if "cross" in stack.roles else ("attn", "ffn")
            if int(sublayer[1]) < len(blocks):
                return Where(name, int(match[1]), blocks[int(sublayer[1])])
        elif match[2] in _BLOCKS:
            return Where(name, int(match[1]), _BLOCKS[match[2]])
    raise UnipetError(f"{source}: {path} is no place of this base model that is known; it fits another one.")
