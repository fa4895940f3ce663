"""Regularisers of what a method learns, whatever the batch."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import combinations

import torch
from torch import Tensor
from torch.nn import functional as F

from unipet.calculus.objectives.regulariser import HEAVIEST, OfWeights, Weights
from unipet.calculus.options import option
from unipet.errors import UnipetError


@dataclass(frozen=True)
class Orthogonality(OfWeights):
    """Directions that differ.

    `between: rows` asks of every matrix of the slots that its rows (its columns, where there are fewer) be orthonormal:
    ‖WWᵀ - I‖²_F, the mean over all matrices (Zhang et al. 2023, AdaLoRA eq. 4). `between: experts` asks of the experts of
    every mixed tensor that they be orthogonal: their squared cosine, the mean over all pairs of one shape. `slots` names the
    slots that take part, [] all.
    """

    between: str = option("rows", choices=("rows", "experts"))
    slots: list[str] = option([])

    def term(self, weights: Weights) -> Tensor:
        chosen = [copies for slot, copies in weights.slots if not self.slots or slot in self.slots]
        if self.between == "experts":
            pairs = [pair for copies in chosen for pair in combinations(copies, 2)]
            terms = [_cosine(a, b) ** 2 for a, b in pairs if a.shape == b.shape]
            lacking = "a slot with several experts of one shape; give an insertion a mixture that does not share it"
        else:
            terms = [_from_orthonormal(tensor) for copies in chosen for tensor in copies if tensor.dim() == 2]
            lacking = "a slot that holds a matrix"
        if not terms:
            named = f" among {', '.join(self.slots)}" if self.slots else ""
            has = ", ".join(dict.fromkeys(slot for slot, _ in weights.slots)) or "no slots"
            raise UnipetError(
                f"method.objective: orthogonality between {self.between} needs {lacking}{named} (this method has {has})."
            )
        return torch.stack(terms).mean()


@dataclass(frozen=True)
class L2ToInit(OfWeights):
    """‖θ - θ₀‖², the sum over everything that the method trains, θ₀ being its values before training (L2-SP, Li et al. 2018:
    weight is α/2). The new output layer of a task takes part only with `head`."""

    weight: float = option(0.01, low=0.0, high=HEAVIEST)
    head: bool = option(False)

    def term(self, weights: Weights) -> Tensor:
        held = {**weights.learned, **(weights.head if self.head else {})}
        terms = [(tensor.float() - weights.start[name]).square().sum() for name, tensor in held.items()]
        if not terms:
            raise UnipetError(
                "method.objective: l2_to_init needs something that trains besides the head; set head=true."
            )
        return torch.stack(terms).sum()


def _from_orthonormal(W: Tensor) -> Tensor:
    narrow = W.float() if W.shape[0] <= W.shape[1] else W.float().T
    gram = narrow @ narrow.T
    return (gram - torch.eye(len(gram), device=gram.device)).square().sum()


def _cosine(a: Tensor, b: Tensor) -> Tensor:
    """0, with gradient 0, while one of them is zero."""
    return F.cosine_similarity(a.float().flatten(), b.float().flatten(), dim=0)
