"""A linear module that computes with one weight, its own with an insertion's matrix joined to it: x (W + sA)ᵀ.

Where f is a whole matrix A, h + s·f(x) takes two products of the tokens forward and three backward. One weight takes
one and two, which is one more than the frozen module alone. The weight is not kept: the backward pass makes it again.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from unipet.adaptation.site_hooks import Hook
from unipet.calculus.weights import quantised


class JoinedWeight:
    """The forward pass of one linear module, with an insertion in it."""

    def __init__(self, module: nn.Linear, hook: Hook) -> None:
        self.module, self.hook = module, hook

    def put_in(self) -> None:
        """Let the module compute with it."""
        self.module.forward = self.forward  # type: ignore[method-assign, assignment]

    def remove(self) -> None:
        """Give the module its own forward pass back."""
        if "forward" in vars(self.module):
            del self.module.forward

    def forward(self, x: Tensor) -> Tensor:
        """h', with x (..., in)."""
        weight, bias = self.module.weight, self.module.bias
        if (direct := self.hook.insertion.direct) is not None and x.ndim == 3:
            if not direct.may_join:
                return direct(F.linear(x, weight, bias), x)
            if not torch.is_grad_enabled():
                joined = direct.joined(weight, x)
                return direct(F.linear(x, weight, bias), x) if joined is None else F.linear(x, joined, bias)
        made = self.hook.insertion.joined_weight(weight, x)
        if made is None:
            return self.hook.changed(F.linear(x, weight, bias), x)
        if not torch.is_grad_enabled() or torch.compiler.is_compiling():  # a compiled graph decides what it keeps
            return F.linear(x, made(), bias)
        changed: Tensor = checkpoint(
            lambda x: F.linear(x, made(), bias), x, use_reentrant=False, preserve_rng_state=False
        )
        return changed


def can_join(module: nn.Module) -> bool:
    """Whether nothing but torch's own linear map of a whole weight happens in this module."""
    return type(module) is nn.Linear and "forward" not in vars(module) and quantised(module.weight) is None
