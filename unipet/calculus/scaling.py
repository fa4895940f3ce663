"""How much: the factor s in h' = compose(h, s·Δ), from a fixed number to a learned gate.

Shapes: B batch, T positions, U width of the function's input, D width of h.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from math import sqrt
from typing import ClassVar, Self

import torch
from torch import Tensor
from torch.nn import functional as F

from unipet.calculus.functions.base import Function, Params, Slots, TensorSpec, Widths
from unipet.calculus.functions.beginnings import Linear
from unipet.calculus.functions.product import times
from unipet.calculus.options import option
from unipet.errors import UnipetError

LARGEST = 1e6  # of a number that multiplies activations or losses: products of a few of them stay within float32


@dataclass(frozen=True, eq=False)
class Tokens:
    """What a scaling that reads its input may know of its tokens: each one's share in a mean over the real tokens of its row
    (None: all are real), whether they may see later ones, and whether earlier ones are in a KV cache, out of sight."""

    share_BT1: Tensor | None = None
    causal: bool = False
    cached: bool = False

    @classmethod
    def of(
        cls, real_BT: Tensor, causal: bool = False, cached: bool = False, dtype: torch.dtype = torch.float32
    ) -> Self:
        """Of rows whose real tokens are known. A row without any has shares of 0."""
        real_BT1 = real_BT.unsqueeze(-1).to(dtype)
        return cls(real_BT1 / real_BT1.sum(1, keepdim=True).clamp(min=1), causal, cached)

    def mean(self, each_BT1: Tensor) -> Tensor:
        """The mean over each row's real tokens, (B, 1, 1), in the dtype of what it is of."""
        if self.share_BT1 is None:
            return each_BT1.mean(1, keepdim=True)
        return (each_BT1 * self.share_BT1).sum(1, keepdim=True).to(each_BT1.dtype)


@dataclass(frozen=True)
class Scaling(ABC):
    """A scaling with its options. `dynamic` says in words why it cannot fold; None when s is the same for all inputs."""

    dynamic: ClassVar[str | None] = None
    needs_size: ClassVar[bool] = False

    def slots(self, widths: Widths) -> Slots:
        """What it learns; nothing unless said."""
        return {}

    def refuses_sites(self, sites: list[str], form: str) -> str | None:
        """Why it is not possible at one of these roles in this form, or None."""
        if self.dynamic is not None and form == "parallel" and "embed" in sites:
            return "there, x is token ids, which a gate cannot read. Use form: sequential."
        return None

    def refuses_function(self, function: Function) -> str | None:
        """Why it does not go with this function, or None."""
        if self.needs_size and getattr(function, "size", None) is None:
            return "it divides by the function's size, and that function has none."
        return None

    init: ClassVar[str] = "zeros"

    def start_from(self) -> float | None:
        """The number that every learned tensor starts at, or None where `init` says how."""
        return None

    def per_token(self, causal: bool) -> bool:
        """Whether s differs between the tokens of an example."""
        return False

    def reads(self, params: Params) -> Linear | None:
        """The linear map that is all that s knows of u, so that a function can read u in the same product; None: there is none.
        What has one has an `of_read`."""
        return None

    def of_read(self, size: int | None, z_BT1: Tensor, tokens: Tokens) -> Tensor:
        """s from what `reads` makes of u."""
        raise AssertionError(f"{type(self).__name__} reads u by no linear map")

    @abstractmethod
    def factor(self, params: Params, size: int | None, u_BTU: Tensor | None, tokens: Tokens | None) -> Tensor | float:
        """s, as a number or a tensor that broadcasts to (B, T, D)."""


@dataclass(frozen=True)
class Constant(Scaling):
    """s = value, the same for every input (He et al. 2022 use 4 for XSum, 2 on GLUE)."""

    value: float = option(1.0, low=-LARGEST, high=LARGEST)

    def factor(self, params: Params, size: int | None, u_BTU: Tensor | None, tokens: Tokens | None) -> Tensor | float:
        return self.value


@dataclass(frozen=True)
class AlphaOverRank(Scaling):
    """s = α/(r + ε) with r the function's size (Hu et al. 2022, §4.1; AdaLoRA's code adds ε = 0.00001, LoRA's nothing)."""

    needs_size: ClassVar[bool] = True

    alpha: float = option(16.0, low=-LARGEST, high=LARGEST)
    epsilon: float = option(0.0, low=0.0, high=LARGEST)

    def factor(self, params: Params, size: int | None, u_BTU: Tensor | None, tokens: Tokens | None) -> Tensor | float:
        assert size is not None
        return self.alpha / (size + self.epsilon)


