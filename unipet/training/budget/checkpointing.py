"""Gradient checkpointing: activations are computed again in the backward pass instead of stored."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from unipet.errors import UnipetError


def can_checkpoint(model: Any) -> bool:
    """Whether the base model supports gradient checkpointing."""
    return bool(getattr(model, "supports_gradient_checkpointing", False))


def check_checkpointing(model: Any, asked: bool | None) -> None:
    """Raises UnipetError where checkpointing is asked for and the base model does not support it."""
    if asked and not can_checkpoint(model):
        raise UnipetError(
            f"checkpointing: {type(model).__name__} has no gradient checkpointing. Set checkpointing=null, and a smaller "
            "optim.batch_size where memory is short."
        )


@contextmanager
def checkpointed(model: Any, enabled: bool = True) -> Iterator[None]:
    """Switch gradient checkpointing on inside, if `enabled`. Raises UnipetError if the base model does not support it.

    The reentrant variant is not used: it gives no gradient to an insertion that reads a tensor from before its layer.
    """
    if not enabled:
        yield
        return
    if not can_checkpoint(model):
        raise UnipetError(f"{type(model).__name__} has no gradient checkpointing. Use a smaller optim.batch_size.")
    # newer versions of transformers have renamed it
    kind = "activation" if hasattr(model, "activation_checkpointing_enable") else "gradient"
    getattr(model, f"{kind}_checkpointing_enable")({"use_reentrant": False})
    try:
        yield
    finally:
        getattr(model, f"{kind}_checkpointing_disable")()
