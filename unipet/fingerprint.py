"""A fingerprint of a base model: cheap at any size, the same in float32 and bfloat16, different for other weights."""

from __future__ import annotations

import hashlib
from collections.abc import Callable

import torch
from torch import Tensor, nn

from unipet.sites import head_prefix
from unipet.weights import plain_tensors

_SAMPLES = 64


@torch.no_grad()
def fingerprint(model: nn.Module, original: Callable[[str, Tensor], Tensor] = lambda name, value: value) -> str:
    """sha256 (16 hex digits) over names, shapes and 64 evenly spaced values of every base parameter, head excluded.

    `original` gives a parameter's value before training where the method unfroze it.
    """
    prefix = head_prefix(model)
    digest = hashlib.sha256()
    for name, parameter in sorted(model.named_parameters()):
        if not name.startswith(prefix) or name.startswith("_unipet."):
            continue
        values = b"".join(_sampled(plain) for plain in plain_tensors(original(name, parameter)))
        digest.update(f"{name[len(prefix) :]} {tuple(parameter.shape)} ".encode() + values)
    return digest.hexdigest()[:16]


def _sampled(tensor: Tensor) -> bytes:
    flat = tensor.flatten()
    at = torch.linspace(0, max(flat.numel() - 1, 0), min(_SAMPLES, flat.numel()), device=flat.device).long()
    return flat[at].to("cpu", torch.bfloat16).view(torch.int16).numpy().tobytes()
