"""A linear module that computes with one weight, its own with an insertion's matrix joined to it: x (W + sA)ᵀ.

Where f is a whole matrix A, h + s·f(x) takes two products of the tokens forward and three backward. One weight takes
one and two, which is one more than the frozen module alone. The weight is not kept: the backward pass makes it again.
Where s·f(x) is cheaper by itself, it is added in the memory of h, which nobody else has seen.

Shapes: N tokens, U width of x, D width of h.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks
from torch.nn import functional as F

from unipet.adaptation.site_hooks import Hook
from unipet.calculus.read_once import ReadOnce
from unipet.calculus.weights import quantised


class JoinedWeight:
    """The forward pass of one linear module, with an insertion in it."""

    def __init__(self, module: nn.Linear, hook: Hook) -> None:
        self.module, self.hook = module, hook
        self.read: ReadOnce | None = None  # shared with others of the layer

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
                return direct(F.linear(x, weight, bias), x, True, self.read)
            if not torch.is_grad_enabled():
                joined = direct.joined(weight, x)
                if joined is not None:
                    return F.linear(x, joined, bias)
                return direct(F.linear(x, weight, bias), x, True, self.read)
        insertion = self.hook.insertion
        made = insertion.joined_weight(weight, x) if insertion.joins_weight else None
        if made is None:
            return self._added(x)
        if not torch.is_grad_enabled() or torch.compiler.is_compiling():  # a compiled graph decides what it keeps
            return F.linear(x, made(), bias)
        if not insertion.joins_linearly:
            again = _Again(made)
            made, W_DU = again.weight, again.begin()
        else:
            W_DU = made()
        own: Tensor = _Remade.apply(x, W_DU, bias, made)
        return own

    def _added(self, x: Tensor) -> Tensor:
        """h' where f(x) is computed apart: it is added in the memory of h, which nobody else has yet, instead of to a copy."""
        weight, bias = self.module.weight, self.module.bias
        insertion = self.hook.insertion
        if x.ndim != 3 or torch.compiler.is_compiling() or not insertion.in_place:
            return self.hook.changed(F.linear(x, weight, bias), x)
        h_ND = F.linear(x.flatten(0, 1), weight, bias)  # first: the backward pass then frees what is narrow first
        found = insertion.addend(x, self.read if self.read is not None and self.read.members > 1 else None)
        return insertion.parts.composition.join_into(h_ND, *found).view(*x.shape[:-1], -1)


class _Remade(torch.autograd.Function):
    """x Wᵀ + b which keeps x alone; `made` makes W again for the gradient of x. How W was made keeps nothing as large where W is
    linear in what trains, and see `_Again`."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, W_DU: Tensor, bias: Tensor | None, made: Callable[[], Tensor]) -> Tensor:
        ctx.save_for_backward(x if ctx.needs_input_grad[1] else None)
        ctx.made = made
        return F.linear(x, W_DU, bias)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        (x,) = ctx.saved_tensors
        grad_ND = grad.reshape(-1, grad.shape[-1])
        grad_x = grad @ ctx.made() if ctx.needs_input_grad[0] else None
        grad_W = grad_ND.T @ x.reshape(-1, x.shape[-1]) if ctx.needs_input_grad[1] else None
        return grad_x, grad_W, grad_ND.sum(0) if ctx.needs_input_grad[2] else None, None


class _Again:
    """A weight whose graph keeps no tensors: when the backward pass asks for the first of them, all are made again, once.

    As torch's `checkpoint`, which does that for anything; at matrices of a few hundred rows, this takes as long as they do.
    """

    def __init__(self, made: Callable[[], Tensor]) -> None:
        self._made = made
        self._count = 0  # of the tensors that its graph would keep
        self._kept: dict[int, Tensor] = {}  # those that are made again and still to be asked for

    def begin(self) -> Tensor:
        """The weight, with its graph."""
        with saved_tensors_hooks(self._pack, self._unpack):
            return self._made()

    def weight(self) -> Tensor:
        """The weight in the backward pass; of second derivatives, with a graph."""
        return self._made() if torch.is_grad_enabled() else self._make()

    def _make(self) -> Tensor:
        kept: list[Tensor] = []
        with torch.enable_grad(), saved_tensors_hooks(lambda tensor: kept.append(tensor.detach()), _never):
            W_DU = self._made()
        assert len(kept) == self._count
        self._kept = dict(enumerate(kept))
        return W_DU.detach()

    def _pack(self, tensor: Tensor) -> int:
        self._count += 1
        return self._count - 1

    def _unpack(self, number: int) -> Tensor:
        if number not in self._kept:
            self._make()
        return self._kept.pop(number)


def _never(packed: None) -> Tensor:
    raise AssertionError("nobody asks for it")


def can_join(module: nn.Module) -> bool:
    """Whether nothing but torch's own linear map of a whole weight happens in this module."""
    return type(module) is nn.Linear and "forward" not in vars(module) and quantised(module.weight) is None
