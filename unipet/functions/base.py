"""What a modification function is: pure maths over named slots of tensors.

A function owns no parameters. It declares its slots (shapes and what starts them), and computes Δ from the tensors it
is handed; a bank (`mixture.py`) holds the tensors, one copy per slot or one per expert.

Shapes: B batch, T positions, D width of h, U width of what the function reads, R size.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import ClassVar, Self

import torch
from torch import Tensor


@dataclass(frozen=True)
class Widths:
    """What a site tells a function: `u` width of its input, `h` width of what it changes, and the head geometry."""

    u: int
    h: int
    heads: int = 0
    kv_heads: int = 0
    head_dim: int = 0

    @property
    def kv(self) -> int:
        """Width of the keys and values of all heads together, d_kv."""
        return self.kv_heads * self.head_dim


@dataclass(frozen=True)
class TensorSpec:
    """One tensor of a slot: its shape, and which part it plays (`in`, `out`, `bias`, `table`) for the initialisers."""

    shape: tuple[int, ...]
    part: str

    @property
    def count(self) -> int:
        return torch.Size(self.shape).numel()


#: slot -> tensor name -> spec; a slot that is one bare tensor calls it "".
Slots = dict[str, dict[str, TensorSpec]]
#: "down" or "down.weight" -> tensor
Params = Mapping[str, Tensor]


@dataclass(frozen=True)
class Heads:
    """The inside of one attention call: q_BHTE, its logit factor, and how query heads map to key/value heads."""

    q_BHTE: Tensor
    factor: float
    kv_heads: int


@dataclass(frozen=True)
class Affine:
    """A function that is an affine map of its input: f(u) = u Aᵀ + c, with A_DU or c_D absent when zero."""

    A_DU: Tensor | None = None
    c_D: Tensor | None = None


@dataclass(frozen=True)
class Function(ABC):
    """A modification function with its options (the dataclass fields of a subclass).

    `reads` says what it computes from: "u" (the position's input), "heads" (queries inside attention) or "nothing".
    `nonlinear` says in words why it cannot fold into a weight; None when `affine` gives the map.
    """

    reads: ClassVar[str] = "u"
    nonlinear: ClassVar[str | None] = None
    has_mass: ClassVar[bool] = False  # takes a softmax mass λ, which `gated` needs

    @abstractmethod
    def slots(self, widths: Widths) -> Slots:
        """The slots at one site."""

    def shared(self, widths: Widths) -> Slots:
        """Slots that all sites of the insertion use together."""
        return {}

    def generate(self, params: Params, shared: Params) -> Params:
        """The tensors that `delta` uses; a reparametrisation turns what is trained into them here."""
        return params

    def plain(self) -> Self:
        """The same function without its reparametrisation: what merging leaves."""
        return self

    @abstractmethod
    def delta(self, u: Tensor | Heads | None, params: Params, training: bool) -> Tensor:
        """Δ, of the shape of h (or one that broadcasts to it)."""

    def affine(self, params: Params) -> Affine | None:
        """The map as a matrix and an offset, or None where `nonlinear` says why not."""
        return None

    @property
    @abstractmethod
    def starts_at_zero(self) -> bool:
        """Whether Δ is exactly 0 before training."""

    def with_size(self, size: int) -> Self:
        """The same function at another size. Raises TypeError where it has none."""
        return replace(self, size=size)  # type: ignore[call-arg]


def linear(slot: str, out_width: int, in_width: int, part: str, bias: bool = True) -> Slots:
    """One slot holding a linear map: weight (out, in) and, unless told otherwise, bias (out)."""
    tensors = {"weight": TensorSpec((out_width, in_width), part)}
    if bias:
        tensors["bias"] = TensorSpec((out_width,), "bias")
    return {slot: tensors}
