"""Linear layers that bitsandbytes stores in 8 or 4 bits, as ordinary ones with the weights that they compute with."""

from __future__ import annotations

import torch
from torch import nn

from unipet.calculus.weights import quantised

_KINDS = ("Linear8bitLt", "Linear4bit")


@torch.no_grad()
def dequantise(model: nn.Module) -> list[str]:
    """Give every quantised linear layer of `model`, in place, the float32 weights that it stands for. Returns their paths.

    What was trained on the quantised model was trained on these weights: folding into them changes the outputs by no more than
    the rounding of the layers' own computation (that of 8-bit layers rounds their inputs to 8 bits, too).
    """
    found = []
    for path, module in model.named_modules():
        if type(module).__name__ in _KINDS and quantised(module.weight):  # type: ignore[arg-type]
            weight = _weight(module)
            bias = getattr(module, "bias", None)
            module.__class__ = nn.Linear  # in place, as insertions and hooks hold the module itself
            module.weight = nn.Parameter(weight, requires_grad=False)
            if bias is not None:
                module.bias = nn.Parameter(bias.detach().float(), requires_grad=False)
            found.append(path)
    return found


def _weight(module: nn.Module) -> torch.Tensor:
    """(out, in), float32."""
    import bitsandbytes.functional as functional

    weight = module.weight
    state = getattr(weight, "quant_state", None)
    if state is not None:
        return functional.dequantize_4bit(weight.data, state).float()  # type: ignore[no-any-return]
    held = module.state  # after a first pass the scales are here
    scale = held.SCB if held.SCB is not None else weight.SCB  # type: ignore[union-attr]
    return weight.data.float() * scale.float().unsqueeze(1) / 127  # type: ignore[union-attr,operator]
