"""`prefix`: attention of the queries over `size` learned keys and values (Li & Liang 2021; He et al. 2022, eq. 5-10).

Shapes: L prefix length (the size), H query heads, G key/value heads, E head width, T positions, M hidden width of the
reparametrisation.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import ClassVar, Self

import torch
from torch import Generator, Tensor
from torch.nn import functional as F

from unipet.calculus.functions.activations import ACTIVATIONS
from unipet.calculus.functions.base import (
    UNBOUNDED,
    Function,
    Heads,
    Params,
    Slots,
    TensorSpec,
    Widths,
)
from unipet.calculus.functions.factors import uniform
from unipet.calculus.functions.slot_layers import layer_norm, linear
from unipet.calculus.options import option
from unipet.errors import UnipetError


@dataclass(frozen=True)
class Reparam:
    """The two-layer network that produces the prefix in training and is dropped by merging (Li & Liang 2021, §4.3).

    It reads `tokens` of `width`; null: as wide as the block's input (peft: as wide as all keys).
    """

    hidden: int = option(800, low=1)
    activation: str = option("tanh", choices=tuple(ACTIVATIONS))
    width: int | None = option(None, low=1)


@dataclass(frozen=True)
class Prefix(Function):
    """Δ = φ(q Kᵀ/√E) V per head; slots `keys` and `values`, each (l, d_kv).

    `size` is the prefix length l. `activation: softmax` is prefix tuning; `relu` makes it the multi-head parallel
    adapter of He et al. (Table 4), whose down-projection is the frozen query projection times Kᵀ. With `reparam` the
    slots hold the last layer per site (`keys.weight` (d_kv, m), ...) and all sites share `tokens` (l, d) and `hidden`.
    `norm: in` makes queries of its own, the query projection of a LayerNorm of x (slot `norm`), and `scaled: false` leaves
    1/√E out (both as He et al.'s code does outside the softmax that attention shares). `scale_keys` lets the scaling
    act on the keys as well as on the values, as UniPELT's gate does.

    `init: tokens` starts it as a KV cache: the frozen base model reads the text `ids` once, and each site takes the keys
    and values of its first l tokens (without `ids`: of l random ones that `seed` draws). The first `freeze_first`
    positions stay as they started and are no part of the slots, which then hold the other l - `freeze_first` (both:
    Eyuboglu et al. 2025, Cartridges).
    """

    reads: ClassVar[str] = "heads"
    nonlinear: ClassVar[str | None] = "attention over a prefix depends on the query"
    shares_softmax: ClassVar[bool] = True

    size: int = option(30, low=1)
    activation: str = option("softmax", choices=("softmax", "relu"))
    init: str = option("bert", choices=("bert", "torch", "zeros", "tokens"))
    ids: list[int] = option([], low=0)
    freeze_first: int = option(0, low=0)
    seed: int = option(0, low=0)
    dropout: float = option(0.0, low=0.0, high=0.999)
    scale_keys: bool = option(False)
    reparam: Reparam | None = option(None)
    norm: str = option("none", choices=("none", "in"))
    eps: float = option(1e-5, low=0.0)
    scaled: bool = option(True)

    def sizes(self, widths: Sequence[Widths]) -> Sequence[int]:
        return range(self.freeze_first + 1, len(self.ids) + 1 if self.ids else UNBOUNDED)

    @property
    def reads_x(self) -> bool:
        return self.norm == "in"

    def slots(self, widths: Widths) -> Slots:
        self._check()
        own = layer_norm("norm", widths.u) if self.norm == "in" else {}
        if self.reparam is None:
            start = "zeros" if self.starts_from_text else None  # until `start_from_heads`
            spec = TensorSpec((self.size - self.freeze_first, widths.kv), "table", start)
            return {"keys": {"": spec}, "values": {"": spec}, **own}
        hidden = self.reparam.hidden
        return {**own, **linear("keys", widths.kv, hidden, "out"), **linear("values", widths.kv, hidden, "out")}

    def _check(self) -> None:
        given = "init: tokens" if self.starts_from_text else f"freeze_first: {self.freeze_first}"
        if self.reparam is not None and (self.starts_from_text or self.freeze_first):
            raise UnipetError(f"function.reparam: {given} is about keys and values themselves. Use reparam: null.")
        if self.freeze_first >= self.size:
            raise UnipetError(
                f"function.freeze_first: {self.freeze_first} of {self.size} positions given; allowed: at most "
                f"{self.size - 1}, so that something trains."
            )
        if self.ids and not self.starts_from_text:
            raise UnipetError(f"function.ids: a text to start from needs init: tokens, and init is {self.init}.")
        if self.ids and len(self.ids) < self.size:
            raise UnipetError(
                f"function.ids: {len(self.ids)} tokens given, and the prefix has {self.size} positions. Give as many "
                f"tokens or more, or set function.size={len(self.ids)}."
            )

    def frozen_count(self, widths: Sequence[Widths]) -> int:
        return sum(2 * self.freeze_first * one.kv for one in widths)

    def frozen(self, widths: Widths, generator: Generator) -> Mapping[str, Tensor]:
        if not self.freeze_first:
            return {}
        # As wide as what trains, but uniform: the same bits on every machine, which normal numbers are not.
        bound = {"bert": 0.02, "torch": 1.0}.get(self.init, 0.0) * math.sqrt(3)
        shape = (self.freeze_first, widths.kv)
        return {f"first_{slot}": uniform(shape, bound, generator) for slot in ("keys", "values")}

    @property
    def starts_from_text(self) -> bool:
        return self.init == "tokens"

    def text(self, vocabulary: int) -> list[int]:
        if not self.ids:
            order = torch.randperm(vocabulary, generator=torch.Generator().manual_seed(self.seed), device="cpu")
            found: list[int] = order[torch.arange(self.size, device="cpu") % vocabulary].tolist()
            return found
        if max(self.ids) >= vocabulary:
            raise UnipetError(f"function.ids: {max(self.ids)} is no token, the vocabulary has 0-{vocabulary - 1}.")
        return self.ids

    def start_from_heads(self, params: Params, keys_SK: Tensor, values_SK: Tensor) -> None:
        for slot, read_SK in (("keys", keys_SK), ("values", values_SK)):
            if self.freeze_first:
                params[f"first_{slot}"].copy_(read_SK[: self.freeze_first])
            params[slot].copy_(read_SK[self.freeze_first : self.size])

    def shared(self, widths: Sequence[Widths]) -> Slots:
        if self.reparam is None or not widths:
            return {}
        self._check()
        if len({(one.u, one.kv) for one in widths}) > 1:
            raise UnipetError(
                "function.reparam: all sites share one network, and they differ in width: "
                f"{sorted({(one.u, one.kv) for one in widths})}. Use reparam: null, or make one insertion for each width."
            )
        width = self.reparam.width or widths[0].u
        tokens = {"tokens": {"": TensorSpec((self.size, width), "table")}}
        return {**tokens, **linear("hidden", self.reparam.hidden, width, "in")}

    def generate(self, params: Params, shared: Params, widths: Widths) -> Params:
        if self.reparam is None:
            return params
        z_LM = F.linear(shared["tokens"], shared["hidden.weight"], shared["hidden.bias"])
        z_LM = ACTIVATIONS[self.reparam.activation](z_LM)
        own = {name: tensor for name, tensor in params.items() if name.startswith("norm.")}
        made = {slot: F.linear(z_LM, params[f"{slot}.weight"], params[f"{slot}.bias"]) for slot in ("keys", "values")}
        return {**own, **made}

    def plain(self) -> Self:
        return replace(self, reparam=None)

    def columns(self, params: Params, kv_heads: int, training: bool) -> tuple[Tensor, Tensor]:
        """Keys and values per head, k_GLE and v_GLE: what prepending puts in front of the sequence."""
        k_LK, v_LK = (self.whole(params, slot) for slot in ("keys", "values"))
        if training and self.dropout:
            k_LK, v_LK = F.dropout(k_LK, self.dropout), F.dropout(v_LK, self.dropout)
        k_GLE = k_LK.view(self.size, kv_heads, -1).transpose(0, 1)
        v_GLE = v_LK.view(self.size, kv_heads, -1).transpose(0, 1)
        return k_GLE, v_GLE

    def whole(self, params: Params, slot: str) -> Tensor:
        """All `keys` or `values`, (l, d_kv), those that do not train included."""
        return torch.cat([params[f"first_{slot}"], params[slot]]) if self.freeze_first else params[slot]

    def delta(self, u: Tensor | Heads | None, params: Params, training: bool) -> Tensor:
        """Δ over the concatenated heads, (B, T, H·E)."""
        assert isinstance(u, Heads)
        if self.norm == "in":
            assert u.x_BTU is not None and u.project is not None
            x_BTU = F.layer_norm(u.x_BTU, u.x_BTU.shape[-1:], params["norm.weight"], params["norm.bias"], self.eps)
            u = replace(u, q_BHTE=u.project(x_BTU))
        if not self.scaled:
            u = replace(u, factor=1.0)
        k_GLE, v_GLE = self.columns(params, u.kv_heads, training)
        logits_BHTL, v_HLE = self._logits(u, k_GLE, v_GLE)
        weights_BHTL = F.relu(logits_BHTL) if self.activation == "relu" else logits_BHTL.softmax(-1)
        return (weights_BHTL @ v_HLE).transpose(1, 2).flatten(2)

    @staticmethod
    def _logits(u: Heads, k_GLE: Tensor, v_GLE: Tensor) -> tuple[Tensor, Tensor]:
        groups = u.q_BHTE.shape[1] // u.kv_heads
        k_HLE, v_HLE = (t.repeat_interleave(groups, dim=0) for t in (k_GLE, v_GLE))
        q_BHTE = u.q_BHTE.to(k_HLE.dtype)
        return q_BHTE @ k_HLE.transpose(-1, -2) * u.factor, v_HLE

    @property
    def starts_at_zero(self) -> bool:
        return self.init == "zeros" and self.reparam is None
