"""The reference of attention with prefixes: He et al.'s gated sum per head, from recorded queries, keys and values."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import unipet
from unipet.adaptation.attention import Attention


def gated(h_BHTE: Tensor, delta_BHTE: Tensor, mass_h_BHT: Tensor, mass_delta_BHT: Tensor) -> Tensor:
    """(1-λ)h + λΔ with λ the share of Δ's softmax mass, both given as logarithms (He et al. 2022, eq. 7-10)."""
    share_BHT1 = torch.sigmoid(mass_delta_BHT - mass_h_BHT).unsqueeze(-1)
    return (1 - share_BHT1) * h_BHTE + share_BHT1 * delta_BHTE


@dataclass
class Record:
    """One call of a registered attention function."""

    module: Any
    q_BHTE: Tensor
    k_BGSE: Tensor
    v_BGSE: Tensor
    mask: Tensor | None
    kwargs: dict[str, Any]
    x_BTU: Tensor | None  # where an insertion reads it
    h_BTHE: Tensor


@contextmanager
def recorded(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Record]]:
    """Every call that transformers makes of an attention function of ours, while inside."""
    calls: list[Record] = []
    original = Attention.__call__

    def spy(self: Attention, module: nn.Module, q: Tensor, k: Tensor, v: Tensor, mask: Any, **kwargs: Any) -> Any:
        site = module._unipet_heads
        x = next((each.clone() for each in site.x.values()), None)  # type: ignore[union-attr,operator]
        out = original(self, module, q, k, v, mask, **kwargs)
        calls.append(Record(module, q, k, v, mask, kwargs, x, out[0]))
        return out

    with monkeypatch.context() as patch:
        patch.setattr(Attention, "__call__", spy)
        yield calls


def own_tensors(model: nn.Module, name: str, module: Any) -> dict[str, Tensor]:
    """An insertion's tensors at one attention module, by slot."""
    path = next(path for path, other in model.named_modules() if other is module)
    start = f"{name}/{path}/"
    return {key[len(start) :]: value for key, value in unipet.parameters(model).items() if key.startswith(start)}


def scale_of(
    scaling: Any, tensors: dict[str, Tensor], x_BTU: Tensor | None, real_BT: Tensor, causal: bool
) -> Tensor | float:
    """s by hand: a number, or the gate of UniPELT, for each token or averaged over the real ones."""
    if scaling != "input_gate":
        return float(scaling)
    assert x_BTU is not None
    gate_BT1 = torch.sigmoid(x_BTU @ tensors["gate.weight"].T + tensors["gate.bias"])
    if causal:
        return gate_BT1[:, None]
    real_BT1 = real_BT[..., None].float()
    return ((gate_BT1 * real_BT1).sum(1, keepdim=True) / real_BT1.sum(1, keepdim=True))[:, None]


def visible_to(call: Record, real_BS: Tensor) -> Tensor:
    """Which keys each query sees, (B, 1, T, S): real ones, none that come later, none outside a sliding window."""
    queries, keys = call.q_BHTE.shape[2], call.k_BGSE.shape[2]
    distance = torch.arange(queries)[:, None] - torch.arange(keys)
    seen = distance >= 0 if call.module.is_causal else torch.ones(queries, keys, dtype=torch.bool)
    if (window := call.kwargs.get("sliding_window")) is not None:
        seen = seen & (distance.abs() < window)
    return real_BS[:, None, None] & seen


#: A prefix of the reference: its tensors, s, whether s scales the keys, too, and the queries that see it (B, T).
PrefixOf = tuple[dict[str, Tensor], Tensor | float, bool, Tensor | None]


def reference(call: Record, prefixes: list[PrefixOf], visible: Tensor) -> Tensor:
    """h (B, T, H, E): a softmax over the visible keys, then one gated sum per prefix."""
    heads, groups = call.q_BHTE.shape[1], call.k_BGSE.shape[1]
    cap, factor = call.kwargs.get("softcap"), call.kwargs["scaling"]

    def logits_of(q: Tensor, k: Tensor) -> Tensor:
        found = q @ k.transpose(-1, -2) * factor
        return torch.tanh(found / cap) * cap if cap else found

    k, v = (tensor.repeat_interleave(heads // groups, dim=1) for tensor in (call.k_BGSE, call.v_BGSE))
    logits = logits_of(call.q_BHTE, k) + (call.kwargs.get("position_bias") if "position_bias" in call.kwargs else 0.0)
    logits = logits.masked_fill(~visible, -torch.inf)
    h, mass = logits.softmax(-1) @ v, logits.logsumexp(-1)
    for tensors, s, keys_too, chosen_BT in prefixes:
        size, width = len(tensors["keys"]), call.q_BHTE.shape[-1]
        k_H, v_H = (
            tensors[slot].view(size, groups, width).transpose(0, 1).repeat_interleave(heads // groups, dim=0)
            for slot in ("keys", "values")
        )
        own = logits_of(call.q_BHTE * s if keys_too else call.q_BHTE, k_H)
        if chosen_BT is not None:
            own = own.masked_fill(~chosen_BT[:, None, :, None], -1e30)
        delta = s * (own.softmax(-1) @ v_H)
        own_mass = own.logsumexp(-1)
        h, mass = gated(h, delta, mass, own_mass), torch.logaddexp(mass, own_mass)
    return h.transpose(1, 2)
