"""The load of a learned router's experts.

Shapes: N what took a route, M experts.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from unipet.calculus.objectives.regulariser import HEAVIEST, OfRouting
from unipet.calculus.options import option
from unipet.calculus.router_use import RouterUse
from unipet.errors import UnipetError


@dataclass(frozen=True)
class Balance(OfRouting):
    """M · Σ f_e · P_e for each learned router, the mean over routers (Fedus et al. 2022, Switch Transformer eq. 4-6).

    f_e is the share of choices that fell on expert e, P_e the mean probability that the router gave it, both over the whole
    effective batch. The value is 1 where the load is even and M where one expert takes all. `weight` is 0.01 there.
    """

    weight: float = option(0.01, low=0.0, high=HEAVIEST)

    def term(self, uses: Sequence[RouterUse], whole: Mapping[str, Tensor]) -> Tensor:
        if not uses:
            raise UnipetError(
                "method.objective: balance needs a learned router, and no insertion of this method has one. Give an "
                "insertion a mixture with a learned router, or remove balance from the objective."
            )
        terms = []
        for use in uses:
            counts = whole[use.place]
            share_M = counts[:-1] / counts[:-1].sum().clamp(min=1)
            probability_M = use.probabilities_NM.float().sum(0) / counts[-1].clamp(min=1)
            terms.append(len(share_M) * (share_M * probability_M).sum())
        return torch.stack(terms).sum() / len({use.place for use in uses})