@dataclass(frozen=True)
class AlphaOverSqrtRank(Scaling):
    """s = α/√r, which keeps the update's variance as the rank grows (Kalajdzievski 2023, rsLoRA)."""

    needs_size: ClassVar[bool] = True

    alpha: float = option(16.0, low=-LARGEST, high=LARGEST)

    def factor(self, params: Params, size: int | None, u_BTU: Tensor | None, tokens: Tokens | None) -> Tensor | float:
        assert size is not None
        return self.alpha / sqrt(size)


@dataclass(frozen=True)
class Learned(Scaling):
    """s is one trained number per site, slot `scale` (1,), which starts at `start` (He et al.'s code starts at 1)."""

    start: float = option(1.0, low=-LARGEST, high=LARGEST)

    def slots(self, widths: Widths) -> Slots:
        return {"scale": {"": TensorSpec((1,), "table")}}

    def start_from(self) -> float | None:
        return self.start

    def factor(self, params: Params, size: int | None, u_BTU: Tensor | None, tokens: Tokens | None) -> Tensor | float:
        return params["scale"]


@dataclass(frozen=True)
class LearnedVector(Scaling):
    """s is one trained number per channel of h, slot `scale` (d,), which starts at `start`."""

    start: float = option(1.0, low=-LARGEST, high=LARGEST)

    def slots(self, widths: Widths) -> Slots:
        return {"scale": {"": TensorSpec((widths.h,), "table")}}

    def start_from(self) -> float | None:
        return self.start

    def factor(self, params: Params, size: int | None, u_BTU: Tensor | None, tokens: Tokens | None) -> Tensor | float:
        return params["scale"]


@dataclass(frozen=True)
class InputGate(Scaling):
    """s = value · σ(w·u + b), averaged over an example's tokens or one for each token (Mao et al. 2022, UniPELT).

    Slot `gate`: weight (1, u), bias (1,). `pool: sequence` takes the mean over the real tokens, one gate per example;
    padding is left out of it (the released UniPELT code averages over it, so there an example's output depends on how
    far its batch is padded). `pool: token` gives each token its own gate. `auto` is `sequence`, and `token` where the
    stack is causal: a mean would let a token see later ones, and generation with a KV cache could not compute it.
    `pool: all` takes the mean over every position, padding included, one gate per example in any stack: what the
    released code computes. `alpha` makes `value` α/r; the released code drops α/r wherever it gates.
    """

    dynamic: ClassVar[str | None] = "the gate depends on the input"
    init: ClassVar[str] = "bert"

    value: float = option(1.0, low=-LARGEST, high=LARGEST)
    alpha: float | None = option(None, low=-LARGEST, high=LARGEST)
    pool: str = option("auto", choices=("auto", "sequence", "token", "all"))

    def slots(self, widths: Widths) -> Slots:
        return {"gate": {"weight": TensorSpec((1, widths.u), "in"), "bias": TensorSpec((1,), "bias")}}

    def reads(self, params: Params) -> Linear | None:
        return params["gate.weight"], params["gate.bias"]

    def per_token(self, causal: bool) -> bool:
        return self.pool == "token" or (self.pool == "auto" and causal)

    def factor(self, params: Params, size: int | None, u_BTU: Tensor | None, tokens: Tokens | None) -> Tensor | float:
        assert u_BTU is not None and tokens is not None
        return self.of_read(size, F.linear(u_BTU, params["gate.weight"], params["gate.bias"]), tokens)

    def of_read(self, size: int | None, z_BT1: Tensor, tokens: Tokens) -> Tensor:
        constant = self.value if self.alpha is None or size is None else self.value * self.alpha / size
        gate_BT1 = torch.sigmoid(z_BT1)
        if self.per_token(tokens.causal):
            return times(constant, gate_BT1)
        if tokens.cached:
            raise UnipetError(
                f"scaling.pool: {'sequence' if self.pool == 'auto' else self.pool} averages over all tokens, and some are in "
                "the KV cache, out of its sight. Generate with use_cache=False, or train with scaling.pool=token."
            )
        if self.pool == "all":
            return times(constant, gate_BT1.mean(1, keepdim=True))
        return times(constant, tokens.mean(gate_BT1))


SCALINGS: dict[str, type[Scaling]] = {
    "constant": Constant,
    "alpha_over_rank": AlphaOverRank,
    "alpha_over_sqrt_rank": AlphaOverSqrtRank,
    "learned": Learned,
    "learned_vector": LearnedVector,
    "input_gate": InputGate,
}
