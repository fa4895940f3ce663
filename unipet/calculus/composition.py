"""How it joins: the compositions that put s·Δ and h together, each beside its fold into a linear map.

Shapes: B batch, T positions, D width of h, I width of the linear map's input.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor
from torch.nn import functional as F

from unipet.calculus.functions.base import Affine, Params, Slots, TensorSpec, Widths
from unipet.calculus.options import option


@dataclass(frozen=True)
class Weights:
    """At a linear site, what a composition may need of it: x, the base weight and bias, f's matrix, and s."""

    x: Tensor | None
    weight_DI: Tensor
    bias_D: Tensor | None
    matrix_DI: Tensor | None
    factor: Tensor | float

    @property
    def scaled_DI(self) -> Tensor:
        """s times f's matrix."""
        assert self.matrix_DI is not None
        factor = self.factor
        column = factor.unsqueeze(-1) if isinstance(factor, Tensor) and factor.numel() > 1 else factor
        return column * self.matrix_DI

    def double(self) -> Weights:
        """The same in float64, for folding."""
        tensors = (self.x, self.weight_DI, self.bias_D, self.matrix_DI, self.factor)
        return Weights(*(one.double() if isinstance(one, Tensor) else one for one in tensors))  # type: ignore[arg-type]


@dataclass(frozen=True)
class Composition(ABC):
    """One composition with its options: `join` on activations, `fold` on the linear map that produced h.

    `foldable` says that there is a fold; `constant_only` that it needs a Δ that is the same for every input. `keeps_h`
    says that Δ = 0 leaves h as it was. `needs_mass` marks the one that shares h's own softmax. `of_weight` marks those
    that change the weight itself, W' = L(W ⊙ (1 + M) + Δ): f must be a matrix, and the site a linear map's output.
    `lengthens` marks the one that makes the sequence longer. `shifts`: an offset of Δ becomes one of h, held by a bias.
    """

    foldable: ClassVar[bool] = True
    constant_only: ClassVar[bool] = False
    keeps_h: ClassVar[bool] = True
    needs_mass: ClassVar[bool] = False
    of_weight: ClassVar[bool] = False
    lengthens: ClassVar[bool] = False
    shifts: ClassVar[bool] = True

    @property
    def needs_weight(self) -> bool:
        """Whether it reads the base model's weight or bias, given to `join` and `fold` as `at`."""
        return self.of_weight

    def slots(self, widths: Widths) -> Slots:
        """What it learns; nothing unless said."""
        return {}

    def start(self, own: Params, weight_DI: Tensor) -> None:  # noqa: B027 - most have nothing to set
        """Set what it learns, in place, from the base model's weight."""

    @abstractmethod
    def join(self, h_BTD: Tensor, delta_BTD: Tensor, own: Params, at: Weights | None) -> Tensor:
        """h' from h and s·Δ."""

    def fold(self, W_DI: Tensor, b_D: Tensor, affine: Affine, own: Params, at: Weights | None) -> tuple[Tensor, Tensor]:
        """The linear map (W, b) with s·f, as a map of the same input, joined to it. Only what is `foldable` has one."""
        raise AssertionError(f"{type(self).__name__} has no fold")


@dataclass(frozen=True)
class Add(Composition):
    """h + sΔ."""

    def join(self, h_BTD: Tensor, delta_BTD: Tensor, own: Params, at: Weights | None) -> Tensor:
        return h_BTD + delta_BTD

    def fold(self, W_DI: Tensor, b_D: Tensor, affine: Affine, own: Params, at: Weights | None) -> tuple[Tensor, Tensor]:
        return (
            W_DI if affine.A_DU is None else W_DI + affine.A_DU,
            b_D if affine.c_D is None else b_D + affine.c_D,
        )


@dataclass(frozen=True)
class Multiply(Composition):
    """h ⊙ (1 + sΔ); with `bias: false` the linear map's bias is left out of it."""

    constant_only: ClassVar[bool] = True
    shifts: ClassVar[bool] = False
    bias: bool = option(True)

    @property
    def needs_weight(self) -> bool:
        return not self.bias

    def join(self, h_BTD: Tensor, delta_BTD: Tensor, own: Params, at: Weights | None) -> Tensor:
        if at is not None and at.bias_D is not None:
            # Written so that Δ = 0 gives h bit for bit, which b + (h - b)(1 + Δ) does not.
            return h_BTD + ((h_BTD - at.bias_D) * delta_BTD).to(h_BTD.dtype)
        return h_BTD * (1 + delta_BTD)

    def fold(self, W_DI: Tensor, b_D: Tensor, affine: Affine, own: Params, at: Weights | None) -> tuple[Tensor, Tensor]:
        assert affine.A_DU is None and affine.c_D is not None
        kept_D = at.bias_D if at is not None and at.bias_D is not None else 0.0
        return W_DI * (1 + affine.c_D).unsqueeze(-1), kept_D + (b_D - kept_D) * (1 + affine.c_D)


@dataclass(frozen=True)
class Replace(Composition):
    """sΔ in the place of h."""

    keeps_h: ClassVar[bool] = False

    def join(self, h_BTD: Tensor, delta_BTD: Tensor, own: Params, at: Weights | None) -> Tensor:
        return delta_BTD.expand_as(h_BTD)

    def fold(self, W_DI: Tensor, b_D: Tensor, affine: Affine, own: Params, at: Weights | None) -> tuple[Tensor, Tensor]:
        A_DU = torch.zeros_like(W_DI) if affine.A_DU is None else affine.A_DU
        return A_DU, torch.zeros_like(b_D) if affine.c_D is None else affine.c_D


