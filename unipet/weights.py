"""The weights of a base model's modules as one shape: (out, in) whatever the module calls or transposes.

Shapes: D out width, I in width.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from unipet.sites import Part


def _transposed(module: nn.Module) -> bool:
    """transformers' Conv1D (GPT-2) stores its weight as (in, out), and so does an embedding, a map of one-hot ids."""
    return type(module).__name__ == "Conv1D" or type(module) is nn.Embedding


def in_width(module: nn.Module) -> int | None:
    """Width of what a linear map or a norm reads; None for a block of several modules."""
    if _transposed(module):
        return int(module.weight.shape[0])  # type: ignore[index]
    width = getattr(module, "in_features", None)
    return int(width) if width is not None else _norm_width(module)


def out_width(module: nn.Module) -> int | None:
    """Width of what a linear map, a norm or an embedding yields; None for a block of several modules."""
    if _transposed(module):
        return int(module.weight.shape[1])  # type: ignore[index]
    width = getattr(module, "out_features", None) or getattr(module, "embedding_dim", None)
    return int(width) if width is not None else _norm_width(module)


def _norm_width(module: nn.Module) -> int | None:
    weight = getattr(module, "weight", None)
    return len(weight) if isinstance(weight, nn.Parameter) and weight.dim() == 1 else None


def why_no_matrix(module: nn.Module) -> str | None:
    """Why nothing can fold into this module's weight, or None."""
    weight = getattr(module, "weight", None)
    if not isinstance(weight, nn.Parameter) or (isinstance(module, nn.Embedding) and not _transposed(module)):
        return f"{type(module).__name__} has no weight to fold into"
    kind = type(weight.data)
    if kind is not Tensor or not weight.is_floating_point():
        stored = str(weight.dtype).removeprefix("torch.") if kind is Tensor else kind.__name__
        return f"the weight is stored quantised ({stored})"
    if weight.dim() not in (1, 2):
        return f"{type(module).__name__} has no weight to fold into"
    return None


def read(module: nn.Module) -> tuple[Tensor, Tensor]:
    """(W_DI, b_D) in float64; a norm's weight is (D,), a missing bias zeros."""
    weight: Tensor = module.weight  # type: ignore[assignment]
    W = (weight.T if _transposed(module) else weight).double()
    bias = getattr(module, "bias", None)
    return W, bias.double() if bias is not None else W.new_zeros(len(W))


def updates(module: nn.Module, W: Tensor, b: Tensor) -> list[tuple[nn.Parameter, Tensor]]:
    """The parameters of a module with the values that make it compute W and b."""
    found = [(module.weight, W.T if _transposed(module) else W)]
    if getattr(module, "bias", None) is not None:
        found.append((module.bias, b))
    return found  # type: ignore[return-value]


@dataclass(frozen=True)
class BaseWeight:
    """The weight of one module of the base model, or of one part of a fused one, read again at every use."""

    module: nn.Module
    part: Part | None

    def weight(self) -> Tensor:
        """(out, in)."""
        weight: Tensor = self.module.weight  # type: ignore[assignment]
        return self._own(weight.T if _transposed(self.module) else weight)

    def bias(self) -> Tensor | None:
        """(out,), or None."""
        bias = getattr(self.module, "bias", None)
        return None if bias is None else self._own(bias)

    def _own(self, tensor: Tensor) -> Tensor:
        return tensor if self.part is None else tensor[rows(self.part, len(tensor), tensor.device)]


def read_all(projections: Mapping[str, BaseWeight]) -> dict[str, Tensor]:
    """Their weights and biases as `base.<name>.weight`, `base.<name>.bias`."""
    found = {f"base.{name}.weight": one.weight() for name, one in projections.items()}
    biases = {f"base.{name}.bias": one.bias() for name, one in projections.items()}
    return {**found, **{name: bias for name, bias in biases.items() if bias is not None}}


def rows(part: Part, width: int, device: torch.device | None = None) -> Tensor:
    """The output rows of a fused projection that belong to one part."""
    return torch.arange(width, device=device).view(part.groups, part.count, -1)[:, part.index].flatten()


def split(part: Part, fused: Tensor) -> list[Tensor]:
    """All parts of a fused output (..., D), each (..., D / count); `join` puts them back."""
    return [piece.flatten(-2) for piece in fused.unflatten(-1, (part.groups, part.count, -1)).unbind(-2)]


def join(part: Part, pieces: list[Tensor]) -> Tensor:
    """The inverse of `split`."""
    return torch.stack([piece.unflatten(-1, (part.groups, -1)) for piece in pieces], dim=-2).flatten(-3)
