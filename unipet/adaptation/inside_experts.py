"""The forward pass of a module of routed experts, with insertions inside of its experts.

Each expert computes y = W_down (act(W_gate x) ⊙ W_up x) of the tokens that chose it, as transformers' own `eager` experts do, in
the same order; where an insertion stands, h is what the expert computed there, and x what the projection read.

Shapes: S tokens of the batch, K experts chosen by each, N tokens of one expert, D width of the stream, I width inside.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensor
from torch.nn import functional as F

from unipet.calculus.insertion import Insertion
from unipet.calculus.sites.experts import experts_in
from unipet.errors import UnipetError


def chosen(index_SK: Tensor, count: int) -> Iterator[tuple[int, Tensor, Tensor]]:
    """Each expert that some token chose, in order, with the places among the K and the tokens that chose it.

    In a step that is only measured nothing is chosen, and each expert takes the same number of tokens.
    """
    if isinstance(index_SK, FakeTensor):
        share = -(-index_SK.numel() // count)
        for expert in range(count):
            yield expert, index_SK.new_zeros(share), index_SK.new_zeros(share)
        return
    for expert in index_SK.unique().tolist():
        if expert < count:  # the number after the last marks a token that no expert takes
            place_N, token_N = torch.where(expert == index_SK.T)
            yield expert, place_N, token_N


class InsideExperts:
    """What one module of experts computes with, while insertions are in its experts."""

    def __init__(self, module: nn.Module, path: str) -> None:
        self.module: Any = module
        self.path = path
        self._insertions: dict[tuple[int, str], list[Insertion]] = {}

    def add(self, insertion: Insertion) -> None:
        """One more, behind those that stand at the same place of the same expert."""
        site = insertion.site
        assert site.expert is not None
        self._insertions.setdefault((site.expert, site.at), []).append(insertion)

    def put_in(self) -> None:
        """Let the module compute with them. Raises UnipetError where those of another adaptation are in it."""
        if "forward" in vars(self.module):
            raise UnipetError(
                f"{self.path}: something else computes inside of these experts already. Take it out first, "
                "for example unipet.eject(model)."
            )
        self.module.forward = self.forward

    def remove(self) -> None:
        """Give the module its own forward pass back."""
        if "forward" in vars(self.module):
            del self.module.forward

    def forward(self, hidden_states: Tensor, top_k_index: Tensor, top_k_weights: Tensor) -> Tensor:
        """The sum of the chosen experts' outputs (S, D), each times its weight in `top_k_weights` (S, K)."""
        own, x_SD = self.module, hidden_states
        out_SD, count = torch.zeros_like(x_SD), experts_in(self.module)
        for expert, place_N, token_N in chosen(top_k_index, count):
            x_ND = x_SD[token_N]
            gate_NI, up_NI = F.linear(x_ND, own.gate_up_proj[expert]).chunk(2, dim=-1)
            gate_NI = self._changed(expert, "expert.gate", gate_NI, x_ND)
            up_NI = self._changed(expert, "expert.up", up_NI, x_ND)
            mid_NI = own.act_fn(gate_NI) * up_NI
            mid_NI = self._changed(expert, "expert.mid", mid_NI, mid_NI)
            y_ND = self._changed(expert, "expert.down", F.linear(mid_NI, own.down_proj[expert]), mid_NI)
            y_ND = y_ND * top_k_weights[token_N, place_N, None]
            out_SD.index_add_(0, token_N, y_ND.to(out_SD.dtype))
        return out_SD

    def _changed(self, expert: int, at: str, h_N: Tensor, x_N: Tensor) -> Tensor:
        """h' of the tokens of one expert, which stand as one row of a batch."""
        for insertion in self._insertions.get((expert, at), ()):
            h_N = insertion(h_N.unsqueeze(0), x_N.unsqueeze(0)).squeeze(0)
        return h_N
