"""Adapting a model in place, and taking the method out again."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from unipet.adaptation.adapted import adaptation
from unipet.adaptation.build import build
from unipet.adaptation.frozen_experts import load_experts
from unipet.adaptation.report import AdaptReport, report_of
from unipet.adaptation.several import beside, changing, check_name, standing, take_up, unfrozen_tensors
from unipet.adaptation.unlearnable import check_learns
from unipet.adaptation.unwrapping import unwraps, unwraps_to_adapt
from unipet.calculus.library import load_method
from unipet.calculus.method import Method
from unipet.calculus.site_files import Sites, sites_for


@unwraps_to_adapt
def adapt(
    model: nn.Module, method: str | Path | Mapping[str, Any] | Method, sites: Sites = None, name: str | None = None
) -> AdaptReport:
    """Insert a method into a transformers model, in place: all of it or nothing.

    The base model is frozen; the insertions and what the method unfreezes train. `method` is a name, the path of a
    YAML file, or a mapping. `sites` is a site table of your own, as a YAML file or a mapping, for an architecture that
    the package does not know; it goes before the package's. `name` tells several adaptations on one model from
    each other (by default it is the method's); the new one is then in use, and the others wait. Returns what was
    inserted where. Raises UnipetError for any mistake; whatever is raised, the model is as it was. A wrapper around it
    (`torch.compile`) is looked through.
    """
    check_name(model, name)
    with beside(model, name):
        table = sites_for(model, sites)
        inserted = build(model, load_method(method), table)
        inserted.table = table
        check_learns(model, inserted, table)
        load_experts(model, inserted)
        report = report_of(model, inserted)
        inserted.attach(model)
    return report


@unwraps
def eject(model: nn.Module, name: str | None = None) -> None:
    """Take the method out and restore the base model bit for bit, values of unfrozen parameters included.

    With several adaptations, `name` takes out that one, and if it was in use the last one before it is; without `name`
    all are taken out.
    """
    now = standing(model)
    leaving = [now.named(name)] if name is not None or not now.carried else list(now.carried.values())
    left = now
    for inserted in leaving:
        left = left.without(inserted.name)
    with changing(model):
        take_up(model, left)
    for parameter in model.parameters() if not left.carried else (p for one in leaving for p in one.parameters()):
        parameter.grad = None


@unwraps
def parameters(model: nn.Module, head: bool = False, name: str | None = None) -> dict[str, nn.Parameter]:
    """What the method owns, by name: `<insertion>/<module path>/<slot>`, and `<part>/<module path>/<tensor>` for
    unfrozen parts of the base model. The task head is left out unless `head` is true.

    `name` asks for one of several adaptations (by default the one in use). Raises UnipetError where what it unfreezes is
    asked for and another is in use.
    """
    now = standing(model)
    inserted = now.named(name)
    found: dict[str, nn.Parameter] = {}
    for insertion in inserted.items:
        for bank in insertion.banks:
            for slot, tensor in bank.named_tensors():
                found[f"{insertion.name}/{insertion.site.name}/{slot}"] = tensor
    for insertion_name, shared in inserted.shared.items():
        for slot, tensor in shared.named_tensors():
            found[f"{insertion_name}/shared/{slot}"] = tensor
    asked = {own: part for own, part in inserted.unfrozen.items() if part != "head" or head}
    base = unfrozen_tensors(model, now, inserted) if asked else {}
    for own, part in asked.items():
        path, _, leaf = own.rpartition(".")
        found[f"{part}/{path}/{leaf}"] = base[own]
    return found


@unwraps
def stored(model: nn.Module) -> dict[str, nn.Parameter]:
    """What a saved adapter holds, by name as `parameters`: what trains, the weights of experts that data decide once training is
    over, and the whole head, which the base model's checkpoint does not determine."""
    base, found = dict(model.named_parameters()), parameters(model, head=True)
    for insertion in adaptation(model).items:
        for slot, tensor in insertion.bank.settled_tensors():
            found[f"{insertion.name}/{insertion.site.name}/{slot}"] = tensor
    for name in adaptation(model).head:
        path, _, leaf = name.rpartition(".")
        found[f"head/{path}/{leaf}"] = base[name]
    return found


@unwraps
def frozen(model: nn.Module) -> dict[str, Tensor]:
    """What the method adds that never trains (masks, random bases), by name as `parameters`. Seeds make it again."""
    inserted = adaptation(model)
    found = {
        f"{insertion.name}/{insertion.site.name}/{name}": tensor
        for insertion in inserted.items
        for name, tensor in insertion.bank.frozen().items()
    }
    for insertion_name, shared in inserted.shared.items():
        found |= {f"{insertion_name}/shared/{name}": tensor for name, tensor in shared.frozen().items()}
    return found


__all__ = ["AdaptReport", "adapt", "adaptation", "eject", "frozen", "parameters", "stored"]
