"""The routed experts of a mixture-of-experts layer, which transformers keeps as slices of one module's tensors.

Shapes: E experts, D width of the stream, I width inside of an expert.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

GATE_UP, DOWN = "gate_up_proj", "down_proj"  # (E, 2I, D), gates first, and (E, D, I)
#: What inside of an expert can be h -> the tensor whose slice yields it (or, for mid, reads it), and its part of the rows.
INSIDE: dict[str, tuple[str, tuple[int, int] | None]] = {
    "expert.gate": (GATE_UP, (0, 2)),
    "expert.up": (GATE_UP, (1, 2)),
    "expert.mid": (DOWN, None),
    "expert.down": (DOWN, None),
}
#: How transformers says that a module of experts computes otherwise than y = W_down (act(W_gate x) ⊙ W_up x).
_AS_USUAL = {
    "has_gate": (True, "its experts have no gate"),
    "has_bias": (False, "its experts have biases"),
    "is_transposed": (False, "its experts' weights are transposed"),
    "is_concatenated": (True, "gates and ups are interleaved in its weights"),
    "has_post_expert_norm": (False, "it normalises each expert's output"),
    "_is_expert_parallel": (False, "its experts are spread over devices"),
}


def why_not_inside(module: nn.Module) -> str | None:
    """Why nothing can act inside of the experts of this module, or None."""
    kind = type(module).__name__
    for name, dimensions in ((GATE_UP, 3), (DOWN, 3)):
        tensor = getattr(module, name, None)
        if not isinstance(tensor, nn.Parameter) or tensor.dim() != dimensions:
            return f"{kind} does not keep its experts as {GATE_UP} (E, 2I, D) and {DOWN} (E, D, I)"
    for name, (usual, otherwise) in _AS_USUAL.items():
        if getattr(module, name, usual) != usual:
            return f"{otherwise} ({kind})"
    gate = getattr(type(module), "_apply_gate", None)
    if gate is not None and gate.__name__ != "_default_apply_gate":
        return f"{kind} has a gate of its own"
    return None


def experts_in(module: nn.Module) -> int:
    """How many experts a module of experts has."""
    tensor: Any = getattr(module, DOWN)
    return int(tensor.shape[0])


class OneExpert(nn.Module):
    """One expert's weight in a module of experts, read like a linear module's: (out, in), without a bias."""

    def __init__(self, experts: nn.Module, tensor: str, number: int) -> None:
        super().__init__()
        self._experts = (experts,)  # in a tuple, because it is no part of this one
        self.tensor, self.number = tensor, number
        self.out_features, self.in_features = self.weight.shape

    @property
    def stored(self) -> nn.Parameter:
        """The tensor of all experts that the weight is a slice of."""
        found: nn.Parameter = getattr(self._experts[0], self.tensor)
        return found

    @property
    def weight(self) -> Tensor:
        """The slice itself: what is written to it changes the base model."""
        return self.stored[self.number]
