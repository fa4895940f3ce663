"""h' = compose(h, s · f(u)) where all but h and x is the same at every call: in evaluation, without a mixture or a gate.

`Insertion.forward` looks up at each call which tensors are in use, what s is, which tokens are meant. While text is generated
token by token, these look-ups are most of what an insertion costs beside the base model. Here they are made once.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from unipet.calculus.bank import Bank
from unipet.calculus.composition.base import Composition
from unipet.calculus.functions.base import Function, LinearMap
from unipet.calculus.functions.product import scaled

if TYPE_CHECKING:
    from unipet.calculus.insertion import Insertion

#: A tensor's key in the params of its function, and where it lives: the tensors of a module by name, and its own name.
_Place = tuple[str, Mapping[str, Tensor | None], str]


class Direct:
    """One insertion's call. It holds no tensors, only where they live: what a place holds when it is called counts."""

    def __init__(self, insertion: Insertion, factor: float) -> None:
        parts = insertion.parts
        self.function: Function = parts.evaluated
        self.composition: Composition = parts.composition
        self.factor = factor
        self.reads_nothing, self.reads_h = self.function.reads == "nothing", parts.form == "sequential"
        self.places = _places(insertion.bank)
        self.may_join = insertion.joins_weight and _may_be_cheaper(self.function, self.composition)

    def __call__(self, h: Tensor, x: Tensor | None) -> Tensor:
        """h' from h (B, T, D) and x (B, T, U)."""
        params = {key: tensors[name] for key, tensors, name in self.places}
        u = None if self.reads_nothing else h if self.reads_h else x
        if u is not None:
            like = params[self.places[0][0]]
            assert like is not None
            if u.dtype != like.dtype and u.is_floating_point() and not torch.is_autocast_enabled(u.device.type):
                u = u.to(like.dtype)
        delta = self.function.unjoined(u, params, False)  # type: ignore[arg-type]
        return self.composition.join(h, scaled(delta, self.factor), {}, None)


def direct(insertion: Insertion) -> Direct | None:
    """The direct call of an insertion, or None where something depends on the call."""
    parts, site, function = insertion.parts, insertion.site, insertion.parts.evaluated
    by_call = (
        parts.mixture is not None
        or parts.scaling.dynamic is not None
        or parts.tokens is not None
        or parts.composition.needs_weight
        or parts.composition.lengthens
        or function.reads not in ("u", "nothing")
        or type(function).generate is not Function.generate
        or function.needs_projections
        or function.needs_weight
        or function.needs_bias
        or insertion.shared is not None
        or bool(insertion.joint.slot_of or insertion.joint.frozen_names)
        or bool(insertion.scale.slot_of)  # a learned s changes in training
        or not insertion.bank.slot_of
        or site.at not in ("output", "input")
        or site.part is not None
        or site.total is not None
    )
    if by_call:
        return None
    factor = insertion.factor(None, None)
    return None if isinstance(factor, Tensor) else Direct(insertion, factor)


def _places(bank: Bank) -> list[_Place]:
    """Where the tensors of an unmixed bank live."""
    trained = [(key, bank.names[key, None], True) for key in bank.slot_of]
    frozen = [(key, name, False) for (key, _), name in bank.frozen_names.items()]
    found: list[_Place] = []
    for key, name, is_parameter in (*trained, *frozen):
        *path, last = name.split(".")
        home: nn.Module = bank.home
        for word in path:
            below = home._modules[word]
            assert below is not None
            home = below
        found.append((key, home._parameters if is_parameter else home._buffers, last))
    return found


def _may_be_cheaper(function: Function, composition: Composition) -> bool:
    """Whether there may be a number of tokens for which f's matrix is joined to the weight."""
    if composition.of_weight or not isinstance(function, LinearMap):
        return True
    own = type(function)
    never = own.cheaper_as_matrix is LinearMap.cheaper_as_matrix and own.product is not LinearMap.product
    return not never
