"""The gate of a learned router: a probability of every expert for each token, or for each sequence.

Shapes: B batch, T positions (1 for a whole sequence), U width of the function's input, M experts.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from unipet.calculus.mixture.choices import Mixture
from unipet.calculus.mixture.counter import normal, places


@dataclass(frozen=True)
class Gated:
    """What a gate says of one pass: the weight of every expert (0 for those not chosen), its probability, whether it was chosen
    (1 or 0), and which of the tokens or sequences are real."""

    weights_BTM: Tensor
    probabilities_BTM: Tensor
    chosen_BTM: Tensor
    real_BT: Tensor


def gate(mixture: Mixture, weight_MU: Tensor, u_BTU: Tensor, real_BT: Tensor, bits_BT: Tensor | None) -> Gated:
    """The gate of `mixture` at one site. `bits_BT` (B, 1 for sequences) are the random numbers of
    the noise, in training. Mixture says what is computed."""
    counted_BT = real_BT
    if mixture.pool == "sequence":
        real_BT1 = real_BT.unsqueeze(-1).to(u_BTU.dtype)
        u_BTU = (u_BTU * real_BT1).sum(1, keepdim=True) / real_BT1.sum(1, keepdim=True).clamp(min=1)
        counted_BT = torch.ones_like(real_BT[:, :1])
    logits_BTM = F.linear(u_BTU, weight_MU).float()
    if mixture.noise > 0 and bits_BT is not None:
        experts_M = torch.arange(mixture.experts, device=bits_BT.device)
        logits_BTM = logits_BTM + mixture.noise * normal(places(bits_BT.unsqueeze(-1), experts_M))
    p_BTM = logits_BTM.softmax(-1)
    chosen_BTM = torch.zeros_like(p_BTM).scatter(-1, p_BTM.topk(mixture.top_k, dim=-1).indices, 1.0)
    weights_BTM = p_BTM * chosen_BTM
    if mixture.top_k > 1:
        weights_BTM = weights_BTM / weights_BTM.sum(-1, keepdim=True)
    return Gated(weights_BTM, p_BTM, chosen_BTM, counted_BT)
