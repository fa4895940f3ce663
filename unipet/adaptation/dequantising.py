"""Linear layers that bitsandbytes stores in 8 or 4 bits, as ordinary ones with the weights that they compute with."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

_KINDS = ("Linear8bitLt", "Linear4bit")


@torch.no_grad()
def dequantise(model: Any) -> list[str]:
    """Give every quantised linear layer of `model`, in place, the float32 weights that it stands for. Returns their paths.

    What was trained on the quantised model was trained on these weights: folding into them changes the outputs by no more than
    the rounding of the layers' own computation (that of 8-bit layers rounds their inputs to 8 bits, too).
    """
    found = []
    for path, module in model.named_modules():
        if type(module).__name__ in _KINDS:
            weight = _weight(module)
            module.__class__ = nn.Linear  # in place, as insertions and hooks hold the module itself
            module.weight = nn.Parameter(weight, requires_grad=False)
            if module.bias is not None:
                module.bias = nn.Parameter(module.bias.detach().float(), requires_grad=False)
            found.append(path)
    for key in ("quantization_config", "_pre_quantization_dtype"):
        if hasattr(model.config, key):
            delattr(model.config, key)
    model.is_quantized, model.hf_quantizer, model.quantization_method = False, None, None
    return found


def _weight(module: Any) -> Tensor:
    """(out, in), float32."""
    weight: Any = module.weight
    state = getattr(weight, "quant_state", None)
    if state is not None:
        import bitsandbytes.functional

        values: Tensor = bitsandbytes.functional.dequantize_4bit(weight.data, state)
        return values.float()
    scale: Tensor = weight.SCB if module.state.SCB is None else module.state.SCB  # there after a first pass
    return weight.data.float() * scale.float().unsqueeze(1) / 127
