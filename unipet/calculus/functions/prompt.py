"""`prompt`: `size` virtual tokens for the embedded input (Lester et al. 2021; with a network, Liu et al. 2021).

Shapes: L number of tokens (the size), D width of the token embeddings, M hidden width of the reparametrisation, V
vocabulary.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar, Self

import torch
from torch import Tensor
from torch.nn import functional as F

from unipet.calculus.functions.activations import ACTIVATIONS
from unipet.calculus.functions.base import Function, Heads, Params, Slots, TensorSpec, Widths
from unipet.calculus.functions.slot_layers import linear
from unipet.calculus.options import option
from unipet.errors import UnipetError


@dataclass(frozen=True)
class TokenNetwork:
    """The network that produces the tokens in training and is dropped by merging: `depth` hidden layers of width
    `hidden`, then one of the embedding's width. `residual` adds what went in (Razdaibiedina et al. 2023)."""

    hidden: int = option(128, low=1)
    depth: int = option(1, low=1, high=64)
    activation: str = option("relu", choices=tuple(ACTIVATIONS))
    residual: bool = option(False)


@dataclass(frozen=True)
class Prompt(Function):
    """Virtual tokens, the same for every input; slot `tokens` (l, d).

    `size` is their number l. `init: vocab` starts them at rows of the base model's token embedding: those of `ids`,
    over again if there are fewer than l, else l rows that `seed` draws. With `reparam` the tokens are what a network
    makes of the slot `tokens`, its layers being slots `hidden`, `hidden2`, ... and `out`. `dropout` acts on the tokens.
    """

    reads: ClassVar[str] = "nothing"
    nonlinear: ClassVar[str | None] = "tokens of their own are no part of any weight"
    makes_tokens: ClassVar[bool] = True

    size: int = option(20, low=1)
    init: str = option("bert", choices=("bert", "torch", "vocab"))
    ids: list[int] = option([], low=0)
    seed: int = option(0)
    dropout: float = option(0.0, low=0.0, high=0.999)
    reparam: TokenNetwork | None = option(None)

    def slots(self, widths: Widths) -> Slots:
        found: Slots = {"tokens": {"": TensorSpec((self.size, widths.h), "table", self._start("normal_002"))}}
        if self.reparam is None:
            return found
        width = widths.h
        for slot in self._hidden():
            found |= self._linear(slot, self.reparam.hidden, width)
            width = self.reparam.hidden
        return {**found, **self._linear("out", widths.h, width)}

    def _start(self, name: str) -> str | None:
        # `vocab` is no scheme of the initialisers: `start` overwrites the tokens, the network starts as torch's.
        return name if self.init == "vocab" else None

    def _linear(self, slot: str, out_width: int, in_width: int) -> Slots:
        made = linear(slot, out_width, in_width, "in")[slot]
        starts = {"weight": self._start("kaiming"), "bias": self._start("zeros")}
        return {slot: {name: replace(spec, start=starts[name]) for name, spec in made.items()}}

    def _hidden(self) -> list[str]:
        return [f"hidden{number + 1 if number else ''}" for number in range(self.reparam.depth if self.reparam else 0)]

    @property
    def starts_from_weight(self) -> bool:
        return self.init == "vocab"

    def start(self, params: Params, weight_DU: Tensor | None) -> None:
        """`weight_DU` is the token embedding, (V, D)."""
        if self.init != "vocab":
            return
        assert weight_DU is not None
        vocabulary = len(weight_DU)
        if any(one >= vocabulary for one in self.ids):
            raise UnipetError(f"function.ids: {max(self.ids)} is no token, the vocabulary has 0-{vocabulary - 1}.")
        if self.ids:
            ids_L = torch.tensor([self.ids[number % len(self.ids)] for number in range(self.size)])
        else:
            ids_L = torch.randperm(vocabulary, generator=torch.Generator().manual_seed(self.seed))
            ids_L = ids_L[torch.arange(self.size) % vocabulary]
        params["tokens"].copy_(weight_DU[ids_L.to(weight_DU.device)])

    def generate(self, params: Params, shared: Params, widths: Widths) -> Params:
        if self.reparam is None:
            return params
        z = params["tokens"]
        for slot in self._hidden():
            z = ACTIVATIONS[self.reparam.activation](F.linear(z, params[f"{slot}.weight"], params[f"{slot}.bias"]))
        made_LD = F.linear(z, params["out.weight"], params["out.bias"])
        return {"tokens": params["tokens"] + made_LD if self.reparam.residual else made_LD}

    def plain(self) -> Self:
        return replace(self, reparam=None)

    def delta(self, u: Tensor | Heads | None, params: Params, training: bool) -> Tensor:
        """The tokens, (1, L, D)."""
        return F.dropout(params["tokens"], self.dropout, training).unsqueeze(0)

    @property
    def starts_at_zero(self) -> bool:
        return False
