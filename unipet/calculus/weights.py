"""The weights of a base model's modules as one shape: (out, in) whatever the module calls or transposes; and how
quantised ones are stored.

Shapes: D out width, I in width.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from unipet.calculus.sites import OneExpert, Part
from unipet.errors import UnipetError


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


def quantised(parameter: Tensor) -> str | None:
    """How a parameter is stored where that is quantised (`int8`, `Int8Tensor`); None for ordinary numbers."""
    kind = type(parameter.data)
    if kind is Tensor:
        return None if parameter.is_floating_point() else str(parameter.dtype).removeprefix("torch.")
    return kind.__name__


def plain_tensors(parameter: Tensor) -> list[Tensor]:
    """What a parameter is stored as: itself, or the integers and scales inside a quantised tensor class."""
    data: Any = parameter.detach()
    if not hasattr(data, "__tensor_flatten__"):
        return [data]
    return [plain for name in data.__tensor_flatten__()[0] for plain in plain_tensors(getattr(data, name))]


def size(parameter: Tensor) -> int:
    """How many numbers a parameter stands for; 4-bit storage packs several into one byte."""
    state = getattr(parameter, "quant_state", None)
    return torch.Size(state.shape).numel() if state is not None else parameter.numel()


def check_passes_gradients(path: str, module: nn.Module) -> None:
    """Raise UnipetError where a quantised linear module would keep gradients from the insertions below it."""
    if not passes_gradients(module):
        raise UnipetError(
            f"{path} ({quantised(module.weight)}) passes no gradients on, so insertions below it would not train. "  # type: ignore[arg-type]
            "Quantise weights only, not activations, or train on the unquantised base model."
        )


def passes_gradients(module: nn.Module) -> bool:
    """Whether a linear module whose weight is a quantised tensor class lets gradients through to its input."""
    weight: Any = module.weight
    if not hasattr(weight, "__tensor_flatten__") or weight.device.type == "meta":
        return True
    with torch.enable_grad():
        x = torch.ones(1, weight.shape[1], dtype=weight.dtype, device=weight.device, requires_grad=True)
        found: Tensor = module.forward(x)  # past the hooks
        return found.requires_grad and torch.autograd.grad(found.sum(), x, allow_unused=True)[0] is not None


def why_no_matrix(module: nn.Module) -> str | None:
    """Why nothing can fold into this module's weight, or None."""
    weight = getattr(module, "weight", None)
    if isinstance(module, OneExpert):
        weight = module.stored
        return f"the weight is stored quantised ({stored})" if (stored := quantised(weight)) else None
    if not isinstance(weight, nn.Parameter) or (isinstance(module, nn.Embedding) and not _transposed(module)):
        return f"{type(module).__name__} has no weight to fold into"
    if stored := quantised(weight):
        return f"the weight is stored quantised ({stored})"
    if weight.dim() not in (1, 2):
        return f"{type(module).__name__} has no weight to fold into"
    return None


def read(module: nn.Module) -> tuple[Tensor, Tensor]:
    """A module's weight and bias, (W_DI, b_D), in float64. A norm's weight is (D,); a missing bias reads as zeros."""
    weight: Tensor = module.weight  # type: ignore[assignment]
    W = (weight.T if _transposed(module) else weight).double()
    bias = getattr(module, "bias", None)
    return W, bias.double() if bias is not None else W.new_zeros(len(W))


def updates(module: nn.Module, W: Tensor, b: Tensor) -> list[tuple[nn.Parameter, Tensor]]:
    """The parameters of a module, each with the value that makes the module compute W and b."""
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

    def tensors(self) -> list[Tensor]:
        """The tensors that these two are read from."""
        bias = getattr(self.module, "bias", None)
        weight: Tensor = self.module.weight  # type: ignore[assignment]
        return [weight] if bias is None else [weight, bias]

    def _own(self, tensor: Tensor) -> Tensor:
        return tensor if self.part is None else tensor[rows(self.part, len(tensor), tensor.device)]


def read_all(projections: Mapping[str, BaseWeight]) -> dict[str, Tensor]:
    """The weights and biases of several projections, as `base.<name>.weight` and `base.<name>.bias`."""
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
