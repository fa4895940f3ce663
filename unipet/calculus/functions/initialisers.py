"""How the tensors of a slot start. A scheme says what to do with each part: `in`, `out`, `bias`, `table`."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn


def _zeros(tensor: Tensor) -> None:
    tensor.zero_()


def _ones(tensor: Tensor) -> None:
    tensor.fill_(1.0)


def _normal_002(tensor: Tensor) -> None:
    tensor.normal_(0.0, 0.02)


def _normal_1(tensor: Tensor) -> None:
    tensor.normal_(0.0, 1.0)


def _truncated_001(tensor: Tensor) -> None:
    nn.init.trunc_normal_(tensor, 0.0, 0.01, -0.02, 0.02)


def _kaiming(tensor: Tensor) -> None:
    nn.init.kaiming_uniform_(tensor, a=math.sqrt(5))


def _normal_01(tensor: Tensor) -> None:
    tensor.normal_(0.0, 0.1)


def _normal_001(tensor: Tensor) -> None:
    tensor.normal_(0.0, 0.01)


def _uniform_002(tensor: Tensor) -> None:
    tensor.uniform_(-0.02, 0.02)


def _glorot(tensor: Tensor) -> None:
    """Of each matrix in a stack of them."""
    bound = math.sqrt(6 / (tensor.shape[-2] + tensor.shape[-1]))
    tensor.uniform_(-bound, bound)


Scheme = dict[str, Callable[[Tensor], None]]

#: `lora`: Hu et al. 2022 (Kaiming-uniform in, zero out: Δ = 0).  `bert`: N(0, 0.02), as He et al.'s code.
#: `houlsby`: Houlsby et al. 2019, N(0, 0.01) cut at two standard deviations.  `torch`: nn.Linear's and nn.Embedding's own.
SCHEMES: dict[str, Scheme] = {
    "lora": {"in": _kaiming, "out": _zeros, "bias": _zeros, "table": _normal_002},
    "bert": {"in": _normal_002, "out": _normal_002, "bias": _zeros, "table": _normal_002},
    "houlsby": {"in": _truncated_001, "out": _truncated_001, "bias": _zeros, "table": _truncated_001},
    "torch": {"in": _kaiming, "out": _kaiming, "bias": _zeros, "table": _normal_1},
    "zeros": {"in": _kaiming, "out": _zeros, "bias": _zeros, "table": _zeros},
    "ones": {"in": _kaiming, "out": _ones, "bias": _ones, "table": _ones},
}


def starts_output_at_zero(scheme: str) -> bool:
    """Whether the last matrix starts at zero, and with it all that the function yields."""
    return scheme in SCHEMES and SCHEMES[scheme]["out"] is _zeros


#: What a tensor may start with whatever its scheme.
INITIALISERS: dict[str, Callable[[Tensor], None]] = {
    "zeros": _zeros,
    "ones": _ones,
    "normal": _normal_1,
    "normal_002": _normal_002,
    "normal_01": _normal_01,
    "normal_001": _normal_001,
    "uniform_002": _uniform_002,
    "glorot": _glorot,
    "kaiming": _kaiming,
}


@torch.no_grad()
def initialise(tensor: Tensor, scheme: str, part: str, start: str | None = None) -> None:
    """Start one tensor in place: with INITIALISERS[start] where given, else by the scheme's rule for its part."""
    (SCHEMES[scheme][part] if start is None else INITIALISERS[start])(tensor)
