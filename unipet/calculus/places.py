"""Where the tensors of an insertion live, looked up once: what a place holds when it is read counts."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from torch import Tensor

from unipet.calculus.bank import Bank
from unipet.calculus.functions.base import Params

#: A tensor's key in the params of its function, and where it lives: the tensors of a module by name, and its own name.
Place = tuple[str, Mapping[str, Tensor], str]


def places(bank: Bank | None) -> list[Place]:
    """Those of an unmixed bank, the frozen ones last; none where there is no bank."""
    if bank is None:
        return []
    trained = [(key, bank.names[key, None], True) for key in bank.slot_of]
    frozen = [(key, name, False) for (key, _), name in bank.frozen_names.items()]
    return [(key, *bank.home.place(name, trains)) for key, name, trains in (*trained, *frozen)]


def read(some: Iterable[Place]) -> Params:
    """What they hold, by key."""
    return {key: tensors[name] for key, tensors, name in some}
