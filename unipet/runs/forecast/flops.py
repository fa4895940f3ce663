"""Floating-point operations of a stretch of work: of its matrix products, as PyTorch's own formulas count them."""

from __future__ import annotations

from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry, sdpa_backward_flop_count, sdpa_flop_count


class Flops(TorchDispatchMode):
    """Counts in `count` what is computed inside, a multiply and an add as two; element-wise operations are left out."""

    count = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        out = func(*args, **kwargs)
        packet = func._overloadpacket
        if (formula := flop_registry.get(packet)) is not None:
            self.count += int(formula(*args, **kwargs, out_val=out))
        elif (fused := _ON_CPU.get(packet)) is not None:  # PyTorch has no row for the CPU's fused attention
            formula, tensors = fused
            self.count += int(formula(*(each.shape for each in args[:tensors])))
        return out


_aten = torch.ops.aten
_ON_CPU: dict[Any, tuple[Any, int]] = {
    _aten._scaled_dot_product_flash_attention_for_cpu: (sdpa_flop_count, 3),
    _aten._scaled_dot_product_flash_attention_for_cpu_backward: (sdpa_backward_flop_count, 4),
}
