"""h' = compose(h, s · f(u)) where all but h and x is the same at every call: in evaluation, without a mixture or a gate.

`Insertion.forward` looks up at each call which tensors are in use, what s is, which tokens are meant. While text is generated
token by token, these look-ups are most of what an insertion costs beside the base model. Here they are made once, and what
is made of tensors alone is kept while a KV cache is filled.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from unipet.calculus.composition.base import Composition
from unipet.calculus.composition.elementwise import Add
from unipet.calculus.functions.base import Function, LinearMap, Params
from unipet.calculus.functions.beginnings import BeginsLinearly
from unipet.calculus.functions.product import Delta, into, scaled
from unipet.calculus.places import places, read

if TYPE_CHECKING:
    from unipet.calculus.insertion import Insertion
    from unipet.calculus.read_once import ReadOnce

_NOTHING: Params = {}


class Direct:
    """One insertion's call. It holds no tensors, only where they live: what a place holds when it is called counts."""

    def __init__(self, insertion: Insertion, factor: float) -> None:
        parts = insertion.parts
        self.insertion = insertion
        self.function: Function = parts.evaluated
        self.composition: Composition = parts.composition
        self.factor = factor
        self.reads_nothing, self.reads_h = self.function.reads == "nothing", parts.form == "sequential"
        self.own, self.joint = places(insertion.bank), places(insertion.joint)
        self.shared = places(insertion.shared)
        self.every = (*self.own, *self.shared, *self.joint)
        self.generates = type(self.function).generate is not Function.generate
        self.delta = _delta(self.function)
        self.adds = type(self.composition) is Add
        self.of_base = self.composition.needs_weight
        self.of_bias = self.composition.makes_of_bias
        self.base = {} if insertion.base is None else insertion.base.module._parameters
        self.always_joins = _is_cheaper(self.function)
        self.may_join = insertion.joins_weight and (self.always_joins or _may_be_cheaper(self.function))

    def __call__(self, h: Tensor, x: Tensor | None, own_memory: bool = False, read: ReadOnce | None = None) -> Tensor:
        """h' from h (B, T, D) and x (B, T, U); in the memory of h if that is the caller's alone, who may say
        with which others of the layer f may `read` x once."""
        if self.generates:
            params = self._kept("params", self._generated)
        else:
            params = {key: tensors[name] for key, tensors, name in self.own}
        _, tensors, name = self.own[0]
        like = tensors[name]  # the dtypes of all its tensors are the same
        u = None if self.reads_nothing else h if self.reads_h else x
        if u is not None and u.dtype != like.dtype and u.is_floating_point():
            u = u if torch.is_autocast_enabled(u.device.type) else u.to(like.dtype)
        own_memory = own_memory and not torch.is_grad_enabled()
        if u is not None and read is not None and read.members > 1:
            delta = self._begun(u, params, read, not own_memory)
        else:
            delta = self.delta(u, params, False)
        if own_memory and self.adds:
            return into(h, delta, self.factor)
        if self.factor != 1:
            delta = scaled(delta, self.factor)
        if not self.of_base:
            own = _NOTHING
        elif not self.of_bias:
            own = self._kept("made", partial(self._made, params))
        elif (bias_D := self._bias()) is None:
            own = _NOTHING
        else:
            own = {"bias": bias_D if bias_D.dtype == like.dtype else bias_D.to(like.dtype)}
        if own_memory and self.composition.in_place:
            return self.composition.join_into(h, delta, own)
        return self.composition.join(h, delta, own, None)

    def _begun(self, u: Tensor, params: Params, read: ReadOnce, recorded: bool) -> Delta:
        """f(u), begun with the product that others of the layer begin with."""
        function: BeginsLinearly = self.function  # type: ignore[assignment]
        first = function.first(params, False)
        if first is None:
            return self.delta(u, params, False)
        return function.rest(read.product(self.insertion, u, *first, recorded), params, False)

    def joined(self, W_DU: Tensor, x: Tensor) -> Tensor | None:
        """The weight W with f's matrix joined to it; None where f(x) by itself is cheaper for this x, or this call needs it."""
        function: LinearMap = self.function  # type: ignore[assignment]
        if not (self.always_joins or function.cheaper_as_matrix(x.shape[:-1].numel(), self.insertion.widths, False)):
            return None
        _, tensors, name = self.own[0]
        if not (x.dtype == W_DU.dtype == tensors[name].dtype) or torch.is_autocast_enabled(x.device.type):
            return None
        # As large as the base model's weight, and so not kept.
        params = self._generated() if self.generates else read(self.own)
        return self.composition.weight(W_DU, function, params, self.factor)

    def _generated(self) -> Params:
        shared = read(self.shared) if self.shared else _NOTHING
        return self.function.generate(read(self.own), shared, self.insertion.widths)

    def _bias(self) -> Tensor | None:
        """The base model's at this site."""
        try:
            return self.base["bias"]
        except KeyError:  # none, or one that the module computes
            assert self.insertion.base is not None
            return self.insertion.base.bias()

    def _made(self, params: Params) -> Params:
        """What the composition makes of tensors alone."""
        return self.composition.made(read(self.joint), self.insertion.base_at(None, self.factor, params))

    def _kept(self, name: str, make: Callable[[], Params]) -> Params:
        insertion = self.insertion
        tensors = [tensors[name] for _, tensors, name in self.every]
        cached = insertion.current.context.cached.get(insertion.site.stack)
        base = insertion.base.tensors() if self.of_base and insertion.base is not None else ()
        return insertion.memory.get(name, cached, tensors, make, base)


