"""What a learned router did in one forward pass, for the terms of an objective that read it.

Shapes: N what took a route (real tokens, or examples; all views), M experts.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class RouterUse:
    """One learned router in one pass. Whoever routes appends this to `ForwardContext.uses`.

    `place` is the same in every pass and differs from that of every other router: insertion, module path and, where slots
    are routed independently, slot. `probabilities_NM` are the router's, with gradient; padding has no row. `chosen_NM` is 1
    for each expert that took part and 0 for the others, without gradient.
    """

    place: str
    probabilities_NM: Tensor
    chosen_NM: Tensor

    def counts(self) -> Tensor:
        """How often each expert was chosen, and N: (M + 1,), in float32, without gradient."""
        chosen_NM = self.chosen_NM.detach().float()
        return torch.cat([chosen_NM.sum(0), chosen_NM.new_tensor([len(chosen_NM)])])
