"""Models in wrappers that put a prefix before every name (`torch.compile`: `_orig_mod.`, data parallelism: `module.`).

Every public function works on the model inside, so that names are what they were without the wrapper.
"""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Concatenate, ParamSpec, TypeVar

import torch
from torch import nn

from unipet.errors import UnipetError

P = ParamSpec("P")
R = TypeVar("R")

_SYNCHRONISED = "DistributedDataParallel"
#: torch's wrapper classes, by name, so that none is imported for it -> the attribute that holds the model.
_WRAPPERS = {
    "OptimizedModule": "_orig_mod",
    "DataParallel": "module",
    _SYNCHRONISED: "module",
    "AveragedModel": "module",
}
#: The wrapper that no model can be taken out of.
_SHARDED = "FullyShardedDataParallel"


def bare(model: nn.Module) -> nn.Module:
    """The model itself, out of all wrappers around it. Raises UnipetError where its parameters are in pieces."""
    while (attribute := _attribute(model)) is not None:
        model = getattr(model, attribute)
    return model


def _attribute(model: nn.Module) -> str | None:
    names = _classes(model)
    if _SHARDED in names:
        raise UnipetError(
            f"{_SHARDED} keeps the parameters in flat pieces, which have no names. Work on the model before it is wrapped."
        )
    return next((_WRAPPERS[name] for name in names if name in _WRAPPERS), None)


def _classes(model: nn.Module) -> list[str]:
    return [cls.__name__ for cls in type(model).__mro__ if cls.__module__.startswith("torch.")]


@contextmanager
def unwrapped(model: nn.Module) -> Iterator[nn.Module]:
    """The bare model, and inside the block every module of it bare as well: wrappers deep inside come back afterwards."""
    inside = bare(model)
    wrapped = [
        (owner, name, child)
        for owner in inside.modules()
        for name, child in owner._modules.items()
        if child is not None and _attribute(owner) is None and _attribute(child) is not None
    ]
    try:
        for owner, name, child in wrapped:
            owner._modules[name] = bare(child)
        yield inside
    finally:
        for owner, name, child in wrapped:
            owner._modules[name] = child


def unwraps(function: Callable[Concatenate[nn.Module, P], R]) -> Callable[Concatenate[nn.Module, P], R]:
    """A public function whose first argument, `model`, may come in wrappers."""

    @functools.wraps(function)
    def at_the_door(model: nn.Module, *args: P.args, **kwargs: P.kwargs) -> R:
        with unwrapped(model) as inside:
            return function(inside, *args, **kwargs)

    return at_the_door


def unwraps_to_adapt(function: Callable[Concatenate[nn.Module, P], R]) -> Callable[Concatenate[nn.Module, P], R]:
    """As `unwraps`, for a function that inserts: it raises UnipetError where a wrapper has noted what trains."""

    unwrapping = unwraps(function)

    @functools.wraps(function)
    def at_the_door(model: nn.Module, *args: P.args, **kwargs: P.kwargs) -> R:
        around = model
        while (attribute := _attribute(around)) is not None:
            if _SYNCHRONISED in _classes(around):
                raise UnipetError(
                    f"{_SYNCHRONISED} synchronises the gradients of the parameters that trained when it was made. Adapt the "
                    "model first, then wrap it."
                )
            around = getattr(around, attribute)
        return unwrapping(model, *args, **kwargs)

    return at_the_door


def forget_compiled() -> None:
    """Let `torch.compile` look at every model again: what it compiled before does not see hooks that come or go."""
    if "torch._dynamo" in sys.modules:
        torch.compiler.reset()
