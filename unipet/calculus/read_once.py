"""What several insertions of a layer begin with, computed once: the product of one x with one weight.

Queries and values are maps of one x. Where insertions beside them begin with the same frozen matrix (VeRA's A), its product with
x is the same, forward and backward.

Shapes: B batch, T positions, U width of x, R width of the product.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from weakref import ref

import torch
from torch import Tensor
from torch.nn import functional as F

from unipet.calculus.functions.beginnings import BeginsLinearly
from unipet.calculus.functions.product import Delta

if TYPE_CHECKING:
    from unipet.calculus.insertion import Insertion

#: Roles of one layer that are called with one x.
SAME_X = ({"attn.q", "attn.k", "attn.v"}, {"cross.k", "cross.v"}, {"ffn.gate", "ffn.up"})


class ReadOnce:
    """The insertions of one layer that may begin with one product; the first that is called with an x computes it.

    As long as the product is needed for the backward pass, it is there for the others, and is not kept alive here. Where no
    gradients are recorded, it is kept until as many have read it as there are, or x is gone.
    """

    def __init__(self) -> None:
        self.members = 0
        self._x: ref[Tensor] | None = None
        self._z: ref[Tensor] | None = None
        self._of: Any = None
        self._held: Tensor | None = None
        self._readers: tuple[Insertion, ...] = ()  # of z; who asks again asks for another pass

    def delta(self, insertion: Insertion, x: Tensor) -> Delta | None:
        """f(x) of a member; None where this call does not begin with the product."""
        function, params = insertion.taken({})
        assert isinstance(function, BeginsLinearly)
        first, u = function.first(params, insertion.training), insertion.cast(x)
        if first is None or u is None:
            return None
        with insertion.draws:
            z_BTR = self.product(insertion, u, *first, torch.is_grad_enabled())
            return function.rest(z_BTR, params, insertion.training)

    def product(
        self, reader: Insertion, u_BTU: Tensor, weight_RU: Tensor, bias_R: Tensor | None, recorded: bool
    ) -> Tensor:
        """z (B, T, R), computed if it is not known to this `reader`; `recorded`: with gradients."""
        try:
            versions = (weight_RU._version, u_BTU._version)
        except RuntimeError:  # made in inference mode
            versions = (-1, -1)
        of = (weight_RU.data_ptr(), weight_RU.shape, weight_RU.stride(), versions, recorded)
        known = self._z() if self._z is not None and self._x is not None and self._x() is u_BTU else None
        if known is not None and self._of == of and reader not in self._readers:
            self._readers = (*self._readers, reader)
            if len(self._readers) == self.members:
                self._held = None
            return known
        z_BTR = F.linear(u_BTU, weight_RU, bias_R)
        self._x, self._z, self._of = ref(u_BTU, self._forget), ref(z_BTR), of
        self._held, self._readers = None if recorded else z_BTR, (reader,)
        return z_BTR

    def __getstate__(self) -> dict[str, Any]:
        return {**vars(ReadOnce()), "members": self.members}  # a copy knows nothing yet

    def _forget(self, x: ref[Tensor]) -> None:
        self._held = None


def group_of(insertion: Insertion) -> tuple[str, int] | None:
    """What insertions that begin with one product have in common: their module's parent, and the kind of x. None for others."""
    parts, site = insertion.parts, insertion.site
    alike = parts.mixture is None and parts.scaling.dynamic is None
    if not alike or not isinstance(parts.function, BeginsLinearly) or not parts.function.first_is_shared:
        return None
    kind = next((number for number, roles in enumerate(SAME_X) if site.role in roles), None)
    return None if kind is None else (f"{insertion.name}/{site.path.rpartition('.')[0]}", kind)
