"""The hooks on a base model: they hand x and h to an insertion, and put h' in the place of h."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from unipet.adaptation.attention import HeadsSite
from unipet.calculus.insertion import Insertion
from unipet.calculus.weights import join, split
from unipet.errors import UnipetError


class Hook:
    """One insertion's two hooks on the base model: take x on the way in, put h' in the place of h on the way out."""

    def __init__(self, insertion: Insertion, norm: nn.Module | None = None):
        self.insertion = insertion
        self.own = insertion.site.x_path == insertion.site.path  # one module both reads x and yields h
        self.norm = norm  # of the block, where x is the block's output
        self.x: Tensor | None = None
        self.graph = True  # whether x was taken with its graph

    def take_x(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        self.x, self.graph = _first(args, kwargs), torch.is_grad_enabled()

    def _taken(self) -> Tensor | None:
        """The x of this call. Raises UnipetError where gradients could not flow back through it."""
        if self.insertion.training and torch.is_grad_enabled() and not self.graph:
            raise UnipetError(
                f"{self.insertion.name} at {self.insertion.site.path} reads x inside a layer that reentrant checkpointing "
                "runs without a graph. Use model.gradient_checkpointing_enable({'use_reentrant': False})."
            )
        x, self.x = self.x, None
        return x

    def changed(self, h: Tensor, x: Any) -> Tensor:
        """h' in the shape of h; some models flatten examples and tokens into one dimension around a block."""
        flat = h.dim() == 2
        flat_x = isinstance(x, Tensor) and x.dim() == 2 and x.is_floating_point()  # not token ids; h may be whole again
        if flat or flat_x:
            rows = self.insertion.context.rows[self.insertion.site.tokens_of]
            h = h.unflatten(0, (rows, -1)) if flat else h
            x = x.unflatten(0, (rows, -1)) if flat_x else x
        if (own := self.insertion.context.own) is None:
            h = self._joined(h, x)
        else:
            h = own.put(h, self._joined(own.pick(h), own.pick(x) if isinstance(x, Tensor) else x))
        return h.flatten(0, 1) if flat else h

    def _joined(self, h: Tensor, x: Any) -> Tensor:
        if (total := self.insertion.site.total) is not None:
            x = self._normed(h) + x if total.of_h else self._normed(h + x)
        if (part := self.insertion.site.part) is None:
            changed: Tensor = self.insertion(h, x)
            return changed
        pieces = split(part, h)
        pieces[part.index] = self.insertion(pieces[part.index], x)
        return join(part, pieces)

    def _normed(self, z: Tensor) -> Tensor:
        # Its forward alone: what hooks do at the norm is done once, when the block gets there.
        return z if self.norm is None else self.norm.forward(z)

    def on_output(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> Any:
        x = _first(args, kwargs) if self.own else self._taken()
        if isinstance(output, tuple):
            return (self.changed(output[0], x), *output[1:])
        return self.changed(output, x)

    def on_input(
        self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> tuple[tuple[Any, ...], dict[str, Any]]:
        h = args[0]
        return (self.changed(h, h if self.own else self._taken()), *args[1:]), kwargs

    def on_stream(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """In place, because the residual connection around `module` holds the same tensor."""
        stream = _first(args, kwargs)
        stream.copy_(self.changed(stream.clone(), self._taken()))


class HeadsReader:
    """A pre-hook that keeps the x of the insertions at `attn.heads` until the attention function runs."""

    def __init__(self, site: HeadsSite, path: str):
        self.site, self.path = site, path

    def __call__(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        self.site.x[self.path] = _first(args, kwargs)


class Entry:
    """A pre-hook on the module that takes the attention mask of some stacks: it announces a pass and its arguments."""

    def __init__(self, begin: Callable[[list[str], dict[str, Any]], None], stacks: list[str], module: nn.Module):
        self.begin, self.stacks = begin, stacks
        self.names = _arguments(type(module).forward)

    def __call__(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        self.begin(self.stacks, {**dict(zip(self.names, args, strict=False)), **kwargs})


@functools.cache
def _arguments(forward: Callable[..., Any]) -> list[str]:
    """The arguments of a forward call, by name."""
    return list(inspect.signature(forward).parameters)[1:]


def _first(args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """The first argument of a module's call, or `hidden_states` where all are passed by name."""
    return args[0] if args else kwargs.get("hidden_states", next(iter(kwargs.values()), None))
