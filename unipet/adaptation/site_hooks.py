"""The hooks on a base model: they hand x and h to an insertion, and put h' in the place of h."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from unipet.adaptation.attention import HeadsSite
from unipet.adaptation.position_ids import named
from unipet.calculus.insertion import Insertion
from unipet.calculus.own_rows import OwnBlock
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
            h = self.joined(h, x)
        else:
            h = own.put(h, self.joined(own.pick(h), own.pick(x) if isinstance(x, Tensor) else x))
        return h.flatten(0, 1) if flat else h

    def joined(self, h: Tensor, x: Any) -> Tensor:
        """h' of the rows that h and x hold."""
        if (total := self.insertion.site.total) is not None:
            x = self._normed(h) + x if total.of_h else self._normed(h + x)
        if (part := self.insertion.site.part) is None:
            return self.insertion(h, x)
        pieces = split(part, h)
        pieces[part.index] = self.insertion(pieces[part.index], x)
        return join(part, pieces)

    def _normed(self, z: Tensor) -> Tensor:
        # Its forward alone: what hooks do at the norm is done once, when the block gets there.
        return z if self.norm is None else self.norm.forward(z)

    def on_output(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> Any:
        x = args[0] if self.own and args else self.read(args, kwargs)
        if type(output) is type(x) is Tensor and x.ndim == output.ndim == 3:
            if (direct := self.insertion.direct) is not None:
                return direct(output, x)
        elif isinstance(output, tuple):
            return (self.changed(output[0], x), *output[1:])
        return self.changed(output, x)

    def read(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """The x of this call, once its module has yielded h."""
        return _first(args, kwargs) if self.own else self._taken()

    def on_input(
        self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> tuple[tuple[Any, ...], dict[str, Any]]:
        h = args[0]
        if self.own and h.ndim == 3 and (direct := self.insertion.direct) is not None:
            return (direct(h, h), *args[1:]), kwargs
        return (self.changed(h, h if self.own else self._taken()), *args[1:]), kwargs

    def on_stream(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """In place, because the residual connection around `module` holds the same tensor."""
        stream = _first(args, kwargs)
        stream.copy_(self.changed(stream.clone(), self._taken()))


class Gathered:
    """The hooks of several adaptations on one module, each for a block of rows: h is cut once and joined once, however many
    they are."""

    def __init__(self) -> None:
        self.hooks: list[Hook] = []

    def on_output(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> Any:
        if isinstance(output, tuple):
            return (self._changed(output[0], args, kwargs), *output[1:])
        return self._changed(output, args, kwargs)

    def _changed(self, h: Tensor, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Tensor:
        pieces: list[Tensor] | None = None
        for hook in self.hooks:
            own, x = hook.insertion.context.own, hook.read(args, kwargs)
            if not isinstance(own, OwnBlock) or h.dim() == 2 or h.shape[0] != own.cut.total:
                h, pieces = hook.changed(h if pieces is None else torch.cat(pieces), x), None
                continue
            pieces = pieces or list(own.cut.pieces(h))
            x = own.pick(x) if isinstance(x, Tensor) else x
            pieces[own.number] = hook.joined(pieces[own.number], x).to(h.dtype)
        return h if pieces is None else torch.cat(pieces)


class HeadsReader:
    """A pre-hook that keeps the x of the insertions at `attn.heads` until the attention function runs."""

    def __init__(self, site: HeadsSite, path: str):
        self.site, self.path = site, path

    def __call__(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        self.site.x[self.path] = _first(args, kwargs)


class Entry:
    """A pre-hook on the module that takes the attention mask of some stacks: it announces a pass and its arguments."""

    def __init__(self, begin: Callable[[list[str], dict[str, Any]], None], stacks: list[str]):
        self.begin, self.stacks = begin, stacks

    def __call__(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        self.begin(self.stacks, named(module, args, kwargs))


def _first(args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """The first argument of a module's call, or `hidden_states` where all are passed by name."""
    return args[0] if args else kwargs.get("hidden_states", next(iter(kwargs.values()), None))
