"""Parts of a fused projection (GPT-2's query, key, value) as peft has them: one adapter of the whole projection.

Low-rank maps of n parts are one of n times the rank, whose `up` is zero in the rows of the other parts.

Shapes: D out width of the whole projection, R rank of one part.
"""

from __future__ import annotations

from math import sqrt
from typing import Any

import torch
from torch import Tensor, nn

from unipet.adaptation.peft.form import Form, whole
from unipet.calculus.insertion import Insertion
from unipet.calculus.weights import BaseWeight, out_width, rows


def config(form: Form, parts: list[Insertion]) -> dict[str, Any]:
    """The options of the whole: with n times the rank, s stays if α is n times as large (√n times for α/√r)."""
    given, count = form.config(parts[0]), len(parts)
    if "r" not in given:
        return given
    ratio = sqrt(count) if given["use_rslora"] else count
    return {**given, "r": given["r"] * count, "lora_alpha": whole(given["lora_alpha"] * ratio)}


def tensors(form: Form, parts: list[Insertion], module: nn.Module) -> dict[str, Tensor]:
    """The tensors of the whole, by peft's suffix."""
    width, found = out_width(module), dict[str, Tensor]()
    assert width is not None
    each = [form.tensors(part) for part in parts]
    for suffix, first in each[0].items():
        if suffix == "lora_A.weight":
            found[suffix] = torch.cat([own[suffix] for own in each])
            continue
        size = first.shape[1] if first.dim() == 2 else 0
        wide = first.new_zeros(width, size * len(parts)) if suffix == "lora_B.weight" else first.new_ones(width, size)
        if suffix == "lora_magnitude_vector":  # a part without a map keeps its rows' norms
            wide = BaseWeight(module, None).weight().to(first.dtype).norm(dim=1)
        elif not size:
            wide = first.new_zeros(width)
        for number, (part, own) in enumerate(zip(parts, each, strict=True)):
            assert part.site.part is not None
            at = rows(part.site.part, width, first.device)
            if suffix == "lora_B.weight":
                wide[at, number * size : (number + 1) * size] = own[suffix]
            else:
                wide[at] = own[suffix]
        found[suffix] = wide
    return found
