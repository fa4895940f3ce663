"""The models that distillation learns from, beside the one that trains."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import nn


def put_beside(teachers: Mapping[str, nn.Module], model: nn.Module, device: torch.device) -> None:
    """Make teachers ready to answer on `device`: nothing in them trains, and they use the storage of every equal tensor that
    is frozen in the adapted `model`, so that they take little memory of their own."""
    frozen = {name: each for name, each in model.named_parameters() if not each.requires_grad}
    for teacher in teachers.values():
        teacher.to(device)
        teacher.eval()
        for name, parameter in teacher.named_parameters():
            parameter.requires_grad_(False)
            same = frozen.get(name)
            if same is not None and same.dtype == parameter.dtype and torch.equal(same, parameter):
                parameter.data = same.data
