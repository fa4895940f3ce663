"""Tensors that never train, as a directory of peft's holds them, in the place of those that were made here."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from unipet.adaptation.peft.form import Form
from unipet.calculus.insertion import Insertion
from unipet.errors import UnipetError

#: As far as what is computed from a weight (its norms, a decomposition) differs by rounding.
_ROUNDING = 1e-5


def form_of(form: Form, insertion: Insertion) -> Form:
    """The form that says this insertion: the directory's, or the one beside it."""
    if form.beside is not None and type(insertion.parts.function) is form.beside.function:
        return form.beside
    return form


def take_frozen(source: Path, insertion: Insertion, given: Mapping[str, Tensor]) -> bool:
    """Put the stored tensors into an insertion; whether they are others than what the seed or the weight gives here.

    Raises UnipetError where one is missing or has another shape.
    """
    banks = (insertion.bank,) if insertion.shared is None else (insertion.bank, insertion.shared)
    foreign = False
    for name, tensor in ((name, tensor) for bank in banks for name, tensor in bank.frozen().items()):
        found = given.get(name)
        if found is None or found.shape != tensor.shape:
            raise UnipetError(
                f"{source}: the frozen tensors of {insertion.site.path} are not stored, or do not fit this model: "
                f"{name} is {tuple(tensor.shape)} here."
            )
        found = found.to(tensor.device, tensor.dtype)
        if not torch.equal(found, tensor):
            near = tensor.is_floating_point() and torch.allclose(found, tensor, rtol=_ROUNDING, atol=0.0)
            foreign = foreign or not near
            if not near:
                tensor.copy_(found)
    return foreign
