"""What the tests of the calculus share: a method of one insertion, on a tiny model, with random tensors."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

import unipet
from tests.support.tiny import TINY, tiny_batch
from unipet.adaptation.adapted import adaptation
from unipet.calculus.insertion import Insertion


def method(**insertion: Any) -> dict[str, Any]:
    """A method of one insertion called `one`."""
    return {
        "name": "test",
        "insertions": {"one": {"function": "low_rank", "position": {"site": "attn.q"}, **insertion}},
    }


def adapted(spec: dict[str, Any], arch: str = "bert", seed: int = 0, **options: Any) -> nn.Module:
    model = TINY[arch](head=False, **options)
    unipet.adapt(model, spec)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in unipet.parameters(model).values():
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.5)
    return model


def only(model: nn.Module) -> Insertion:
    return adaptation(model).items[0]


def output(model: nn.Module, batch: dict[str, Tensor] | None = None) -> Tensor:
    with torch.no_grad():
        return model(**(batch or tiny_batch())).last_hidden_state
