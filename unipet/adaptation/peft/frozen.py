"""Tensors that never train, as a directory of peft's holds them, in the place of those that were made here."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from unipet.adaptation.peft.form import Form
from unipet.calculus.bank import Bank
from unipet.calculus.insertion import Insertion
from unipet.errors import UnipetError

#: As far as what is computed from a weight (its norms, a decomposition) differs by rounding.
_ROUNDING = 1e-5


def form_of(form: Form, insertion: Insertion) -> Form:
    """The form that says this insertion: the directory's, or the one beside it."""
    if form.beside is not None and type(insertion.parts.function) is form.beside.function:
        return form.beside
    return form


def take_frozen(source: Path, stored: Mapping[Insertion, Mapping[str, Tensor]]) -> bool:
    """Put the stored tensors into insertions; whether they are others than what the seed or the weight gives here.

    Sites that share tensors give them together. Raises UnipetError where one is missing or has another shape.
    """
    banks: dict[int, tuple[Bank, str, dict[str, Tensor]]] = {}
    for insertion, own in stored.items():
        for bank in (insertion.bank, insertion.shared):
            if bank is not None:
                banks.setdefault(id(bank), (bank, insertion.site.path, {}))[2].update(own)
    foreign = False
    for bank, path, own in banks.values():
        for name, tensor in bank.frozen().items():
            found = own.get(name)
            if found is None or found.shape != tensor.shape:
                raise UnipetError(
                    f"{source}: the frozen tensors of {path} are not stored, or do not fit this model: {name} is "
                    f"{tuple(tensor.shape)} here."
                )
            found = found.to(tensor.device, tensor.dtype)
            near = tensor.is_floating_point() and torch.allclose(found, tensor, rtol=_ROUNDING, atol=0.0)
            if not near and not torch.equal(found, tensor):
                tensor.copy_(found)
                foreign = True
    return foreign
