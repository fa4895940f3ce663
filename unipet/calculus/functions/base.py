"""What a modification function is: pure maths over named slots of tensors.

A function owns no parameters. It declares its slots (shapes and what starts them), and computes Δ from the tensors it
is handed; a bank (`bank.py`) holds the tensors, one copy per slot or one per expert.

Shapes: B batch, T positions, D width of h, U width of what the function reads, R size.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import ClassVar, Self, cast

from torch import Generator, Tensor

from unipet.calculus.functions.product import Delta, Product, value


@dataclass(frozen=True)
class Widths:
    """What a site tells a function: `u` width of its input, `h` width of what it changes, and the head geometry.

    `scale` is what a token embedding multiplies its rows by. `number` counts the sites of the insertion, for a function
    whose frozen tensors differ by site yet depend on all.
    """

    u: int
    h: int
    heads: int = 0
    kv_heads: int = 0
    head_dim: int = 0
    scale: float = 1.0
    number: int = 0

    @property
    def kv(self) -> int:
        """Width of the keys and values of all heads together, d_kv."""
        return self.kv_heads * self.head_dim


@dataclass(frozen=True)
class TensorSpec:
    """One tensor of a slot: its shape, and which part it plays (`in`, `out`, `bias`, `table`) for the initialisers.

    `start` names a value of INITIALISERS that it starts with whatever the function's `init` says.
    """

    shape: tuple[int, ...]
    part: str
    start: str | None = None

    @property
    def count(self) -> int:
        return math.prod(self.shape)


#: slot -> tensor name -> spec; a slot that is one bare tensor calls it "".
Slots = dict[str, dict[str, TensorSpec]]
#: "down" or "down.weight" -> tensor
Params = Mapping[str, Tensor]
#: Among the params of a function that `needs_weight`: the base model's weight at the site, (out, in).
#: Likewise the bias, (out,), of one that `needs_bias`.
BASE, BASE_BIAS = "base", "base_bias"
#: Beyond any size that a budget can allow.
UNBOUNDED = 2**30


@dataclass(frozen=True)
class Heads:
    """The inside of one attention call: q_BHTE, its logit factor, and how query heads map to key/value heads; for a function
    that `reads_x`, also x_BTU and the base model's query projection of it."""

    q_BHTE: Tensor
    factor: float
    kv_heads: int
    x_BTU: Tensor | None = None
    project: Callable[[Tensor], Tensor] | None = None


@dataclass(frozen=True)
class Affine:
    """A function that is an affine map of its input: f(u) = u Aᵀ + c, with A_DU or c_D absent when zero."""

    A_DU: Tensor | None = None
    c_D: Tensor | None = None


