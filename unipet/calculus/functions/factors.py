"""Matrices that functions start from: factors of a base model's weight, and random ones made again from a seed.

Shapes: D out width, U in width, R size.
"""

from __future__ import annotations

import math

import torch
from torch import Generator, Tensor

from unipet.errors import UnipetError


def svd(weight_DU: Tensor, size: int, minor: bool = False) -> tuple[Tensor, Tensor, Tensor]:
    """The `size` largest singular triplets (u_DR, s_R, v_RU), or the smallest; computed in float64.

    Signs are fixed (the largest entry of each row of v is positive), so that the same weight gives the same factors on
    another machine. Raises UnipetError where the weight's rank cannot hold `size`.
    """
    _fits(weight_DU, size)
    u_DK, s_K, v_KU = torch.linalg.svd(weight_DU.double(), full_matrices=False)
    kept = slice(len(s_K) - size, None) if minor else slice(0, size)
    u_DR, s_R, v_RU = u_DK[:, kept], s_K[kept], v_KU[kept]
    sign_R1 = v_RU.gather(1, v_RU.abs().argmax(1, keepdim=True)).sign()
    return u_DR * sign_R1.T, s_R, v_RU * sign_R1


def qr(weight_DU: Tensor, size: int) -> tuple[Tensor, Tensor]:
    """The first `size` columns of Q and rows of R in W = QR, in float64, with R's diagonal positive.

    Raises UnipetError as `svd`.
    """
    _fits(weight_DU, size)
    q_DK, r_KU = torch.linalg.qr(weight_DU.double())
    sign_K = torch.where(r_KU.diagonal() < 0, -1.0, 1.0).to(q_DK)
    return (q_DK * sign_K[: q_DK.shape[1]])[:, :size], (r_KU * sign_K.unsqueeze(1))[:size]


def uniform(shape: tuple[int, ...], bound: float, generator: Generator) -> Tensor:
    """U(-bound, bound) from a seeded stream."""
    return (torch.rand(shape, generator=generator) * 2 - 1) * bound


def seeded_kaiming(shape: tuple[int, int], generator: Generator) -> Tensor:
    """What nn.Linear starts with, U(±1/√fan_in), from a seeded stream."""
    return uniform(shape, 1 / math.sqrt(shape[1]), generator)


def _fits(weight_DU: Tensor, size: int) -> None:
    if size > min(weight_DU.shape):
        raise UnipetError(
            f"function.size: {size} given; allowed: at most {min(weight_DU.shape)}, the smaller width of the weight "
            f"{tuple(weight_DU.shape)} that it starts from."
        )
