"""Adapting a model in place, and taking the method out again."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from unipet.adaptation.adapted import CONTAINER, Adaptation, adaptation
from unipet.adaptation.build import build
from unipet.adaptation.report import AdaptReport, report_of
from unipet.adaptation.unwrapping import unwraps, unwraps_to_adapt
from unipet.calculus.library import load_method
from unipet.calculus.method import Method
from unipet.calculus.site_files import Sites, sites_for
from unipet.errors import UnipetError


@unwraps_to_adapt
def adapt(model: nn.Module, method: str | Path | Mapping[str, Any] | Method, sites: Sites = None) -> AdaptReport:
    """Insert a method into a transformers model, in place: all of it or nothing.

    The base model is frozen; the insertions and what the method unfreezes train. `method` is a name, the path of a
    YAML file, or a mapping. `sites` is a site table of your own, as a YAML file or a mapping, for an architecture that
    the package does not know; it goes before the package's. Returns what was inserted where. Raises UnipetError for
    any mistake; whatever is raised, the model is as it was. A wrapper around it (`torch.compile`) is looked through.
    """
    if isinstance(getattr(model, CONTAINER, None), Adaptation):
        raise UnipetError(
            f"The model already carries method {adaptation(model).method.name!r}. "
            "Call unipet.eject(model) or unipet.merge(model) first."
        )
    table = sites_for(model, sites)
    inserted = build(model, load_method(method), table)
    inserted.table = table
    report = report_of(model, inserted)
    inserted.attach(model)
    return report


@unwraps
def eject(model: nn.Module) -> None:
    """Take the method out and restore the base model bit for bit, values of unfrozen parameters included."""
    adaptation(model).detach(model, restore=True)


@unwraps
def parameters(model: nn.Module, head: bool = False) -> dict[str, nn.Parameter]:
    """What the method owns, by name: `<insertion>/<module path>/<slot>`, and `<part>/<module path>/<tensor>` for
    unfrozen parts of the base model. The task head is left out unless `head` is true.
    """
    inserted = adaptation(model)
    found: dict[str, nn.Parameter] = {}
    for insertion in inserted.items:
        for bank in insertion.banks:
            for name, tensor in bank.named_tensors():
                found[f"{insertion.name}/{insertion.site.name}/{name}"] = tensor
    for insertion_name, shared in inserted.shared.items():
        for name, tensor in shared.named_tensors():
            found[f"{insertion_name}/shared/{name}"] = tensor
    base = dict(model.named_parameters())
    for name, part in inserted.unfrozen.items():
        if part != "head" or head:
            path, _, leaf = name.rpartition(".")
            found[f"{part}/{path}/{leaf}"] = base[name]
    return found


@unwraps
def stored(model: nn.Module) -> dict[str, nn.Parameter]:
    """What a saved adapter holds, by name as `parameters`: what trains, and the whole head, which the base model's
    checkpoint does not determine."""
    base, found = dict(model.named_parameters()), parameters(model, head=True)
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
