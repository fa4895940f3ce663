"""The same examples in other batches: padded otherwise, alone, in other company. Nothing of that may change what a model
says of a row."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from tests.support.matrix import ARCHS, close, logits


def of_dtype(dtype: torch.dtype, batch: dict[str, Tensor]) -> dict[str, Tensor]:
    """What holds numbers (an image's pixels), as `dtype`."""
    return {name: tensor.to(dtype) if tensor.is_floating_point() else tensor for name, tensor in batch.items()}


def widened(batch: dict[str, Tensor]) -> dict[str, Tensor]:
    """More padding to the right of every sequence, an encoder's and a decoder's alike."""
    return {
        name: nn.functional.pad(tensor, (0, 5 if name.startswith("decoder") else 3)) for name, tensor in batch.items()
    }


def padded_left(batch: dict[str, Tensor]) -> dict[str, Tensor]:
    """The same sequences against the right edge, with positions as `generate` counts them."""
    real = batch["attention_mask"].sum(1).tolist()
    left = {
        name: torch.stack([row.roll(len(row) - n) for row, n in zip(tensor, real, strict=True)])
        for name, tensor in batch.items()
    }
    return left | {"position_ids": (left["attention_mask"].cumsum(1) - 1).clamp(min=0)}


def alone(batch: dict[str, Tensor], row: int) -> dict[str, Tensor]:
    """One example without its company, and without padding if it is text."""
    if "input_ids" not in batch:
        return {name: tensor[row : row + 1] for name, tensor in batch.items()}

    def length(name: str) -> int:
        return int(batch["decoder_attention_mask" if name.startswith("decoder") else "attention_mask"][row].sum())

    return {name: tensor[row : row + 1, : length(name)] for name, tensor in batch.items()}


def regrouped(batch: dict[str, Tensor]) -> dict[str, Tensor]:
    """The last example before the first, without the others."""
    return {name: tensor[[-1, 0]] for name, tensor in batch.items()}


def assert_only_the_row_matters(model: Any, arch: str, attention: str) -> Tensor:
    """Not its padding, and not its company. Makes `model` float64, and returns what it says of the whole batch.

    Others did not notice: gates of adapters 1.3 average over padding, and in peft's Lily rows move one another.

    Decoders under eager attention are asked in float32: transformers' own makes NaN in float64 of a row that sees no token.
    """
    batch = ARCHS[arch].batch()
    if attention == "eager" and ARCHS[arch].kind == "decoder":
        _ask_otherwise(model, arch, batch, logits(arch, model, batch), 2e-6)
    batch = of_dtype(torch.float64, batch)
    expected = logits(arch, model.double(), batch)
    if attention != "eager" or ARCHS[arch].kind != "decoder":
        # Some eager attention (ModernBERT's) takes its softmax in float32; what is float64 throughout agrees to 1e-14.
        _ask_otherwise(model, arch, batch, expected, 1e-7 if attention == "eager" else 1e-10)
    return expected


def _ask_otherwise(model: Any, arch: str, batch: dict[str, Tensor], expected: Tensor, tolerance: float) -> None:
    """What is expected of the whole batch, padded on the right, is what the middle row alone and unpadded says, and what the
    others say in another order and padded further; a decoder says it of the batch padded on the left as well."""
    mask = batch.get("decoder_attention_mask", batch.get("attention_mask"))
    one_each = mask is None or ARCHS[arch].kind == "encoder"  # a class, not a word for each token
    first, middle, last = expected.split([1, 1, 1] if one_each else mask.sum(1).tolist())
    assert close(logits(arch, model, alone(batch, 1)), middle, tolerance), "alone"
    others = regrouped(widened(batch) if "input_ids" in batch else batch)
    assert close(logits(arch, model, others), torch.cat([last, first]), tolerance), "other padding and company"
    if ARCHS[arch].kind == "decoder":
        assert close(logits(arch, model, padded_left(batch)), expected, tolerance), "left padding"
