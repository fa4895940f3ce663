"""What one configuration of the adapters library becomes here: insertions, and a value for each of their slots."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Hashable, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

from torch import Tensor, nn

from unipet.adaptation.adapters_library.layout import Stored
from unipet.calculus.insertion import Insertion
from unipet.calculus.sites import ARCHITECTURES, architecture_of
from unipet.errors import UnipetError


class Part(ABC):
    """One configuration. Raises UnipetError where it says what no composition here computes."""

    #: Options that must have this value, as no other is computed here: key -> value.
    only: ClassVar[Mapping[str, Any]] = {}
    #: What its insertions are called, before a number.
    word: ClassVar[str] = "part"

    def __init__(self, source: Path, config: Mapping[str, Any], held: Stored, model: nn.Module, number: str) -> None:
        self.source, self.config, self.held, self.number = source, config, held, number
        self.table, self.model = architecture_of(model, ARCHITECTURES), model
        for key, value in self.only.items():
            if key in config and config[key] != value:
                raise UnipetError(
                    f"{source}: {key}: {str(config[key])[:60]!r} has no counterpart here; allowed: {value!r}."
                )
        self.insertions: dict[str, dict[str, Any]] = self.make()
        if not self.insertions:
            raise UnipetError(f"{source}: there are no tensors of its {self.word}.")

    @abstractmethod
    def make(self) -> dict[str, dict[str, Any]]:
        """The insertions by name."""

    @abstractmethod
    def value(self, insertion: str, item: Insertion | None, slot: str) -> Tensor:
        """The value of one slot of an insertion at a site, or of what its sites share (None)."""

    def option(self, key: str, kinds: tuple[type, ...], otherwise: Any) -> Any:
        """A value of the configuration. Raises UnipetError for one of another type."""
        found = self.config.get(key, otherwise)
        if (isinstance(found, bool) and bool not in kinds) or not isinstance(found, kinds):
            raise UnipetError(f"{self.source}: {key}: {str(found)[:60]!r} given; allowed: {_words(kinds)}.")
        return found

    def check_size(self, key: str, said: int, stored: int) -> None:
        """Raise UnipetError where the configuration gives tensors another size than they have: what it says is allocated."""
        if said != stored:
            raise UnipetError(
                f"{self.source}: {key}: {said} given, and the tensors have {stored}. It is not of one adapter."
            )

    def grouped(self, entries: Sequence[tuple[Hashable, str, int, str]]) -> dict[tuple[Hashable, str], dict[str, Any]]:
        """Positions for (options, stack, layer, role): one for each set of roles of equal options in the same layers. Returns
        (options, name) -> `position`."""
        layers: dict[tuple[Hashable, str, str], set[int]] = {}
        for options, stack, layer, role in entries:
            layers.setdefault((options, stack, role), set()).add(layer)
        groups: dict[tuple[Hashable, str, tuple[int, ...]], list[str]] = {}
        for (options, stack, role), own in layers.items():
            groups.setdefault((options, stack, tuple(sorted(own))), []).append(role)
        found: dict[tuple[Hashable, str], dict[str, Any]] = {}
        for count, ((options, stack, chosen), roles) in enumerate(groups.items()):
            position: dict[str, Any] = {"site": roles, "layers": list(chosen)}
            if len(self.table.stacks) > 1:
                position["stack"] = stack
            found[options, f"{self.word}{self.number}{'_' if self.number else ''}{count or ''}".rstrip("_")] = position
        return found


def _words(kinds: tuple[type, ...]) -> str:
    names = {bool: "true or false", int: "a whole number", float: "a number", str: "a text", dict: "a mapping"}
    return " or ".join(names[kind] for kind in kinds if kind in names)


#: The library's names of activations, and ours.
ACTIVATIONS = {
    "relu": "relu",
    "gelu": "gelu",
    "gelu_new": "gelu_tanh",
    "swish": "silu",
    "silu": "silu",
    "tanh": "tanh",
}


def activation(source: Path, name: object) -> str:
    """Our name of an activation. Raises UnipetError."""
    text = str(name).lower()
    if text not in ACTIVATIONS:
        raise UnipetError(f"{source}: non_linearity: {str(name)[:40]!r} given; allowed: {', '.join(ACTIVATIONS)}.")
    return ACTIVATIONS[text]
