"""The learning rate of `up` slots relative to all others, `optim.lr_ratio` (LoRA+, Hayou et al. 2024)."""

from __future__ import annotations

from torch import nn

from unipet.adaptation.adapted import Adaptation
from unipet.errors import UnipetError


def up_tensors(inserted: Adaptation) -> list[nn.Parameter]:
    """The tensors of the method's slots named `up`: one for each site, expert and tensor of the slot.

    `inserted` may be built without weights. Raises `UnipetError`, naming `optim.lr_ratio`, if the method has no such slot.
    """
    banks = [*(bank for insertion in inserted.items for bank in insertion.banks), *inserted.shared.values()]
    tensors = [tensor for bank in banks for tensor in bank.of_slot("up")]
    if not tensors:
        raise UnipetError(
            "optim.lr_ratio: it is the learning rate of `up` slots divided by that of all other tensors, but the method "
            f"{inserted.method.name!r} has no `up` slot. Remove the override, or set optim.lr_ratio=1."
        )
    return tensors
