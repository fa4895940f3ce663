"""The equation: h' = compose(h, s · f(u)) at one site. The one place where the dimensions meet.

Shapes: B batch, T positions, D width of h, U width of x.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from functools import reduce
from typing import Any

import torch
from torch import Tensor

from unipet.calculus.composition import Weights, column
from unipet.calculus.direct import Direct, direct, watched
from unipet.calculus.functions.base import Affine, Function, Heads, LinearMap, Params
from unipet.calculus.functions.beginnings import BeginsLinearly, both
from unipet.calculus.functions.product import Delta, scaled, stacked, value
from unipet.calculus.insertion_parts import rows_of, split_views
from unipet.calculus.read_once import ReadOnce
from unipet.calculus.routed_insertion import RoutedInsertion
from unipet.calculus.scaling import Tokens

_AS_EVER = nullcontext[None]()  # inside, random numbers are drawn as ever


class Insertion(RoutedInsertion):
    """One function at one site, with its composition, scaling and bank of tensors, in one forward pass after another."""

    def forward(self, h: Tensor, x: Tensor | None, heads: Heads | None = None) -> Tensor:
        """h' from h and x (heads: the queries, at a site inside attention)."""
        factor, delta = self._at_once(h, x, heads) or (self.factor(h, x), self._delta(h, x, heads))
        joined = self.parts.composition.join(h, scaled(delta, factor), *self._made(x, factor))
        chosen_BT = self.chosen(h)
        return joined if chosen_BT is None else torch.where(chosen_BT.unsqueeze(-1), joined, h)

    @property
    def direct(self) -> Direct | None:
        """The same h' with fewer look-ups, or None where this call needs them: in training, with a mixture or a gate, for some
        rows or tokens alone, or where somebody's hooks wait for it."""
        # As `watched`, without the call, which every site of every generated token would make.
        hooked = self._forward_hooks or self._forward_pre_hooks or self._backward_hooks or self._backward_pre_hooks
        if hooked or self.training or self.current.context.own is not None or torch.compiler.is_compiling():
            return None
        if not self._looked:
            self._direct, self._looked = direct(self), True
        return self._direct

    @property
    def in_place(self) -> bool:
        """Whether one `beside_linear` is joined to h, of all rows, in the memory of h."""
        return self.parts.composition.in_place and self.context.own is None and not watched(self)

    def addend(self, x: Tensor, read: ReadOnce | None) -> tuple[Delta, Params]:
        """s · f(x), and what the composition makes of tensors. `read`: with others."""
        begun = None if read is None else read.delta(self, x)
        found = self._at_once(x, x, None) if begun is None else (self._scaled(), begun)  # x has the rows of h
        factor, delta = found or (self.factor(x, x), self._delta(x, x, None))
        return scaled(delta, factor), self._made(x, factor)[0]

    def _made(self, x: Tensor | None, factor: Tensor | float) -> tuple[Params, Weights | None]:
        composition = self.parts.composition
        at = self.base_at(self.cast(x), factor, self.params()) if composition.needs_weight else None
        return composition.made(self.joint.reduced(), at), at

    def factor(self, h: Tensor | None, x: Tensor | None) -> Tensor | float:
        """s for this call."""
        if self.parts.scaling.dynamic is None:
            return 1.0 if self.bank.differ else self._scaled()  # experts of their own sizes are scaled one by one
        assert h is not None
        return self._scaled(self._u(h, x), self._tokens_of(h))

    def _u(self, h: Tensor, x: Tensor | None) -> Any:
        """What f and a gate read."""
        return self.cast(h if self.parts.form == "sequential" else x)

    def _tokens_of(self, h: Tensor) -> Tokens:
        return self.context.tokens(self.site.tokens_of, h, self.site.causal, self._where)

    def _scaled(
        self, u: Tensor | None = None, tokens: Tokens | None = None, function: Function | None = None
    ) -> Tensor | float:
        size = getattr(function or self.parts.evaluated, "size", None)
        return self.parts.scaling.factor(self.scale.reduced(), size, u, tokens)

    def _at_once(self, h: Tensor, x: Tensor | None, heads: Heads | None) -> tuple[Tensor | float, Delta] | None:
        """s and Δ where both begin with a linear map of u: one product, of both maps, reads u, where two would read it and
        give it two gradients. None where the maps are none or mixed."""
        parts, function = self.parts, self.parts.evaluated
        read = None if parts.scaling.dynamic is None else parts.scaling.reads(self.scale.reduced())
        if read is None or parts.mixture is not None or not isinstance(function, BeginsLinearly):
            return None
        (_, params), u = self.taken({}), self._u(h, x)
        first = function.first(params, self.training) if function.in_two_steps else None
        with self.draws:
            if first is None:
                return self.factor(h, x), self._output(function, params, heads, u)
            z, z_BT1 = both(u, first, read)
            delta = function.rest(z, params, self.training)
        return parts.scaling.of_read(getattr(function, "size", None), z_BT1, self._tokens_of(h)), delta

    def _delta(self, h: Tensor, x: Tensor | None, heads: Heads | None) -> Delta:
        if self.parts.mixture is None:
            u = None if self.parts.function.reads == "nothing" else self._u(h, x)
            with self.draws:
                return self._output(*self.taken({}), heads, u)
        u, views = self._u(h, x), self.views
        if views == 1:
            return self._mixed(heads, 0, h, u)
        chunks = zip(split_views(heads, views), h.chunk(views), split_views(u, views), strict=True)
        each = [self._mixed(own, view, h_, u_) for view, (own, h_, u_) in enumerate(chunks)]
        if (together := stacked(each)) is not None:
            return together
        return torch.cat([rows_of(value(delta), h.shape[0] // views, h) for delta in each])

    @property
    def draws(self) -> AbstractContextManager[None]:
        """Inside, what it draws in training comes from the random stream of its rows, where these have one."""
        own = self.context.own
        return own.draws if self.training and own is not None else _AS_EVER

    def _output(self, function: Function, params: Params, heads: Any, u: Any) -> Delta:
        """Δ of one function, scaled where each expert has its own scaling."""
        source = heads if function.reads == "heads" else None if function.reads == "nothing" else u
        delta = function.unjoined(source, params, self.training)
        if self.bank.differ and self.parts.scaling.dynamic is None:
            return scaled(delta, self._scaled(function=function))
        return delta

    def _mixed(self, heads: Any, view: int, h: Tensor, u: Any) -> Delta:
        """Δ of one view: of one expert per slot, of several where rows or tokens differ, or of all their outputs."""
        if self.averages_outputs:
            with self.draws:
                every = [value(self._output(function, params, heads, u)) for function, params in self.experts()]
            return self.bank.weighed(torch.stack(torch.broadcast_tensors(*every)))  # type: ignore[no-untyped-call]  # or without input
        delta: Delta | None = None
        for route, rows in self.chosen_parts(view, h, u):
            with self.draws:
                one = self._output(*self.taken(route), heads, u)
            if rows is None:
                delta = one
                continue
            its_B11, one = rows.view(*rows.shape, *[1] * (3 - rows.dim())), value(one)
            if rows.is_floating_point():
                delta = its_B11 * one if delta is None else value(delta) + its_B11 * one
            else:
                delta = one if delta is None else torch.where(its_B11.to(one.device), one, value(delta))
        assert delta is not None
        return delta

    @property
    def beside_linear(self) -> bool:
        """Whether f is a linear map beside the one that yields h, for all tokens."""
        parts = self.parts
        joins = parts.composition.changes_weight or parts.composition.in_place
        linear = isinstance(parts.function, LinearMap) and joins and parts.tokens is None
        return linear and parts.form == "parallel" and self.site.at == "output" and self.site.part is None

    @property
    def joins_weight(self) -> bool:
        """Whether f's matrix can be joined to the weight of the linear map that yields h, all rows alike."""
        parts = self.parts
        return (
            self.beside_linear and parts.composition.changes_weight and not parts.scaling.dynamic and not parts.mixture
        )

    @property
    def joins_linearly(self) -> bool:
        """Whether the weight with f's matrix joined to it is linear in what trains: its gradients need no matrix."""
        parts = self.parts
        linear = isinstance(parts.function, LinearMap) and parts.function.linear_in_tensors
        return linear and not parts.composition.of_weight and not self.scale.slot_of

    def joined_weight(self, W_DU: Tensor, x: Tensor) -> Callable[[], Tensor] | None:
        """What makes the weight W with f's matrix joined to it, in this pass and when the backward pass makes it again; None
        where f(x) by itself is cheaper, or this call needs it."""
        function = self.parts.function
        assert isinstance(function, LinearMap)
        if not self.parts.composition.of_weight:
            if torch.compiler.is_compiling():  # or there would be one graph for few tokens and one for many
                return None
            tokens = x.shape[:-1].numel()
            if not function.cheaper_as_matrix(tokens, self.widths, self.training):
                return None
        like = self._like()
        assert like is not None
        mixed = not (x.dtype == W_DU.dtype == like.dtype) or torch.is_autocast_enabled(x.device.type)
        if mixed or self.context.own is not None:
            return None
        factor = self._scaled()
        return lambda: self.parts.composition.weight(W_DU, function, self.reduced(), factor)

    def params(self, view: int = 0) -> Params:
        """The tensors in use: the routed experts in training, the reduced ones otherwise."""
        mixture = self.parts.mixture
        route = None if mixture is None or mixture.grain_of(self.training) is None else self._known(view)
        return self.taken(route or {})[1]

    def chosen(self, h: Tensor) -> Tensor | None:
        """The token positions of h that `tokens` selects, (B, T); None: all."""
        if self.parts.tokens is None:
            return None
        return self.context.chosen(self.site.tokens_of, h, *self.parts.tokens, self._where)

    def base_at(self, x: Tensor | None, factor: Tensor | float, params: Params) -> Weights:
        """What the composition may read of this linear site."""
        assert self.base is not None
        function, bias = self.parts.evaluated, self.base.bias()
        matrix = function.matrix(params) if isinstance(function, LinearMap) else None
        weight = self.weight()
        return Weights(x, weight, None if bias is None else bias.to(weight.dtype), matrix, factor)

    @torch.no_grad()
    def fold(self, W: Tensor, b: Tensor, affine: Affine) -> tuple[Tensor, Tensor]:
        """The linear map (W, b), in float64, with this insertion joined to it. `affine` is s·f as a map of the same input."""
        at = (
            self.base_at(None, self._scaled(), self.reduced()).double() if self.parts.composition.needs_weight else None
        )
        own = {name: tensor.double() for name, tensor in self.joint.reduced().items()}
        return self.parts.composition.fold(W, b, affine, own, at)

    @torch.no_grad()
    def affine(self) -> Affine | None:
        """s · f as a map of its input, from the reduced tensors; None where it is not affine. The mean of outputs is that of
        the maps."""
        mixture = self.parts.mixture
        every = mixture is not None and mixture.averages_outputs
        maps = [self._affine(*own) for own in (self.experts() if every else [self.taken({})])]
        if any(one is None for one in maps):
            return None
        linear = [one.A_DU / len(maps) for one in maps if one is not None and one.A_DU is not None]
        offsets = [one.c_D / len(maps) for one in maps if one is not None and one.c_D is not None]
        return Affine(*(reduce(torch.add, each) if each else None for each in (linear, offsets)))

    def _affine(self, function: Function, params: Params) -> Affine | None:
        affine = function.affine(params)
        if affine is None:
            return None
        factor = self._scaled(function=function)
        A_DU, c_D = affine.A_DU, affine.c_D
        return Affine(None if A_DU is None else column(factor) * A_DU, None if c_D is None else factor * c_D)

    @property
    def needs_mask(self) -> bool:
        """Whether the result depends on which tokens are real, and on how many stand in the KV cache."""
        pooled = self.parts.scaling.dynamic is not None and not self.parts.scaling.per_token(self.site.causal)
        by_token = self.parts.mixture is not None and self.parts.mixture.by_token
        return pooled or by_token or self.parts.tokens is not None
