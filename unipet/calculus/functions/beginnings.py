"""Functions that begin with a linear map of u: a gate that reads u, too, can do so in the same product.

Shapes: U width of u, R and S widths of what two maps make of it.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import ClassVar

import torch
from torch import Tensor
from torch.nn import functional as F

from unipet.calculus.functions.base import Function, Params
from unipet.calculus.functions.product import Delta

#: The weight (R, U) of a linear map, and its bias (R,) if it has one.
Linear = tuple[Tensor, Tensor | None]


_SAY_WHAT_DELTA_IS = {"delta", "product", "unjoined", "rest"}


class BeginsLinearly(ABC):
    """A function in two steps: Δ = rest(first(u)). A subclass that says what Δ is in another way is in one."""

    in_two_steps: ClassVar[bool] = True

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        if said := _SAY_WHAT_DELTA_IS & vars(cls).keys():
            cls.in_two_steps = "rest" in said

    @abstractmethod
    def first(self, params: Params, training: bool) -> Linear | None:
        """The linear map that is all that Δ knows of u; None where more happens to u in this call."""

    @abstractmethod
    def rest(self, z: Tensor, params: Params, training: bool) -> Delta:
        """Δ from what `first` makes of u, as `unjoined`."""


def beginning(function: Function, params: Params, training: bool) -> tuple[BeginsLinearly, Linear] | None:
    """The function with its first linear map, or None where it has none in this call."""
    if not isinstance(function, BeginsLinearly) or not function.in_two_steps:
        return None
    first = function.first(params, training)
    return None if first is None else (function, first)


def both(u: Tensor, first: Linear, second: Linear) -> tuple[Tensor, Tensor]:
    """What two linear maps make of u, (..., R) and (..., S), in one product: u is read once, and has one gradient."""
    (W_RU, b_R), (W_SU, b_S) = first, second
    together = torch.cat([b_R, b_S]) if b_R is not None and b_S is not None else None
    z = F.linear(u, torch.cat([W_RU, W_SU]), together)
    z_R, z_S = torch.split(z, [len(W_RU), len(W_SU)], -1)
    if together is not None:
        return z_R, z_S
    return z_R if b_R is None else z_R + b_R, z_S if b_S is None else z_S + b_S
