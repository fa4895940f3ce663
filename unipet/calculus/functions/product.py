"""Δ as the matrix product that its function ends in, not yet computed: whoever adds it to h does both in one operator.

Shapes: D width of h, R width of what is multiplied last.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import final

import torch
from torch import Tensor
from torch.nn import functional as F


@final
@dataclass(frozen=True)
class Product:
    """Δ = s (z Wᵀ + b), with z (..., R), W (D, R), a number s, and b (D,) or None."""

    z: Tensor
    W_DR: Tensor
    factor: float = 1.0
    b_D: Tensor | None = None

    def value(self) -> Tensor:
        """Δ, (..., D)."""
        if self.b_D is None or self.factor == 1:
            return F.linear(self.z, times(self.factor, self.W_DR), self.b_D)
        delta_ND = torch.addmm(self.b_D, self.z.flatten(0, -2), self.W_DR.T, beta=self.factor, alpha=self.factor)
        return delta_ND.view(*self.z.shape[:-1], -1)

    def joins(self, h: Tensor) -> bool:
        """Whether h + Δ is one product: they have the same rows and precision, and no b is left to add."""
        return self.z.shape[:-1] == h.shape[:-1] and self.as_precise_as(h)

    def as_precise_as(self, h: Tensor) -> bool:
        """Whether Δ is computed in the dtype of h, with no b left to add."""
        device = h.device.type
        computed = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else self.W_DR.dtype
        return self.b_D is None and h.dtype == self.z.dtype == computed

    def times_each(self, factor: Tensor) -> Product:
        """Δ times a number for each example or token, (..., 1). What is multiplied is narrow: b becomes one more column of W,
        and z has a column of ones."""
        if self.b_D is None:
            return replace(self, z=factor * self.z)
        z = torch.cat([self.z, self.z.new_ones(*self.z.shape[:-1], 1)], -1)
        return Product(factor * z, torch.cat([self.W_DR, self.b_D.unsqueeze(1)], 1), self.factor)

    def added(self, h: Tensor) -> Tensor:
        """h + s z Wᵀ."""
        # Of z and W, autograd keeps what the gradient of the other needs, and a scaled copy of neither.
        z_NR, W_DR = self.z.flatten(0, -2), self.W_DR.to(h.dtype)
        return torch.addmm(h.flatten(0, -2), z_NR, W_DR.T, alpha=self.factor).view(h.shape)


def times(factor: Tensor | float, tensor: Tensor) -> Tensor:
    """The product of the two; a factor of one costs nothing."""
    return tensor if not isinstance(factor, Tensor) and factor == 1 else factor * tensor


def column(factor: Tensor | float) -> Tensor | float:
    """s as it multiplies a matrix (D, ...): one number for each channel of h is one for each row."""
    return factor.unsqueeze(-1) if isinstance(factor, Tensor) and factor.numel() > 1 else factor


#: Δ, or the product that it is.
Delta = Tensor | Product


def value(delta: Delta) -> Tensor:
    """Δ itself."""
    return delta.value() if type(delta) is Product else delta


def value_in(dtype: torch.dtype, delta: Delta) -> Tensor:
    """Δ itself, in this dtype."""
    found = delta.value() if type(delta) is Product else delta
    return found if found.dtype == dtype else found.to(dtype)


def stacked(deltas: Sequence[Delta]) -> Product | None:
    """The Δ of stacked views as one product, where all of them end in the same matrix: only what is narrow is copied."""
    products = [delta for delta in deltas if type(delta) is Product]
    first = products[0] if len(products) == len(deltas) else None
    if first is None or not all(_alike(first, one) for one in products):
        return None
    return replace(first, z=torch.cat([one.z for one in products]))


def _alike(one: Product, other: Product) -> bool:
    return one.W_DR is other.W_DR and one.b_D is other.b_D and one.factor == other.factor


def scaled(delta: Delta, factor: Tensor | float) -> Delta:
    """s · Δ."""
    if not isinstance(factor, Tensor):
        if type(delta) is Product:
            return Product(delta.z, delta.W_DR, factor * delta.factor, delta.b_D)
        return times(factor, delta)
    if type(delta) is Product and factor.dim() == 1:  # one number, or one for each channel of h
        b_D = None if delta.b_D is None else factor * delta.b_D
        return Product(delta.z, factor.unsqueeze(-1) * delta.W_DR, delta.factor, b_D)
    if type(delta) is Product and factor.shape[-1] == 1:  # one number for each example, or each token
        return delta.times_each(factor)
    return factor * value(delta)


def added(h: Tensor, delta: Delta) -> Tensor:
    """h + Δ, in the dtype of h."""
    if type(delta) is Product and delta.joins(h):
        return delta.added(h)
    return h + value_in(h.dtype, delta)


def into(h: Tensor, delta: Delta, factor: float = 1.0) -> Tensor:
    """h + s·Δ in the memory of h, with as many rows: nobody else may have h, nor may h be a view while gradients are recorded."""
    h_ND = h if h.dim() == 2 else h.view(-1, h.shape[-1])
    if type(delta) is Product and delta.as_precise_as(h):
        W_DR = delta.W_DR if delta.W_DR.dtype == h.dtype else delta.W_DR.to(h.dtype)
        h_ND.addmm_(delta.z.flatten(0, -2), W_DR.T, alpha=factor * delta.factor)
    else:
        h_ND.add_(value_in(h.dtype, delta).flatten(0, -2), alpha=factor)
    return h
