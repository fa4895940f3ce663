"""What functions share whose two low-rank factors are made from other tensors."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional as F

from unipet.calculus.functions.base import Heads, LinearMap, Params


class MadeFactors(LinearMap):
    """f(u) = up · down · u, where `generate` makes `down` (r, in) and `up` (out, r) of what trains; Δ starts small."""

    dropout: float

    def delta(self, u: Tensor | Heads | None, params: Params, training: bool) -> Tensor:
        assert isinstance(u, Tensor)
        return F.linear(F.linear(F.dropout(u, self.dropout, training), params["down"]), params["up"])

    def matrix(self, params: Params) -> Tensor:
        return params["up"] @ params["down"]

    @property
    def starts_at_zero(self) -> bool:
        return False