@dataclass(frozen=True)
class Function(ABC):
    """A modification function with its options (the dataclass fields of a subclass).

    `reads` says what it computes from: "u" (the position's input), "heads" (queries inside attention), "ids" (tokens)
    or "nothing" (`reads.py`). `nonlinear` says in words why it cannot fold into a weight; None when `affine` gives the map.
    """

    reads: ClassVar[str] = "u"
    nonlinear: ClassVar[str | None] = None
    shares_softmax: ClassVar[bool] = False  # takes a softmax mass λ, which `gated` needs
    needs_projections: ClassVar[bool] = False  # `generate` reads the key and value projections: base.keys.weight, ...
    makes_tokens: ClassVar[bool] = False  # Δ is tokens (1, L, D) of its own, which `concat` needs
    knob: ClassVar[str] = "size"  # the option that says how much it trains; a budget solves it

    @abstractmethod
    def slots(self, widths: Widths) -> Slots:
        """The slots at one site."""

    @property
    def needs_weight(self) -> bool:
        """Whether it computes with the base model's weight at its site, which is then among its params as `base`."""
        return False

    @property
    def reads_x(self) -> bool:
        """Whether, inside attention, it makes queries of its own from x with the base model's query projection."""
        return False

    def frozen(self, widths: Widths, generator: Generator) -> Mapping[str, Tensor]:
        """Tensors of one site that never train (masks, random bases). A saved adapter does not hold them: they are made
        again from the function's `seed` option, and their checksum is compared."""
        return {}

    def shared(self, widths: Sequence[Widths]) -> Slots:
        """Slots that all sites of the insertion use together; `widths` are those of all its sites."""
        return {}

    def shared_frozen(self, widths: Sequence[Widths], generator: Generator) -> Mapping[str, Tensor]:
        """As `frozen`, one for all sites of the insertion."""
        return {}

    def frozen_count(self, widths: Sequence[Widths]) -> int:
        """How many numbers these two make at sites of these widths, where the base model does not bound it."""
        return 0

    def start(self, params: Params, weight_DU: Tensor | None) -> None:  # noqa: B027 - most have nothing to set
        """Set tensors, in place, that start from the base model's weight or from each other (an SVD, a copy). `params` holds
        the trained and frozen ones of one site; `weight_DU` the weight, where `starts_from_weight` is true."""

    @property
    def starts_from_weight(self) -> bool:
        """Whether `start` reads the base model's weight."""
        return self.needs_weight

    def refuses_form(self, form: str) -> str | None:
        """Why it is not possible in this form, or None."""
        if self.starts_from_weight and self.reads == "u" and form != "parallel":
            return "it needs the base weight, a map of x. Use form: parallel."
        return None

    @property
    def starts_from_text(self) -> bool:
        """Whether the base model reads a `text` before training, whose keys and values some tensors start from."""
        return False

    def text(self, vocabulary: int) -> list[int]:
        """The ids of that text's tokens. Raises UnipetError where they do not fit the vocabulary's size."""
        return []

    def start_from_heads(self, params: Params, keys_SK: Tensor, values_SK: Tensor) -> None:  # noqa: B027 - as `start`
        """Set tensors, in place, from the keys and values that the base model computes of `text` at one site."""

    def generate(self, params: Params, shared: Params, widths: Widths) -> Params:
        """The tensors that `delta` uses; a reparametrisation turns what is trained into them here."""
        return params

    def plain(self) -> Self:
        """The same function without its reparametrisation: what merging leaves."""
        return self

    @abstractmethod
    def delta(self, u: Tensor | Heads | None, params: Params, training: bool) -> Tensor:
        """Δ, of the shape of h (or one that broadcasts to it)."""

    def unjoined(self, u: Tensor | Heads | None, params: Params, training: bool) -> Delta:
        """Δ, or the product that it ends in, which a composition may compute together with what it joins."""
        return self.delta(u, params, training)

    def affine(self, params: Params) -> Affine | None:
        """The map as a matrix and an offset, or None where `nonlinear` says why not."""
        return None

    @property
    def has_offset(self) -> bool:
        """Whether its affine map may have an offset, f(0) ≠ 0, which folds into nothing but a bias."""
        return True

    @property
    @abstractmethod
    def starts_at_zero(self) -> bool:
        """Whether Δ is exactly 0 before training."""

    @property
    def starts_at_identity(self) -> bool:
        """Whether f(h) is h before training, bit for bit: then `replace` changes nothing at the start."""
        return False

    @property
    def needs_bias(self) -> bool:
        """Whether it computes with the bias of the base model's linear map, which is then among its params."""
        return False

    def sizes(self, widths: Sequence[Widths]) -> Sequence[int]:
        """The values of its `knob` that sites of these widths allow; none where it has no size. A range where a larger value
        trains more; a list, in ascending order, where not every value is allowed or the count does not follow it."""
        low = next((field.metadata.get("low") or 1 for field in fields(self) if field.name == self.knob), None)
        return () if low is None else range(int(low), UNBOUNDED)

    def with_knob(self, value: int) -> Self:
        """The same function with its knob at `value`. Raises TypeError where it has none."""
        return replace(self, **{self.knob: value})


@dataclass(frozen=True)
class LinearMap(Function):
    """A function that is a matrix: f(u) = A u, A made of its tensors. A subclass may override `product` or `delta`."""

    linear_in_tensors: ClassVar[bool] = False  # A is linear in what trains: no matrix is kept for its gradients

    @abstractmethod
    def matrix(self, params: Params) -> Tensor:
        """A_DU, differentiable."""

    def entries(self, params: Params) -> tuple[Tensor, Tensor] | None:
        """The few entries of A that are not zero, and their places, row by row; None: it has no few."""
        return None

    def product(self, u: Tensor, params: Params, training: bool) -> Delta:
        """f(u) as the product that it ends in."""
        return Product(u, self.matrix(params))

    def delta(self, u: Tensor | Heads | None, params: Params, training: bool) -> Tensor:
        return value(self.product(cast(Tensor, u), params, training))

    def cheaper_as_matrix(self, tokens: int, widths: Widths, training: bool) -> bool:
        """Whether a step costs less with the matrix joined to the weight. Not where f differs from it (dropout in training)."""
        return type(self).delta is LinearMap.delta and type(self).product is LinearMap.product

    def unjoined(self, u: Tensor | Heads | None, params: Params, training: bool) -> Delta:
        if type(self).delta is not LinearMap.delta:
            return self.delta(u, params, training)
        return self.product(cast(Tensor, u), params, training)

    def affine(self, params: Params) -> Affine | None:
        return Affine(A_DU=self.matrix(params))

    @property
    def has_offset(self) -> bool:
        return type(self).affine is not LinearMap.affine
