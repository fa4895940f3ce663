"""Slots that hold a whole layer: a linear map, a norm."""

from __future__ import annotations

from unipet.calculus.functions.base import Slots, TensorSpec


def linear(slot: str, out_width: int, in_width: int, part: str, bias: bool = True) -> Slots:
    """One slot holding a linear map: weight (out, in) and, unless told otherwise, bias (out)."""
    tensors = {"weight": TensorSpec((out_width, in_width), part)}
    if bias:
        tensors["bias"] = TensorSpec((out_width,), "bias")
    return {slot: tensors}


def layer_norm(slot: str, width: int) -> Slots:
    """One slot holding a LayerNorm that starts as the plain one: weight and bias (width)."""
    return {slot: {"weight": TensorSpec((width,), "table", "ones"), "bias": TensorSpec((width,), "bias", "zeros")}}
