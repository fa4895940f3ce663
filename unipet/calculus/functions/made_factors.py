"""What functions share whose two low-rank factors are made from other tensors."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional as F

from unipet.calculus.functions.base import LinearMap, Params
from unipet.calculus.functions.product import Delta, Product


class MadeFactors(LinearMap):
    """f(u) = up · down · u, where `generate` makes `down` (r, in) and `up` (out, r) of what trains; Δ starts small."""

    dropout: float

    def product(self, u: Tensor, params: Params, training: bool) -> Delta:
        return Product(F.linear(F.dropout(u, self.dropout, training), params["down"]), params["up"])

    def matrix(self, params: Params) -> Tensor:
        return params["up"] @ params["down"]

    @property
    def starts_at_zero(self) -> bool:
        return False
