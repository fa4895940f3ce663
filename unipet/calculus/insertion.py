"""The equation: h' = compose(h, s · f(u)) at one site. The one place where the dimensions meet.

Shapes: B batch, T positions, D width of h, U width of x.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor, nn

from unipet.calculus.composition import Replace, Weights
from unipet.calculus.functions.base import BASE, BASE_BIAS, Affine, Heads, LinearMap, Params, Widths
from unipet.calculus.insertion_parts import Call, Parts, frozen_of, rows_of, split_views
from unipet.calculus.mixture import Bank, Route, baked, by_expert, plain_bank
from unipet.calculus.scaling import Constant, Tokens
from unipet.calculus.sites import Site
from unipet.calculus.weights import BaseWeight, read_all
from unipet.errors import UnipetError


class Insertion(nn.Module):
    """One function at one site, with its composition, scaling and bank of tensors."""

    def __init__(
        self,
        name: str,
        parts: Parts,
        site: Site,
        widths: Widths,
        dtype: torch.dtype,
        device: torch.device,
        base: BaseWeight | None = None,
    ):
        super().__init__()
        self.name, self.parts, self.site, self.widths, self.number = name, parts, site, widths, -1
        self.call_record = Call()  # replaced by the adaptation's own
        self.base = base  # a module of the base model, read only: not registered here
        self.query: BaseWeight | None = None  # the query projection, for a function that reads it
        self.projections: dict[str, BaseWeight] = {}  # keys and values, for a function that needs them
        function, scaling = parts.function, parts.scaling
        scheme = getattr(function, "init", "torch")
        frozen = frozen_of(function, "frozen", widths, f"{name}/{site.name}")
        self.bank = Bank(function.slots(widths), scheme, parts.mixture, dtype, device, frozen)
        scale_widths = Widths(widths.u, widths.kv) if parts.rule.needs_mass else widths
        self.scale = plain_bank(scaling.slots(scale_widths), scaling.init, dtype, device)
        if (start := scaling.start_from()) is not None:
            for tensor in self.scale.tensors:
                nn.init.constant_(tensor, start)
        self.joint = plain_bank(parts.rule.slots(widths), "zeros", dtype, device)
        self.shared: Bank | None = None  # one bank for all sites of the insertion; owned by the adaptation
        if device.type != "meta":
            self._start()

    @torch.no_grad()
    def _start(self) -> None:
        """What starts from the base model's weight."""
        weight_DU = self._weight() if self.parts.needs_weight else None
        for params in self.bank.copies():
            self.parts.function.start(params, weight_DU)
        if weight_DU is not None:
            self.parts.rule.start(self.joint.reduced(), weight_DU)

    def _weight(self) -> Tensor:
        like = self._like()
        assert self.base is not None
        return self.base.weight().to(torch.float32 if like is None else like.dtype)

    @property
    def banks(self) -> tuple[Bank, Bank, Bank]:
        """All that it learns at its own site."""
        return self.bank, self.scale, self.joint

    def params(self, view: int = 0) -> Params:
        """The tensors in use: the routed experts in training, the reduced ones otherwise."""
        ((route, _),) = by_expert(self._route(view) or {})
        return self._generated(self.bank.routed(route) if route else self.bank.reduced())

    def reduced(self) -> Params:
        """The tensors that evaluation, merging and exports use, whatever mode the model is in."""
        return self._generated(self.bank.reduced())

    def _route(self, view: int) -> Route | None:
        """The route of this call, or None where all experts are reduced."""
        mixture, record = self.parts.mixture, self.call_record
        if mixture is None or mixture.grain(self.training) is None:
            return None
        if self.training:
            return record.routes[view].get(self.number) if record.routes else None
        return record.evaluation.get(self.number)

    def _mixed(self, source: Tensor | Heads | None, view: int) -> Tensor:
        """Δ of one view: of one expert per slot, of several where rows differ, or the mean of all their outputs."""
        function, mixture = self.parts.function, self.parts.mixture
        if mixture is not None and mixture.reducer == "mean_of_outputs" and not self.training:
            every = [function.delta(source, self._generated(params), False) for params in self.bank.copies()]
            return torch.stack(every).mean(0)
        delta: Tensor | None = None
        for route, rows in by_expert(self._route(view) or {}):
            params = self.bank.routed(route) if route else self.bank.reduced()
            one = function.delta(source, self._generated(params), self.training)
            if delta is None or rows is None:
                delta = one
            else:
                delta = torch.where(rows.to(one.device).view(*rows.shape, *[1] * (3 - rows.dim())), one, delta)
        assert delta is not None
        return delta

    def _generated(self, params: Params) -> Params:
        if self.parts.function.needs_projections:
            like = next(iter(params.values()))
            params = {**params, **{name: tensor.to(like.dtype) for name, tensor in read_all(self.projections).items()}}
        made = self.parts.function.generate(params, self.shared.reduced() if self.shared else {}, self.widths)
        if self.parts.function.needs_weight:
            made = {**made, BASE: self._weight()}
        if self.parts.function.needs_bias:
            bias = self.base.bias() if self.base is not None else None
            assert bias is not None
            made = {**made, BASE_BIAS: bias.to(next(iter(made.values())).dtype)}
        return made

    def forward(self, h: Tensor, x: Tensor | None, heads: Heads | None = None) -> Tensor:
        """h' from h and x (heads: the queries, at a site inside attention)."""
        factor = self.factor(h, x)
        delta = factor * self._delta(h, x, heads)
        at = self._at(self.cast(x), factor, self.params()) if self.parts.rule.needs_weight else None
        joined = self.parts.rule.join(h, delta.to(h.dtype), self.joint.reduced(), at)
        chosen_BT = self.chosen(h)
        return joined if chosen_BT is None else torch.where(chosen_BT.unsqueeze(-1), joined, h)

    def _at(self, x: Tensor | None, factor: Tensor | float, params: Params) -> Weights:
        """What a composition sees of its linear site."""
        assert self.base is not None
        function, bias = self.parts.function, self.base.bias()
        matrix = function.matrix(params) if isinstance(function, LinearMap) else None
        weight = self._weight()
        return Weights(x, weight, None if bias is None else bias.to(weight.dtype), matrix, factor)

    def factor(self, h: Tensor, x: Tensor | None) -> Tensor | float:
        """s for this call."""
        if self.parts.scaling.dynamic is None:
            return self._scaled()
        tokens = Tokens(self._real(h)[:, -h.shape[1] :], self.site.causal, self._past() > 0)
        return self._scaled(self.cast(h if self.parts.form == "sequential" else x), tokens)

    def _scaled(self, u: Tensor | None = None, tokens: Tokens | None = None) -> Tensor | float:
        return self.parts.scaling.factor(self.scale.reduced(), getattr(self.parts.function, "size", None), u, tokens)

    def chosen(self, h: Tensor) -> Tensor | None:
        """The token positions of h that `tokens` selects, (B, T); None: all."""
        if self.parts.tokens is None:
            return None
        which, count = self.parts.tokens
        if which == "last" and self._past() > 0:
            # The last tokens of the prompt; what is generated after it is not among them.
            return torch.zeros(h.shape[:2], dtype=torch.bool, device=h.device)
        real_BS = self._real(h)
        ahead_BS = real_BS.cumsum(1) if which == "first" else real_BS.flip(1).cumsum(1).flip(1)
        return (real_BS & (ahead_BS <= count))[:, -h.shape[1] :]

    def _delta(self, h: Tensor, x: Tensor | None, heads: Heads | None) -> Tensor:
        function = self.parts.function
        source: Tensor | Heads | None = None
        if function.reads == "heads":
            source = heads
        elif function.reads != "nothing":
            source = self.cast(h if self.parts.form == "sequential" else x)
        views = self.call_record.views if self.training and self.parts.mixture is not None else 1
        if views == 1:
            return self._mixed(source, 0)
        chunks = split_views(source, views)
        rows = h.shape[0] // views
        return torch.cat([rows_of(self._mixed(chunk, view), rows, h) for view, chunk in enumerate(chunks)])

    def cast(self, u: Tensor | None) -> Tensor | None:
        """u in the dtype that this insertion computes with."""
        # Half-precision base models keep float32 insertions; autocast, where it is on, chooses by itself.
        like = self._like()
        if u is None or like is None or u.dtype == like.dtype or not u.is_floating_point():
            return u
        return u if torch.is_autocast_enabled(u.device.type) else u.to(like.dtype)

    def _like(self) -> Tensor | None:
        """One of the tensors it computes with: their dtype and device are all the same."""
        banks = [bank for bank in (*self.banks, self.shared) if bank is not None and bank.index]
        return banks[0].tensors[0] if banks else None

    def _past(self) -> int:
        return self.call_record.past.get(self.site.tokens_of, 0)

    def _real(self, h: Tensor) -> Tensor:
        """Which tokens are real, those in the KV cache included: (B, S), h's own tokens being the last T."""
        length = h.shape[1] + self._past()
        mask_BS = self.call_record.masks_BS.get(self.site.tokens_of)
        if mask_BS is None:
            return torch.ones(h.shape[0], length, device=h.device, dtype=torch.bool)
        if mask_BS.shape != (h.shape[0], length):
            raise UnipetError(
                f"{self.name} at {self.site.path}: the attention mask of this call is {tuple(mask_BS.shape)} but the "
                f"hidden states are {(h.shape[0], length)}. Call the model with a 2-D attention_mask."
            )
        return mask_BS

    @torch.no_grad()
    def fold(self, W: Tensor, b: Tensor, affine: Affine) -> tuple[Tensor, Tensor]:
        """The linear map (W, b) in float64 with this insertion, s·f as a map of the same input, joined to it."""
        at = self._at(None, self._scaled(), self.reduced()).double() if self.parts.rule.needs_weight else None
        own = {name: tensor.double() for name, tensor in self.joint.reduced().items()}
        return self.parts.rule.fold(W, b, affine, own, at)

    @torch.no_grad()
    def affine(self) -> Affine | None:
        """s · f as a map of its input, from the reduced tensors; None where it is not affine."""
        affine = self.parts.function.affine(self.reduced())
        if affine is None:
            return None
        factor = self._scaled()
        column = factor.unsqueeze(-1) if isinstance(factor, Tensor) and factor.numel() > 1 else factor
        A_DU, c_D = affine.A_DU, affine.c_D
        return Affine(None if A_DU is None else column * A_DU, None if c_D is None else factor * c_D)

    @property
    def needs_mask(self) -> bool:
        """Whether the result depends on which tokens are real, and on how many stand in the KV cache."""
        pooled = self.parts.scaling.dynamic is not None and not self.parts.scaling.per_token(self.site.causal)
        return pooled or self.parts.tokens is not None

    @property
    def identity_at_start(self) -> bool:
        """Whether h' = h before training."""
        rule, function = self.parts.rule, self.parts.function
        if isinstance(rule, Replace):
            return self.parts.form == "sequential" and self.parts.scaling == Constant() and function.starts_at_identity
        return rule.keeps_h and (function.starts_at_zero or self.parts.scaling.start_from() == 0)

    def bake(self) -> None:
        """Make one ordinary function of the bank and of a reparametrisation, in place, where there is one."""
        if self.parts.mixture is not None and not self.parts.mixture.bakes:
            return
        function, like = self.parts.function.plain(), self._like()
        assert like is not None
        plain = Bank(function.slots(self.widths), "zeros", None, like.dtype, like.device, self.bank.frozen())
        values = baked(self.reduced())
        for key in plain.slot_of:
            plain.put(key, values[key])
        self.bank = plain
        if function is not self.parts.function:
            self.shared = None
        self.parts = replace(self.parts, function=function, mixture=None)
