"""Gradient checkpointing: activations are computed again in the backward pass instead of being kept."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from unipet.errors import UnipetError


def can_checkpoint(model: Any) -> bool:
    """Whether the base model has such a mode."""
    return bool(getattr(model, "supports_gradient_checkpointing", False))


@contextmanager
def checkpointed(model: Any, wanted: bool = True) -> Iterator[None]:
    """Checkpointing inside, if it is `wanted`. Raises UnipetError where the base model has no such mode.

    Not the reentrant kind: it gives no gradient to an insertion that reads what came before its layer.
    """
    if not wanted:
        yield
        return
    if not can_checkpoint(model):
        raise UnipetError(f"{type(model).__name__} has no gradient checkpointing. Use a smaller optim.batch_size.")
    # newer transformers call it by another name
    kind = "activation" if hasattr(model, "activation_checkpointing_enable") else "gradient"
    getattr(model, f"{kind}_checkpointing_enable")({"use_reentrant": False})
    try:
        yield
    finally:
        getattr(model, f"{kind}_checkpointing_disable")()
