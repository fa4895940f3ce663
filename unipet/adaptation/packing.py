"""Many small tensors as a few: those that differ by a number in their name alone are stored as one stack.

A file of tensors spends over a hundred bytes on each one's name, shape and place. Deep base models have the same tensors
in every layer; `attention/encoder.layer.*.query/down` (12, r, d) says it once.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import torch
from torch import Tensor

#: Files of fewer tensors keep every tensor under its own name.
FEW = 32


def pattern(name: str) -> str:
    """The name with * for each number between dots and slashes."""
    pieces = (piece.split(".") for piece in name.split("/"))
    return "/".join(".".join("*" if part.isdigit() else part for part in piece) for piece in pieces)


def pack(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Stack the tensors of one pattern, in their order, if there are many tensors and these agree in shape and type."""
    if len(tensors) <= FEW:
        return dict(tensors)
    groups: dict[str, list[str]] = {}
    for name in tensors:
        groups.setdefault(pattern(name), []).append(name)
    packed: dict[str, Tensor] = {}
    for key, names in groups.items():
        kinds = {(tensors[name].shape, tensors[name].dtype) for name in names}
        if len(names) > 1 and len(kinds) == 1:
            packed[key] = torch.stack([tensors[name] for name in names])
        else:
            packed |= {name: tensors[name] for name in names}
    return packed


def unpack(packed: Mapping[str, Tensor], names: Iterable[str]) -> dict[str, Tensor]:
    """The inverse for a model that has `names`. Layers that only one of the two has keep the name of the pattern with
    their place in the stack, so that they show up as missing or extra."""
    groups: dict[str, list[str]] = {}
    for name in names:
        groups.setdefault(pattern(name), []).append(name)
    found: dict[str, Tensor] = {}
    for key, tensor in packed.items():
        if "*" not in key:
            found[key] = tensor
            continue
        members = groups.get(key, [])
        extra = [f"{key} ({place})" for place in range(len(members), len(tensor))]
        found |= dict(zip([*members, *extra], tensor.unbind(), strict=False))
    return found
