"""Gradient checkpointing runs layers again in the backward pass: each in the forward pass that it first ran in.

By then other forward passes may have begun, and the stack whose hook begins a pass does not run again.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from unipet.calculus.forward_context import CurrentPass

#: Where transformers keeps the function that a module checkpoints its layers with.
ATTRIBUTE = "_gradient_checkpointing_func"


class InItsPass:
    """The checkpoint function of a module, told which forward pass a layer runs in."""

    def __init__(self, function: Callable[..., Any], current: CurrentPass) -> None:
        self.function, self.current = function, current

    def __call__(self, layer: Callable[..., Any], *args: Any) -> Any:
        if torch.compiler.is_compiling():  # a compiled graph holds the values of the pass that it was traced in
            return self.function(layer, *args)
        context = self.current.context

        def in_its_pass(*args: Any) -> Any:
            with self.current.again(context):
                return layer(*args)

        return self.function(in_its_pass, *args)


class Recomputation:
    """The modules of a model that may checkpoint their layers, each with its own checkpoint function."""

    def __init__(self, model: nn.Module, current: CurrentPass) -> None:
        self.current = current
        self.modules = [module for module in model.modules() if hasattr(module, "gradient_checkpointing")]

    def keep_passes_apart(self) -> None:
        """Let every layer that is run again run in its own pass. Called before each pass: checkpointing may begin, or begin
        anew, at any time."""
        for module in self.modules:
            function = getattr(module, ATTRIBUTE, None)
            if function is not None and not self._knows(function):
                setattr(module, ATTRIBUTE, InItsPass(function, self.current))

    def _knows(self, function: Any) -> bool:
        """Whether a layer is told the pass already; several adaptations of one model each tell it theirs."""
        while isinstance(function, InItsPass):
            if function.current is self.current:
                return True
            function = function.function
        return False

    def forget(self) -> None:
        """Give every module its own checkpoint function back."""
        for module in self.modules:
            function = getattr(module, ATTRIBUTE, None)
            if isinstance(function, InItsPass) and function.current is self.current:  # the last that came leaves first
                setattr(module, ATTRIBUTE, function.function)
