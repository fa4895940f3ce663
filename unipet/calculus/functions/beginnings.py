"""Functions that begin with a linear map of u: a gate that reads u, too, can do so in the same product.

Shapes: U width of u, R and S widths of what two maps make of it.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import ClassVar

import torch
from torch import Tensor
from torch.nn import functional as F

from unipet.calculus.functions.base import Params
from unipet.calculus.functions.product import Delta

#: The weight (R, U) of a linear map, and its bias (R,) if it has one.
Linear = tuple[Tensor, Tensor | None]
#: Any of them says what Δ is.
_SAY_WHAT_DELTA_IS = ("delta", "product", "unjoined")


class BeginsLinearly(ABC):
    """A function in two steps: Δ = rest(first(u)). It is in one where a class says in another way what Δ is, after the class
    whose `first` it has."""

    in_two_steps: ClassVar[bool] = True
    #: Whether sites of one width have the same `first`, so that those with one u need its product once.
    first_is_shared: ClassVar[bool] = False

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        home = next(each for each in cls.__mro__ if "first" in vars(each))
        cls.in_two_steps = all(getattr(cls, name, None) is getattr(home, name, None) for name in _SAY_WHAT_DELTA_IS)

    @abstractmethod
    def first(self, params: Params, training: bool) -> Linear | None:
        """The linear map that is all that Δ knows of u; None where more happens to u in this call."""

    @abstractmethod
    def rest(self, z: Tensor, params: Params, training: bool) -> Delta:
        """Δ from what `first` makes of u, as `unjoined`. z is a view, not to be changed in place."""


def both(u: Tensor, first: Linear, second: Linear) -> tuple[Tensor, Tensor]:
    """What two linear maps make of u, (..., R) and (..., S), in one product: u is read once, and has one gradient."""
    together = None
    if first[1] is not None or second[1] is not None:
        # Zeros for the one that has none: a bias that is added afterwards would leave half precision.
        rows = [weight.new_zeros(len(weight)) if bias is None else bias for weight, bias in (first, second)]
        together = torch.cat(rows)
    z = F.linear(u, torch.cat([first[0], second[0]]), together)
    z_R, z_S = torch.split(z, [len(first[0]), len(second[0])], -1)
    return z_R, z_S
