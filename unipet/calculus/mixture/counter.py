"""Random numbers as a function of a place: no stream, no state, the same on every device and in every order.

The number at a place (step, view, site, row, token) is a hash of its coordinates, so neither micro-batches nor recomputation
change it, and dropout's stream is left alone (counter-based generators: Salmon et al. 2011). The hash is SplitMix64's
finaliser (Steele, Lea and Flood 2014) after each coordinate, in 64-bit arithmetic that wraps.
"""

from __future__ import annotations

import hashlib

import torch
from torch import Tensor

_STEP, _FIRST, _SECOND = 0x9E3779B97F4A7C15, 0xBF58476D1CE4E5B9, 0x94D049BB133111EB
_ALL = 2**64 - 1


def place(*coordinates: int | str) -> int:
    """The number, of 64 bits, at these coordinates. A text counts as a hash of itself."""
    bits = 0
    for each in coordinates:
        number = each if isinstance(each, int) else int.from_bytes(hashlib.sha256(each.encode()).digest()[:8])
        bits = (bits + _STEP + number) & _ALL
        bits = ((bits ^ bits >> 30) * _FIRST) & _ALL
        bits = ((bits ^ bits >> 27) * _SECOND) & _ALL
        bits ^= bits >> 31
    return bits


def places(bits: Tensor, coordinate: Tensor | int) -> Tensor:
    """The same one coordinate further, for every element of int64 tensors that broadcast."""
    z = bits + _signed(_STEP) + (coordinate if isinstance(coordinate, Tensor) else _signed(coordinate))
    z = (z ^ _shifted(z, 30)) * _signed(_FIRST)
    z = (z ^ _shifted(z, 27)) * _signed(_SECOND)
    return z ^ _shifted(z, 31)


def choice(bits: int, count: int) -> int:
    """One of 0 ... count-1."""
    return (bits >> 33) % count


def choices(bits: Tensor, count: int) -> Tensor:
    """The same for every element."""
    return _shifted(bits, 33) % count


def normal(bits: Tensor) -> Tensor:
    """Numbers of the standard normal distribution, float32."""
    uniform = (_shifted(bits, 40).double() + 0.5) / 2**24
    return (torch.erfinv(2 * uniform - 1) * 2**0.5).float()


def _signed(bits: int) -> int:
    """The same 64 bits as a number that int64 holds."""
    return bits if bits < 2**63 else bits - 2**64


def _shifted(z: Tensor, by: int) -> Tensor:
    """A shift that fills with zeros."""
    return (z >> by) & (2 ** (64 - by) - 1)