@dataclass(frozen=True)
class Hadamard(Composition):
    """W' = W ⊙ (1 + sA): f's matrix A scales every entry of the weight (HiRA: Huang et al. 2025, eq. 3)."""

    of_weight: ClassVar[bool] = True

    def join(self, h_BTD: Tensor, delta_BTD: Tensor, own: Params, at: Weights | None) -> Tensor:
        assert at is not None and at.x is not None
        return h_BTD + F.linear(at.x, at.weight_DI * at.scaled_DI).to(h_BTD.dtype)

    def fold(self, W_DI: Tensor, b_D: Tensor, affine: Affine, own: Params, at: Weights | None) -> tuple[Tensor, Tensor]:
        assert at is not None
        return W_DI + at.weight_DI * at.scaled_DI, b_D


@dataclass(frozen=True)
class Normalise(Composition):
    """W' = m ⊙ (W + sA) / ‖W + sA‖, rows normalised and rescaled by `magnitude` (d_out,) (DoRA: Liu et al. 2024, eq. 5).

    m starts at W's row norms, so Δ = 0 keeps h. `detach` treats the norm as a constant in the backward pass (§4.3).
    With `bias` the bias is rescaled, too, and with `scaled: false` the norm is that of W + A without s (both as in the
    adapters library, which departs from the paper there).
    """

    of_weight: ClassVar[bool] = True

    detach: bool = option(True)
    bias: bool = option(False)
    scaled: bool = option(True)

    def slots(self, widths: Widths) -> Slots:
        return {"magnitude": {"": TensorSpec((widths.h,), "table", "ones")}}

    def start(self, own: Params, weight_DI: Tensor) -> None:
        own["magnitude"].copy_(weight_DI.norm(dim=1))

    def _gain(self, own: Params, at: Weights) -> Tensor:
        assert at.matrix_DI is not None
        norm_D: Tensor = (at.weight_DI + (at.scaled_DI if self.scaled else at.matrix_DI)).norm(dim=1)
        gain_D: Tensor = own["magnitude"] / (norm_D.detach() if self.detach else norm_D)
        return gain_D

    def _kept(self, at: Weights, like: Tensor) -> Tensor:
        return torch.zeros_like(like) if self.bias or at.bias_D is None else at.bias_D.to(like.dtype)

    def join(self, h_BTD: Tensor, delta_BTD: Tensor, own: Params, at: Weights | None) -> Tensor:
        assert at is not None
        gain_D = self._gain(own, at)
        kept_D = self._kept(at, gain_D)
        # h + (g-1)(h - b) + gΔ rather than b + g(h - b + Δ): at the start g = 1 and h comes out bit for bit.
        return h_BTD + ((gain_D - 1) * (h_BTD - kept_D) + gain_D * delta_BTD).to(h_BTD.dtype)

    def fold(self, W_DI: Tensor, b_D: Tensor, affine: Affine, own: Params, at: Weights | None) -> tuple[Tensor, Tensor]:
        assert at is not None
        gain_D = self._gain(own, at)
        kept_D = self._kept(at, gain_D)
        c_D = 0.0 if affine.c_D is None else affine.c_D
        return gain_D.unsqueeze(-1) * (W_DI + at.scaled_DI), kept_D + gain_D * (b_D - kept_D + c_D)


@dataclass(frozen=True)
class Gated(Composition):
    """(1-λ)h + λΔ, λ the softmax mass that the prefix takes (He et al. 2022, eq. 5-10); computed inside attention.

    Real tokens keep their positions. `shift_positions` moves them behind the prefix, as peft's past_key_values do (T5's
    relative position bias then counts it); `shift_bias` moves keys but not queries there, as the adapters library does.
    """

    foldable: ClassVar[bool] = False
    keeps_h: ClassVar[bool] = False
    needs_mass: ClassVar[bool] = True

    shift_positions: bool = option(False)
    shift_bias: bool = option(False)

    def join(self, h_BTD: Tensor, delta_BTD: Tensor, own: Params, at: Weights | None) -> Tensor:
        raise AssertionError("`gated` is computed inside attention (attention.py)")


@dataclass(frozen=True)
class Concat(Composition):
    """Δ as tokens of its own in the sequence: in front of it, or `after: first` behind its first token.

    `auto` is `first` where heads read the first token: in a stack that is not causal and that no decoder reads.
    `keep_outputs` leaves the outputs at these tokens in what the base model returns (peft); else they are taken out.
    """

    foldable: ClassVar[bool] = False
    keeps_h: ClassVar[bool] = False
    lengthens: ClassVar[bool] = True

    after: str = option("auto", choices=("auto", "start", "first"))
    keep_outputs: bool = option(False)

    def join(self, h_BTD: Tensor, delta_BTD: Tensor, own: Params, at: Weights | None) -> Tensor:
        return torch.cat([delta_BTD.expand(len(h_BTD), -1, -1), h_BTD], dim=1)


COMPOSITIONS: dict[str, type[Composition]] = {
    "add": Add,
    "multiply": Multiply,
    "replace": Replace,
    "hadamard": Hadamard,
    "normalise": Normalise,
    "gated": Gated,
    "concat": Concat,
}
