"""What the tests of single functions share: their tensors at random, and a method of one insertion on a tiny model."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

import unipet
from tests.support.architectures import ARCHS, Arch
from unipet.adaptation.api import AdaptReport
from unipet.calculus.functions.base import BASE, Function, LinearMap, Params, Widths
from unipet.calculus.insertion_parts import seeded

#: Deliberately not square.
WIDTHS = Widths(u=16, h=24)


def tensors(function: Function, widths: Widths = WIDTHS, weight: Tensor | None = None) -> Params:
    """Random float64 tensors for every slot, with what a site adds to them: frozen ones and the base weight."""
    generator = torch.Generator().manual_seed(0)
    params: dict[str, Tensor] = {}
    for slot, specs in function.slots(widths).items():
        for name, spec in specs.items():
            key = f"{slot}.{name}" if name else slot
            params[key] = torch.randn(spec.shape, generator=generator, dtype=torch.float64) * 0.5
    for name, tensor in function.frozen(widths, seeded(getattr(function, "seed", 0), "site")).items():
        params[name] = tensor.double() if tensor.is_floating_point() else tensor
    made = {**function.generate(params, {}, widths)}
    if weight is not None:
        made[BASE] = weight
    return made


def weight(widths: Widths = WIDTHS) -> Tensor:
    return torch.randn(widths.h, widths.u, generator=torch.Generator().manual_seed(7), dtype=torch.float64)


def rows(width: int) -> Tensor:
    return torch.randn(2, 5, width, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


def is_its_matrix(function: LinearMap, params: Params, expected_DU: Tensor) -> None:
    """Both ways to compute the function agree with a matrix that was written out by hand."""
    u = rows(expected_DU.shape[1])
    assert torch.allclose(function.matrix(params), expected_DU, atol=1e-12)
    assert torch.allclose(function.delta(u, params, False), u @ expected_DU.T, atol=1e-12)


def built(arch: Arch) -> nn.Module:
    """With larger matrices than a fresh model's, so that an error in one of them reaches the output."""
    model: nn.Module = arch.build()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.dim() == 2 and "embed" not in name:
                parameter.mul_(8.0)
    return model


def adapted(arch: Arch, insertion: dict[str, Any]) -> tuple[nn.Module, AdaptReport]:
    model = built(arch)
    return model, unipet.adapt(model, {"name": "test", "insertions": {"one": insertion}})


def logits(arch: Arch, model: nn.Module) -> Tensor:
    batch = arch.batch()
    with torch.no_grad():
        return arch.real(batch, model(**batch).logits)


def randomise(model: nn.Module) -> None:
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in unipet.parameters(model).values():
            parameter.add_(torch.randn(parameter.shape, generator=generator) * 0.3)


def starts_where_it_says_and_folds(name: str, insertion: dict[str, Any], identity: bool) -> None:
    """On a tiny model: the start, then that the merged model computes what the adapted one did."""
    arch = ARCHS[name]
    before = logits(arch, built(arch))
    model, report = adapted(arch, insertion)
    assert all(row.identity_at_start is identity for row in report.insertions)
    assert torch.equal(logits(arch, model), before) is identity
    randomise(model)
    changed = logits(arch, model)
    assert (changed - before).abs().max() > 0.02
    unipet.merge(model)
    assert torch.allclose(logits(arch, model), changed, atol=1e-5 * max(1.0, changed.abs().max().item()))
