"""Merging: bake every mixture and reparametrisation, then fold what is linear into the base weights."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import replace

import torch
from torch import Tensor, nn

from unipet.adaptation.adapted import Adaptation
from unipet.adaptation.several import only
from unipet.adaptation.untying import owners_of
from unipet.adaptation.unwrapping import unwraps
from unipet.calculus.composition import COMPOSITIONS, Replace
from unipet.calculus.insertion import Insertion
from unipet.calculus.method import name_of
from unipet.calculus.sites import OneExpert, Site, module_of
from unipet.calculus.weights import BaseWeight, in_width, read, rows, updates, why_no_matrix
from unipet.errors import UnipetError

TIED = "the weight is tied to another module"
_UNTIE = " `unipet merge --untie` gives each module a weight of its own first."


def why_not_foldable(insertion: Insertion, model: nn.Module) -> str | None:
    """The reason why an insertion cannot become part of the base weights, or None if it can."""
    parts, site = insertion.parts, insertion.site
    if parts.mixture is not None and not parts.mixture.bakes and not parts.mixture.averages_outputs:
        return f"the reducer {parts.mixture.reducer!r} makes no single function of its experts"
    function = parts.evaluated
    if function.nonlinear:
        return function.nonlinear
    if parts.scaling.dynamic:
        return parts.scaling.dynamic
    if parts.tokens is not None:
        return "it acts on some tokens only"
    joined = name_of(COMPOSITIONS, parts.composition)
    if not parts.composition.foldable:
        return f"composition {joined!r} has no fold"
    constant = function.reads == "nothing"
    if parts.composition.constant_only and not constant:
        return f"composition {joined!r} with a function of the input is not linear"
    if site.at == "heads":
        return "the concatenated heads are no module's weights"
    if site.at == "stream":
        return "the residual stream is no module's output"
    module = module_of(model, site)
    if reason := why_no_matrix(module):
        return reason
    if owners_of(model)[id(module.stored if isinstance(module, OneExpert) else module.weight)] > 1:
        return TIED
    norm = in_width(module) is not None and module.weight.dim() == 1
    if norm and not constant:
        return "a norm's weight holds no matrix"
    shifts = parts.composition.shifts and function.has_offset
    if shifts and getattr(module, "bias", None) is None:
        return f"{type(module).__name__} has no bias to fold into"
    if site.on_input:
        return "what changes a norm's input does not fold into its weight" if norm else None
    if parts.form == "parallel" and not constant and site.x_path != site.path:
        return "x is not the input of the module that yields h"
    if norm and isinstance(parts.composition, Replace):
        return "replacing a norm's output leaves nothing to fold into"
    return None


def reasons(model: nn.Module, inserted: Adaptation) -> list[str | None]:
    """For each site of each insertion why it cannot fold: all sites of an insertion fold, or none of them."""
    own = [why_not_foldable(insertion, model) for insertion in inserted.items]
    stuck: dict[str, str] = {}
    while True:
        found = _in_order(
            model, inserted.items, [stuck.get(i.name, why) for i, why in zip(inserted.items, own, strict=True)]
        )
        now: dict[str, str] = {}
        for insertion, reason in zip(inserted.items, found, strict=True):
            if reason is not None:
                now.setdefault(insertion.name, reason)
        if now.keys() == stuck.keys():
            return [now.get(insertion.name) for insertion in inserted.items]
        stuck = now


def _in_order(model: nn.Module, items: list[Insertion], own: list[str | None]) -> list[str | None]:
    """The reasons of each site with those that come from others: folding must not jump over what stays."""
    stays: list[Insertion] = []
    result = list(own)
    for number in _folding_order(items):
        insertion = items[number]
        nearer = next((other for other in stays if _same_activation(insertion.site, other.site)), None)
        if result[number] is None and nearer is not None:
            result[number] = f"it acts {'before' if insertion.site.on_input else 'after'} {nearer.name!r}, which stays"
        if result[number] is not None:
            stays.append(insertion)
    readers = {_key(module): other for other in stays for module in _modules_read(other)}
    for number, insertion in enumerate(items):
        # What stays and computes with the base weight must find it as it was.
        if result[number] is None and (reader := readers.get(_key(module_of(model, insertion.site)))) is not None:
            result[number] = f"{reader.name!r}, which stays, computes with the weight that it would change"
            stays.append(insertion)
    blocked = {_key(module_of(model, other.site)) for other in stays if other.site.at in ("output", "expert.down")}
    for number, insertion in enumerate(items):
        # A factor on a module's input also feeds what stays at its output, unless that reads h alone.
        if result[number] is None and insertion.site.on_input and _key(module_of(model, insertion.site)) in blocked:
            result[number] = "an insertion at the same module, which stays, reads the same activation"
    return result


def _folding_order(items: list[Insertion]) -> list[int]:
    """The numbers of the insertions, those nearest to the base weight first: at outputs as they act, then at inputs the last
    first. What is at outputs is written in terms of the input that an input insertion changes."""
    outputs = [number for number, insertion in enumerate(items) if not insertion.site.on_input]
    return outputs + [number for number, insertion in enumerate(items) if insertion.site.on_input][::-1]


def _modules_read(insertion: Insertion) -> list[nn.Module]:
    """The modules of the base model whose weights an insertion that stays, baked, reads at each call or when loaded."""
    function, composition = insertion.parts.function.plain(), insertion.parts.composition
    found: list[BaseWeight] = [] if insertion.query is None else [insertion.query]
    if function.needs_projections:
        found += insertion.projections.values()
    made_again = function.starts_from_weight and insertion.bank.frozen_names
    if insertion.base is not None and (
        function.needs_weight or function.needs_bias or composition.needs_weight or made_again
    ):
        found.append(insertion.base)
    return [one.module for one in found]


def _same_activation(site: Site, other: Site) -> bool:
    same_place = (site.path, site.at, site.expert) == (other.path, other.at, other.expert)
    return same_place and (site.part == other.part or site.part is None or other.part is None)


@unwraps
@torch.no_grad()
def merge(model: nn.Module, partial: bool = False, name: str | None = None) -> dict[str, str]:
    """Fold the method into the base weights; afterwards the model is an ordinary one.

    Mixtures and reparametrisations are baked first. If an insertion cannot fold, nothing changes and UnipetError says
    why, unless `partial` is true: then the insertions that can fold (at all their sites) are folded and the others stay,
    baked. Whatever else fails, nothing has changed either. `name` says which adaptation is meant; while the model carries
    others, which would stand on a changed base model, it is an error. Returns, for each insertion, `folded` or the reason. In
    float32 merged and unmerged outputs agree within 1e-5 of their scale.
    """
    inserted = only(model, name)
    why, summary = reasons(model, inserted), dict[str, str]()
    for insertion, reason in zip(inserted.items, why, strict=True):
        if summary.get(insertion.name, "folded") == "folded":
            summary[insertion.name] = reason or "folded"
    stuck = {name: reason for name, reason in summary.items() if reason != "folded"}
    if stuck and not partial:
        listed = "; ".join(f"{name!r}: {reason}" for name, reason in stuck.items())
        raise UnipetError(
            f"Method {inserted.method.name!r} cannot be merged into the base model. {listed}. "
            "partial=True (`unipet merge --partial`) bakes mixtures, folds what it can and keeps the rest inserted."
            f"{_UNTIE if TIED in stuck.values() else ''}"
        )
    folding = [i for i, reason in zip(inserted.items, why, strict=True) if reason is None]
    staying = [i for i, reason in zip(inserted.items, why, strict=True) if reason is not None]
    new_values = _folded(model, folding)
    with ExitStack() as undoing:
        undoing.callback(inserted.name_tensors)  # last of all: of the tensors that are back by then
        for insertion in staying:
            undoing.callback(insertion.bake())
        for parameter, value in new_values:
            undoing.callback(parameter.copy_, parameter.clone())
            parameter.copy_(value)
        with inserted.detached(model):
            if staying:
                left = inserted.keeping(staying)
                left.unsavable = left.unsavable or _not_made_again(inserted, folding, staying)
                left.attach(model)
                left.replaces(inserted)
        undoing.pop_all()
    return summary


def _not_made_again(inserted: Adaptation, folding: list[Insertion], staying: list[Insertion]) -> str | None:
    """Why a saved adapter of what stays could not be loaded: frozen tensors that the base model, changed, makes otherwise."""
    changed = {insertion.site.weight_name for insertion in folding}
    changed |= {name for name, part in inserted.unfrozen.items() if part != "head"}
    for insertion in staying:
        function = insertion.parts.function
        if not insertion.bank.frozen_names:
            continue
        if (function.starts_from_text and changed) or (
            function.starts_from_weight and insertion.site.weight_name in changed
        ):
            return (
                f"the frozen tensors of {insertion.name!r} came from the base model as it was before the merge, which "
                "makes others now"
            )
    return None


def _folded(model: nn.Module, insertions: list[Insertion]) -> list[tuple[nn.Parameter, Tensor]]:
    """New values of every weight and bias that the insertions fold into, computed before any is written."""
    owners = owners_of(model)
    maps: dict[tuple[int, ...], tuple[str, nn.Module, Tensor, Tensor]] = {}
    for insertion in (insertions[number] for number in _folding_order(insertions)):
        path, part = insertion.site.path, insertion.site.part
        module = module_of(model, insertion.site)
        if owners[id(module.stored if isinstance(module, OneExpert) else module.weight)] > 1:
            raise UnipetError(
                f"{insertion.name}: the weight of {path} is tied to another module; merging would change both.{_UNTIE}"
            )
        W, b = maps[_key(module)][2:] if _key(module) in maps else read(module)
        W = W + insertion.site.norm_offset
        if part is None:
            W, b = _fold_one(insertion, W, b)
        else:
            own = rows(part, len(W), W.device)
            W, b = W.clone(), b.clone()
            W[own], b[own] = _fold_one(insertion, W[own], b[own])
        maps[_key(module)] = path, module, W - insertion.site.norm_offset, b
    result: list[tuple[nn.Parameter, Tensor]] = []
    for path, module, W, b in maps.values():
        if getattr(module, "bias", None) is None and bool(b.any()):
            raise UnipetError(f"Merging: {path} has no bias, which an offset would have to fold into.")
        result += updates(module, W, b)
    return result


def _key(module: nn.Module) -> tuple[int, ...]:
    """What is the same for the same weight: an expert's is a slice of a tensor."""
    return (id(module.stored), module.number) if isinstance(module, OneExpert) else (id(module),)


def _fold_one(insertion: Insertion, W: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    """One insertion's fold in float64. A norm's weight (D,) is the diagonal of its map."""
    affine = insertion.affine()
    assert affine is not None
    A = None if affine.A_DU is None else affine.A_DU.double()
    c = None if affine.c_D is None else affine.c_D.double()
    if insertion.site.on_input:
        # h is the module's own input: join to the identity, then W(Rx + r) + b.
        eye = torch.eye(W.shape[1], dtype=W.dtype, device=W.device)
        R, r = insertion.fold(eye, eye.new_zeros(len(eye)), replace(affine, A_DU=A, c_D=c))
        return W @ R, W @ r + b
    if A is not None and insertion.parts.form == "sequential":
        # Δ reads h = Wx + b, so as a map of x it is (AW)x + (Ab + c).
        c = A @ b if c is None else A @ b + c
        A = A @ W
    if W.dim() == 1:
        diagonal, b = insertion.fold(W.unsqueeze(-1), b, replace(affine, A_DU=A, c_D=c))
        return diagonal.squeeze(-1), b
    return insertion.fold(W, b, replace(affine, A_DU=A, c_D=c))
