"""What a composition is: how s·Δ and h are joined, and its fold into the linear map that produced h.

Shapes: B batch, T positions, D width of h, I width of the linear map's input.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from unipet.calculus.composition.weights import Weights
from unipet.calculus.functions.base import Affine, Function, LinearMap, Params, Slots, Widths
from unipet.calculus.functions.product import Delta

#: Why a function that makes tokens goes with no composition but one, and that one with no other function.
TOKENS_NEED = "functions that make tokens and compositions that lengthen the sequence need each other."


@dataclass(frozen=True)
class Composition(ABC):
    """One composition with its options: `join` on activations, `fold` on the linear map that produced h.

    `foldable` says that there is a fold; `constant_only` that it needs a Δ that is the same for every input. `keeps_h`
    says that Δ = 0 leaves h as it was. `shares_softmax` marks the one that shares h's own softmax. `of_weight` marks those
    that change the weight itself, W' = L(W ⊙ (1 + M) + Δ): f must be a matrix, and the site a linear map's output.
    `lengthens` marks the one that makes the sequence longer. `shifts`: an offset of Δ becomes one of h, held by a bias.
    `changes_weight`: where f is a matrix, it changes the weight alone, which `weight` yields. `makes_of_bias`: what it makes
    of the base model's tensors is the bias, as `bias`, where there is one, and nothing else. `in_place`: it has `join_into`.
    """

    foldable: ClassVar[bool] = True
    constant_only: ClassVar[bool] = False
    keeps_h: ClassVar[bool] = True
    shares_softmax: ClassVar[bool] = False
    of_weight: ClassVar[bool] = False
    lengthens: ClassVar[bool] = False
    shifts: ClassVar[bool] = True
    changes_weight: ClassVar[bool] = False
    makes_of_bias: ClassVar[bool] = False
    in_place: ClassVar[bool] = False

    @property
    def needs_weight(self) -> bool:
        """Whether it reads the base model's weight or bias, given to `join` and `fold` as `at`."""
        return self.of_weight

    def refuses_function(self, function: Function) -> str | None:
        """Why it does not go with this function, or None; likewise below."""
        if function.makes_tokens:
            return f"{TOKENS_NEED} Use composition: concat."
        return None

    def refuses_options(self, function: Function) -> str | None:
        """Why it does not go with an option of this function."""
        return None

    def refuses_sites(self, sites: list[str]) -> str | None:
        """Why it is not possible at one of these roles."""
        return None

    def refuses_form(self, form: str) -> str | None:
        """Why it is not possible in this form."""
        return None

    def refuses_side(self, side: str) -> str | None:
        """Why it is not possible on this side of a linear map."""
        return "it is about a linear map's output. Use side: output." if self.needs_weight and side == "input" else None

    def refuses_tokens(self, tokens: str) -> str | None:
        """Why it cannot change these tokens alone."""
        return None

    def refuses_scaling(self, dynamic: str | None) -> str | None:
        """Why it does not go with a scaling that is `dynamic`."""
        if dynamic and self.of_weight:
            return "it changes the weight, which is the same for all inputs, and a gate is not. Use a constant, or learned."
        return None

    def refuses_rows(self, by_row: bool) -> str | None:
        """Why it is not possible where the examples of a batch have functions of their own, if they have."""
        if by_row and (self.shares_softmax or self.needs_weight):
            return (
                "the examples of a batch then have functions of their own, which it cannot join. Use composition: add."
            )
        return None

    def slots(self, widths: Widths) -> Slots:
        """What it learns; nothing unless said."""
        return {}

    def start(self, own: Params, weight_DI: Tensor) -> None:  # noqa: B027 - most have nothing to set
        """Set what it learns, in place, from the base model's weight."""

    def made(self, own: Params, at: Weights | None) -> Params:
        """What `join` computes with beside h, Δ and x, made of what it learns and of the base model's tensors alone."""
        return own

    @abstractmethod
    def join(self, h_BTD: Tensor, delta: Delta, own: Params, at: Weights | None) -> Tensor:
        """h' from h and s·Δ, in the dtype of h; `own` is what `made` yields. What has a `made` of its own reads no `at`."""

    def join_into(self, h: Tensor, delta: Delta, own: Params) -> Tensor:
        """As `join`, in the memory of h, which nobody else may have; (N, D) while gradients are recorded."""
        raise AssertionError(f"{type(self).__name__} makes h' apart")

    def weight(self, W_DI: Tensor, function: LinearMap, params: Params, factor: Tensor | float) -> Tensor:
        """W' from W and s times f's matrix, differentiable. Only what `changes_weight` has one."""
        raise AssertionError(f"{type(self).__name__} does not change the weight alone")

    def fold(self, W_DI: Tensor, b_D: Tensor, affine: Affine, own: Params, at: Weights | None) -> tuple[Tensor, Tensor]:
        """The linear map (W, b) with s·f, as a map of the same input, joined to it. Only what is `foldable` has one."""
        raise AssertionError(f"{type(self).__name__} has no fold")
