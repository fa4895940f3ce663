"""The precision in which forward passes compute: float32, or mixed with bfloat16 or float16 (autocast)."""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import Any

import torch

#: `precision` and `model.dtype` as torch's types.
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
#: What torch calls a processor's instructions for products of bfloat16.
_INSTRUCTIONS = ("avx512_bf16", "amx_bf16", "bf16")


def chosen_precision(precision: str) -> str:
    """The precision itself; for "auto", "bf16" where the device that trains has it natively, otherwise "fp32"."""
    if precision != "auto":
        return precision
    return "bf16" if native_bf16() else "fp32"


def native_bf16() -> bool:
    """Whether the device of runs multiplies bfloat16 itself: a GPU from compute capability 8.0, a CPU with AVX512-BF16 or
    the like. Elsewhere bfloat16 is emulated, which is slower than float32."""
    if torch.cuda.is_available():
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    capabilities: dict[str, Any] = getattr(torch.cpu, "get_capabilities", dict)()
    return any(bool(capabilities.get(name)) for name in _INSTRUCTIONS)


def autocast(device: torch.device, precision: str) -> AbstractContextManager[Any]:
    """Mixed precision for a forward pass: matrix products in the half precision that `precision` names, what needs range or
    exactness (softmax, norms, losses) in float32, by torch's own lists. No effect for "fp32"."""
    return torch.autocast(device.type, dtype=DTYPES[precision], enabled=precision != "fp32")
