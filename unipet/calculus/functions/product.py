"""Δ as the matrix product that its function ends in, not yet computed: whoever adds it to h does both in one operator.

Shapes: D width of h, R width of what is multiplied last.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

#: Products with a matrix of fewer rows than this are slow in the backward pass on CPUs where it is stored by columns.
_NARROW = 16


@dataclass(frozen=True)
class Product:
    """Δ = z Wᵀ, with z (..., R) and W (D, R). A factor of Δ is multiplied into W, which is much smaller than Δ."""

    z: Tensor
    W_DR: Tensor

    def value(self) -> Tensor:
        """Δ, (..., D)."""
        return F.linear(self.z, self.W_DR)

    def joins(self, h: Tensor) -> bool:
        """Whether h + Δ is one product: they have the same rows and precision."""
        device = h.device.type
        computed = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else self.W_DR.dtype
        return self.z.shape[:-1] == h.shape[:-1] and h.dtype == self.z.dtype == computed

    def added(self, h: Tensor) -> Tensor:
        """h + z Wᵀ."""
        W_RD = self.W_DR.T
        if len(W_RD) < _NARROW:
            W_RD = W_RD.contiguous()
        return torch.addmm(h.flatten(0, -2), self.z.flatten(0, -2), W_RD).view(h.shape)


#: Δ, or the product that it is.
Delta = Tensor | Product


def value(delta: Delta) -> Tensor:
    """Δ itself."""
    return delta.value() if isinstance(delta, Product) else delta


def scaled(delta: Delta, factor: Tensor | float) -> Delta:
    """s · Δ."""
    if not isinstance(factor, Tensor):
        if factor == 1:
            return delta
        return Product(delta.z, factor * delta.W_DR) if isinstance(delta, Product) else factor * delta
    if isinstance(delta, Product) and factor.dim() == 1:  # one number, or one for each channel of h
        return Product(delta.z, factor.unsqueeze(-1) * delta.W_DR)
    return factor * value(delta)


def added(h: Tensor, delta: Delta) -> Tensor:
    """h + Δ, in the dtype of h."""
    if isinstance(delta, Product) and delta.joins(h):
        return delta.added(h)
    return h + value(delta).to(h.dtype)
