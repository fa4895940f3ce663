"""What a method learns, as an objective reads it: its slots, every tensor that trains, and their values before training."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor, nn

from unipet.adaptation.adapted import adaptation
from unipet.adaptation.api import parameters
from unipet.calculus.bank import Bank
from unipet.calculus.objectives import Weights
from unipet.training.resume_point import State


class StartValues:
    """The values that tensors had before training, also where it was interrupted since."""

    def __init__(self, tensors: Mapping[str, Tensor]) -> None:
        self.values = {name: tensor.detach().float().clone() for name, tensor in tensors.items()}

    def state(self) -> State:
        """The values themselves."""
        return State(tensors=self.values)

    def resume(self, state: State) -> None:
        """Put them in the place of those that this process began with."""
        for name, value in self.values.items():
            value.copy_(state.tensors[name])


def learned_weights(model: nn.Module, start: Mapping[str, Tensor]) -> Weights:
    """What the method of an adapted model learns. A tensor that is missing in `start` counts as unchanged."""
    inserted = adaptation(model)
    banks = [*(item.bank for item in inserted.items), *inserted.shared.values()]
    learned, every = parameters(model), parameters(model, head=True)
    return Weights(
        slots=[slot for bank in {id(bank): bank for bank in banks}.values() for slot in _copies(bank)],
        learned=learned,
        head={name: tensor for name, tensor in every.items() if name not in learned},
        start={name: start[name] if name in start else tensor.detach().float() for name, tensor in every.items()},
    )


def _copies(bank: Bank) -> list[tuple[str, list[Tensor]]]:
    """Every tensor of a bank's slots that trains, as its copies: one for each expert."""
    found: dict[str, list[Tensor]] = {}
    for (key, _), own in bank.names.items():
        tensor = bank.home.parameter(own)
        if tensor.requires_grad:
            found.setdefault(key, []).append(tensor)
    return [(bank.slot_of[key], copies) for key, copies in found.items()]
