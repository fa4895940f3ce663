"""Tensors under dotted names, as a tree of modules: `down.weight` is tensor `weight` of module `down`.

A name may be any word. Many words are attributes of modules (`type`, `half`), so tensors are looked up where modules keep them.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

from torch import Tensor, nn


class NamedTensors(nn.Module):
    """A node of the tree. It holds tensors and further nodes, each under any name."""

    def __init__(self) -> None:
        super().__init__()
        self._mounted: set[str] = set()  # the nodes that exist because something was mounted there or below

    def __setattr__(self, name: str, value: Any) -> None:
        if isinstance(value, Tensor):
            super().__setattr__(name, value)
        else:  # a plain attribute never takes the place of a node or tensor of that name (`training`)
            object.__setattr__(self, name, value)

    def mount(self, path: list[str], node: NamedTensors) -> None:
        """Put `node` at `path`. Nodes at shorter paths must have been mounted before."""
        parent = self
        for name in path[:-1]:
            if name not in parent._modules:
                parent._mounted.add(name)
            parent = parent._node([name])
        parent._mounted.add(path[-1])
        parent._modules[path[-1]] = node

    def unmount(self) -> None:
        """Take out every mounted node, here and below, so that each node holds its own tensors alone."""
        for node in self._modules.values():
            assert isinstance(node, NamedTensors)
            node.unmount()
        for name in self._mounted:
            del self._modules[name]
        self._mounted.clear()

    def _node(self, path: list[str]) -> NamedTensors:
        """The node at a path below this one, made where there is none."""
        found = self
        for name in path:
            child = found._modules.setdefault(name, NamedTensors())
            assert isinstance(child, NamedTensors)
            found = child
        return found

    def put_parameter(self, name: str, parameter: nn.Parameter) -> None:
        *path, last = name.split(".")
        self._node(path)._parameters[last] = parameter

    def put_buffer(self, name: str, tensor: Tensor) -> None:
        """Add a tensor that never trains and is in no state dict."""
        *path, last = name.split(".")
        node = self._node(path)
        node._buffers[last] = tensor
        node._non_persistent_buffers_set.add(last)

    def parameter(self, name: str) -> nn.Parameter:
        if (found := self._parameters.get(name)) is not None:  # as most: without a dot
            return found
        *path, last = name.split(".")
        found = self._below(path)._parameters[last]
        assert found is not None
        return found

    def buffer(self, name: str) -> Tensor:
        *path, last = name.split(".")
        found: Tensor = self._below(path)._buffers[last]  # type: ignore[assignment]
        return found

    def place(self, name: str, trains: bool) -> tuple[Mapping[str, Tensor], str]:
        """Where a tensor lives: the parameters or buffers of its node, and its name there."""
        *path, last = name.split(".")
        node = self._below(path)
        return cast(Mapping[str, Tensor], node._parameters if trains else node._buffers), last

    def _below(self, path: list[str]) -> nn.Module:
        found: nn.Module = self
        for name in path:
            found = found._modules[name]  # type: ignore[assignment]
        return found
