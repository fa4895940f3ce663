"""What a certificate says of saving and merging: a trained model is merged, put back, taken apart, and loaded again.

All of it happens in the model at hand, so that a model which fills its device can be certified there.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from unipet.adaptation.adapted import CONTAINER, adaptation
from unipet.adaptation.api import eject, stored
from unipet.adaptation.certificate import NOT_APPLICABLE, NOT_RUN, Check, compared, failed, passed
from unipet.adaptation.checkpoint import load
from unipet.adaptation.merging import merge, reasons
from unipet.calculus.sites import module_at
from unipet.calculus.weights import quantised
from unipet.errors import UnipetError

#: The outputs of some examples, one tensor each.
Outputs = Callable[[], Sequence[Tensor]]

#: Number format of the weights -> the largest difference of two outputs that counts as rounding, for outputs up to 1. It grows
#: with the outputs.
ROUNDING = {torch.float32: 3e-5, torch.float64: 1e-8, torch.bfloat16: 5e-2, torch.float16: 1e-2}
KEPT_GIB = 2.0  # of base weights that folding changes and that are copied meanwhile; beyond that `unipet verify` merges


def tolerance(dtype: torch.dtype, outputs: Iterable[Tensor]) -> float:
    """How far outputs may differ by rounding alone, in the precision of the weights."""
    sizes = [float(rows.abs().max()) for rows in outputs if rows.numel()]
    return ROUNDING.get(dtype, ROUNDING[torch.bfloat16]) * max(1.0, *sizes)


def difference(some: Sequence[Tensor], others: Sequence[Tensor]) -> float:
    """The largest difference of two lists of outputs; infinite where their shapes differ or a value is not a number."""
    largest = 0.0
    for rows, other in zip(some, others, strict=True):
        if rows.shape != other.shape:
            return math.inf
        if rows.numel():
            apart = float((rows.double() - other.double()).abs().max())
            largest = math.inf if math.isnan(apart) else max(largest, apart)
    return largest


def check_finite(model: nn.Module) -> Check:
    """Whether every value that a saved adapter holds is a finite number."""
    wrong = [name for name, tensor in stored(model).items() if not bool(torch.isfinite(tensor).all())]
    return failed(f"not finite: {', '.join(wrong[:4])}") if wrong else passed()


def dtype_of(model: nn.Module) -> torch.dtype:
    """The number format that most of the model's weights are stored in."""
    sizes: dict[torch.dtype, int] = {}
    for tensor in model.parameters():
        if tensor.is_floating_point():
            sizes[tensor.dtype] = sizes.get(tensor.dtype, 0) + tensor.numel()
    return max(sizes, key=sizes.__getitem__, default=torch.float32)


@torch.no_grad()
def check_files(model: nn.Module, directory: Path, outputs: Outputs, before: Sequence[Tensor]) -> dict[str, Check]:
    """`merge` and `round_trip` of the adapted `model`, whose adapter is saved in `directory` and whose outputs are `before`.

    Afterwards the model carries what was loaded; where that failed, it is the bare base model.
    """
    limit = tolerance(dtype_of(model), before)
    inserted = adaptation(model)
    values = dict(inserted.attached.originals)
    merging, changed = _mergeable(model)
    if changed is not None:
        weights = {name: model.get_parameter(name).clone() for name in changed}
        merging = _merged(model, outputs, before, limit)
        if hasattr(model, CONTAINER):
            eject(model)
        values = {**weights, **values}
    else:
        eject(model)
    for name, value in values.items():
        model.get_parameter(name).copy_(value)
    for name in inserted.head:  # a head that is not loaded must show
        model.get_parameter(name).fill_(math.nan)
    try:
        load(model, directory)
        trip = compared(
            difference(before, outputs()), limit, "the adapter that was loaded is not the one that was saved"
        )
    except UnipetError as error:
        trip = failed(f"the saved adapter cannot be loaded: {error}")
    return {"merge": merging, "round_trip": trip}


def _merged(model: nn.Module, outputs: Outputs, before: Sequence[Tensor], limit: float) -> Check:
    """Merge the model, all that folds and all mixtures, and compare its outputs with those of before."""
    try:
        summary = merge(model, partial=True)
    except UnipetError as error:  # it has changed nothing
        return Check(NOT_APPLICABLE, f"it does not merge: {error}")
    check = compared(difference(before, outputs()), limit, "merging loses some of what was trained")
    kept = (f"{name} stays: {why}" for name, why in summary.items() if why != "folded")
    check.text = check.text or "; ".join(kept)
    if check.largest is not None:
        check.dtypes = {name_of_dtype(dtype_of(model)): check.largest}
    return check


def name_of_dtype(dtype: torch.dtype) -> str:
    """A number format in one word: `float32`."""
    return str(dtype).removeprefix("torch.")


def _mergeable(model: nn.Module) -> tuple[Check, list[str] | None]:
    """Why the model cannot be merged here, and otherwise the parameters of the base model that folding changes."""
    inserted = adaptation(model)
    why = reasons(model, inserted)
    mixed = any(item.parts.mixture is not None for item in inserted.items)
    if any(item.parts.mixture is not None and item.parts.mixture.draws_in_evaluation for item in inserted.items):
        return Check(NOT_APPLICABLE, "its evaluation draws experts, so no two passes agree"), None
    if inserted.items and None not in why and not mixed:
        first = next(reason for reason in why if reason is not None)
        return Check(NOT_APPLICABLE, f"it does not merge: {first}"), None
    if any(quantised(parameter) for parameter in model.parameters()):
        return Check(
            NOT_APPLICABLE, "the base model is quantised; `unipet merge` takes the weights it stands for"
        ), None
    names: set[str] = set()
    for item, reason in zip(inserted.items, why, strict=True):
        if reason is None:
            module = module_at(model, item.site.path)
            names |= {f"{item.site.path}.{name}".lstrip(".") for name, _ in module.named_parameters(recurse=False)}
    gib = sum(model.get_parameter(name).numel() * model.get_parameter(name).element_size() for name in names) / 2**30
    if gib > KEPT_GIB:
        return Check(
            NOT_RUN, f"{gib:.1f} GiB of weights would have to be kept meanwhile; `unipet verify` does it"
        ), None
    return Check(), sorted(names)
