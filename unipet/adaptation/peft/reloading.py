"""A peft directory loaded by peft itself, over a copy of the base model, and compared with the model that it came from."""

from __future__ import annotations

import copy
import importlib
import re
import warnings
from dataclasses import dataclass
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from torch import nn

from unipet.adaptation.adapted import CONTAINER, Adaptation
from unipet.adaptation.api import eject
from unipet.adaptation.made_up_inputs import made_up_inputs, outputs_of
from unipet.adaptation.peft.table import FORMS
from unipet.errors import UnipetError


@dataclass(frozen=True)
class Compared:
    """What came out: which peft, the largest difference of outputs relative to the largest one, and how much is rounding."""

    version: str
    error: float
    limit: float


def is_installed() -> bool:
    """Whether peft can be imported here; it is no requirement of this package."""
    return find_spec("peft") is not None


@torch.no_grad()
def compared(model: nn.Module, inserted: Adaptation, folder: Path) -> Compared:
    """Load the directory with peft and compare outputs for made-up inputs. The model is not changed; frozen weights are shared
    with the copy.

    Raises UnipetError where peft cannot load it, leaves a tensor out, or computes something else.
    """
    from unipet.adaptation.proofs import ROUNDING, difference, dtype_of

    inputs = made_up_inputs(model)
    ours = outputs_of(model, inputs)
    flags = {parameter: parameter.requires_grad for parameter in model.parameters()}
    try:
        theirs = outputs_of(_loaded(_bare_copy(model, inserted), folder), inputs)
    finally:
        for parameter, flag in flags.items():
            parameter.requires_grad_(flag)
    scale = max(1.0, *(float(rows.abs().max()) for rows in ours if rows.numel()))
    error, limit = difference(ours, theirs) / scale, ROUNDING[dtype_of(model)]
    if not error <= limit:
        raise UnipetError(
            f"peft {version('peft')} loads this export, and its outputs differ by {error:.1e} of their scale, more than rounding "
            f"({limit:.0e}): it was not written. Please report the method; unipet.save keeps it exactly."
        )
    return Compared(version("peft"), error, limit)


def _bare_copy(model: nn.Module, inserted: Adaptation) -> Any:
    """The base model without the method, its frozen tensors those of `model`."""
    own = inserted.unfrozen.keys() | inserted.head
    kept = [
        tensor
        for name, tensor in (*model.named_parameters(), *model.named_buffers())
        if name not in own and not name.startswith(f"{CONTAINER}.")
    ]
    made = copy.deepcopy(model, {id(tensor): tensor for tensor in kept})
    eject(made)
    return made


def _loaded(base: Any, folder: Path) -> Any:
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        peft: Any = importlib.import_module("peft")
        try:
            model = peft.PeftModel.from_pretrained(base, str(folder))
        except Exception as error:  # peft raises many types for a directory that does not fit
            text = " ".join(str(error).split())[:300]
            raise UnipetError(
                f"peft {version('peft')} cannot load this export ({text}): it was not written."
            ) from error
    if lost := [text for each in said if "missing" in (text := str(each.message)).lower() and not _repeated(text)]:
        raise UnipetError(
            f"peft {version('peft')} leaves out a part of this export ({lost[0][:200]}): it was not written."
        )
    return model.eval()


def _repeated(text: str) -> bool:
    """Whether all that a warning says to be missing are a module's own names of what all modules share, which is there."""
    shared = {name for form in FORMS for name in form.shares}
    names = re.findall(r"'([^']+)'", text)
    return bool(names) and all(
        name.startswith("base_model.model.") and name.removesuffix(".default").rpartition(".")[2] in shared
        for name in names
    )