def direct(insertion: Insertion) -> Direct | None:
    """The direct call of an insertion, or None where something depends on the call."""
    parts, site, function = insertion.parts, insertion.site, insertion.parts.evaluated
    by_call = (
        parts.mixture is not None
        or parts.scaling.dynamic is not None
        or parts.tokens is not None
        or (parts.composition.needs_weight and type(parts.composition).made is Composition.made)
        or parts.composition.lengthens
        or function.reads not in ("u", "nothing")
        or function.needs_projections
        or function.needs_weight
        or function.needs_bias
        or bool(insertion.joint.slot_of and not parts.composition.needs_weight)
        or bool(insertion.scale.slot_of)  # a learned s changes in training
        or not insertion.bank.slot_of
        or site.at not in ("output", "input")
        or site.part is not None
        or site.expert is not None
        or site.total is not None
    )
    if by_call:
        return None
    factor = insertion.factor(None, None)
    return None if isinstance(factor, Tensor) else Direct(insertion, factor)


def watched(insertion: nn.Module) -> bool:
    """Whether somebody's hooks wait for its calls."""
    before, after = insertion._forward_pre_hooks, insertion._forward_hooks
    return bool(before or after or insertion._backward_pre_hooks or insertion._backward_hooks)


def _delta(function: Function) -> Callable[[Any, Params, bool], Delta]:
    """What `unjoined` comes to."""
    own = type(function)
    if own.unjoined is Function.unjoined:
        return function.delta
    if isinstance(function, LinearMap) and own.unjoined is LinearMap.unjoined:
        return function.product if own.delta is LinearMap.delta else function.delta
    return function.unjoined


def _is_cheaper(function: Function) -> bool:
    """Whether f's matrix is joined to the weight for any number of tokens: f has no other way to be computed."""
    own = type(function)
    if not issubclass(own, LinearMap) or own.cheaper_as_matrix is not LinearMap.cheaper_as_matrix:
        return False
    return own.product is LinearMap.product and own.delta is LinearMap.delta


def _may_be_cheaper(function: Function) -> bool:
    """Whether the number of tokens decides."""
    own = type(function)
    return issubclass(own, LinearMap) and own.cheaper_as_matrix is not LinearMap.cheaper_as_matrix
