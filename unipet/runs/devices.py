"""How many devices a run may have: of itself, and on this machine."""

from __future__ import annotations

from unipet.errors import UnipetError


def check_parts(count: int, batch_size: int) -> None:
    """Raises `UnipetError` where a batch has no example for some of `count` devices."""
    if count > batch_size:
        raise UnipetError(
            f"budget.gpus: {count} given; a batch of optim.batch_size={batch_size} examples can be shared among at most "
            f"{batch_size} devices. Set budget.gpus={batch_size} or less."
        )


def check_devices(count: int) -> None:
    """Raises `UnipetError` where a run on `count` devices cannot be started on this machine."""
    if count == 1:
        return
    import torch

    from unipet.training.ranks import check_can_join

    check_can_join()
    available = torch.cuda.device_count() if torch.cuda.is_available() else None
    if available is not None and count > available:
        raise UnipetError(
            f"budget.gpus: {count} given; this process sees {available} GPU{'s' if available > 1 else ''}. Set "
            f"budget.gpus={available}, or look at CUDA_VISIBLE_DEVICES."
        )


def warning_without_gpus(count: int) -> str | None:
    """What a record says of a run whose devices are processes on one CPU."""
    import torch

    if count == 1 or torch.cuda.is_available():
        return None
    return (
        f"budget.gpus={count} without a GPU: {count} processes shared this machine's CPU, which makes nothing faster."
    )
