"""Stand-ins for linear layers whose weights are quantised: what such a layer allocates, by operators that need no storage.

The kernels of bitsandbytes read the values of their weights, which a model without storage does not have.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn


def stand_in(empty: nn.Module, model: nn.Module) -> None:
    """Replace the layers of `empty`, a copy of `model` on the meta device, that bitsandbytes quantised in `model`."""
    for name, module in list(model.named_modules()):
        if type(module).__name__ in _KINDS:
            parent, _, leaf = name.rpartition(".")
            setattr(empty.get_submodule(parent), leaf, _StandIn(module, empty.get_submodule(name)))


class _StandIn(nn.Module):
    """y_BTD = x_BTI W' + b, where W is stored in 8 or 4 bits, and made again for the backward pass alone.

    Both passes of the 4-bit layer compute in `compute`; the 8-bit one keeps its input, and quantises it.
    """

    def __init__(self, real: Any, empty: Any):
        super().__init__()
        self.in_features, self.out_features = real.in_features, real.out_features
        self.weight, self.bias = empty.weight, empty.bias
        self.compute, self.quantises_input = _KINDS[type(real).__name__](real), not hasattr(real, "compute_dtype")
        self.register_buffer("scales", torch.empty(_scale_bytes(real), dtype=torch.uint8, device="meta"))

    def forward(self, x: Tensor) -> Tensor:
        inner = x if self.compute is None else x.to(self.compute)
        y: Tensor = _Product.apply(inner, self.weight, self.out_features, self.quantises_input)
        return (y if self.bias is None else y.add_(self.bias)).to(x.dtype)


class _Product(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, stored: Tensor, out: int, quantises_input: bool) -> Tensor:
        ctx.save_for_backward(stored, *([x] if quantises_input else []))
        ctx.shape = out, x.shape[-1]
        if quantises_input:
            _codes = x.to(torch.float16).to(torch.int8)
        else:
            _whole = x.new_empty(ctx.shape)
        return x.new_empty((*x.shape[:-1], out))

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Any:
        return gradient @ gradient.new_empty(ctx.shape), None, None, None


def _scale_bytes(real: Any) -> int:
    """The bytes of the scales, which are no parameters."""
    state = getattr(real.weight, "quant_state", None)
    if state is None:
        return 4 * int(real.out_features)
    inner = getattr(state, "state2", None)
    return int(state.absmax.nbytes + (0 if inner is None else inner.absmax.nbytes + inner.code.nbytes))


_KINDS: dict[str, Any] = {"Linear4bit": lambda real: real.compute_dtype, "Linear8bitLt": lambda real: None}
