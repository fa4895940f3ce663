"""A model without its weights: on the meta device, or as tensors that have shapes and a device but no storage."""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode


def on_meta(model: nn.Module) -> Any:
    """A copy of `model` on the meta device. `model` itself, which may have real weights, is not changed."""
    memo: dict[int, Any] = {}
    for each in (*model.parameters(), *model.buffers()):
        memo[id(each)] = _like(each, torch.empty_like(each, device="meta"))
    return copy.deepcopy(model, memo)


def fill(model: nn.Module, mode: FakeTensorMode, device: torch.device) -> None:
    """Replace the meta tensors of `model` by fake tensors of `mode` on `device`. Tied tensors stay tied."""
    made: dict[int, Tensor] = {}
    with mode:
        for module in model.modules():
            for held in (module._parameters, module._buffers):
                for name, each in held.items():
                    if each is not None and each.device.type == "meta":
                        if id(each) not in made:
                            made[id(each)] = _like(each, torch.empty_like(each, device=device))
                        held[name] = made[id(each)]  # type: ignore[assignment]


def _like(original: Tensor, tensor: Tensor) -> Tensor:
    if isinstance(original, nn.Parameter):
        return nn.Parameter(tensor, requires_grad=original.requires_grad)
    return tensor
