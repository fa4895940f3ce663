"""Experts of a mixture that are the functions of saved adapters: their tensors, read into the banks of an adapted model."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor, nn

from unipet.adaptation.adapted import Adaptation
from unipet.adaptation.build import build
from unipet.adaptation.description import description_of
from unipet.adaptation.packing import unpack
from unipet.adaptation.saved_adapter import check_base_model, method_of, table_of, tensors_of
from unipet.calculus.insertion import Insertion
from unipet.calculus.method import InsertionSpec
from unipet.calculus.site_files import sites_for
from unipet.errors import UnipetError

#: Options of a function that only matter while it trains.
_IN_TRAINING = ("init", "dropout", "seed")


@torch.no_grad()
def load_experts(model: nn.Module, inserted: Adaptation) -> None:
    """Read the experts of every mixture that takes them from saved adapters. The adaptation forgets the paths: it carries the
    experts itself.

    Raises UnipetError where an adapter belongs to another base model, has changed since the method was read, or holds no
    insertion of the same choices at the same sites.
    """
    for number, spec in enumerate(inserted.method.insertions):
        mixture = spec.mixture
        if mixture is None or not mixture.frozen:
            continue
        key = f"method.insertions.{spec.name}.mixture.experts"
        if not mixture.adapters:
            raise UnipetError(f"{key}: this method carries its experts in a saved adapter. Load that with unipet.load.")
        own = [item for item in inserted.items if item.name == spec.name]
        for expert, (path, checksum) in enumerate(zip(mixture.adapters, mixture.frozen, strict=True)):
            _read(model, spec, own, expert, path, checksum, key)
        plain = replace(mixture, adapters=[])
        for item in own:
            item.parts = replace(item.parts, mixture=plain)
        specs = list(inserted.method.insertions)
        specs[number] = replace(spec, mixture=plain)
        inserted.method = replace(inserted.method, insertions=tuple(specs))


def _read(
    model: nn.Module, spec: InsertionSpec, own: list[Insertion], expert: int, path: str, checksum: str, key: str
) -> None:
    source = Path(path).expanduser()
    description = description_of(source)
    if description.sha256 != checksum:
        raise UnipetError(f"{key}: {path} holds other tensors than when the method was read. Start again.")
    head = check_base_model(source, model, description)
    table = sites_for(model, table_of(source, description))
    made = build(model, method_of(source, description), table, torch.device("meta"), head)
    saved = _same_choices(made.method.insertions, spec, path, key)
    theirs = {item.site.name: item for item in made.items if item.name == saved.name}
    if theirs.keys() != {item.site.name for item in own}:
        raise UnipetError(
            f"{key}: {saved.name!r} of {path} has {len(theirs)} sites, and {spec.name!r} has {len(own)} here, or others. "
            "Give it the same position."
        )
    names = [
        f"{item.name}/{item.site.name}/{slot}"
        for item in made.items
        for bank in item.banks
        for slot, _ in (*bank.named_tensors(), *bank.settled_tensors())
    ]
    names += [f"{name}/shared/{slot}" for name, bank in made.shared.items() for slot, _ in bank.named_tensors()]
    tensors = unpack(tensors_of(source, description), names)
    for item in own:
        for name in item.bank.slot_of:
            tensor: Tensor = tensors[f"{saved.name}/{item.site.name}/{name}"]
            item.bank.home.parameter(item.bank.names[name, expert]).copy_(tensor)


def _same_choices(saved: tuple[InsertionSpec, ...], spec: InsertionSpec, path: str, key: str) -> InsertionSpec:
    """The saved insertion that makes the same choices: the one of the same name, or the only one."""
    named = [one for one in saved if one.name == spec.name] or list(saved)
    if len(named) != 1:
        raise UnipetError(
            f"{key}: {path} has insertions {', '.join(repr(one.name) for one in saved)} and none called {spec.name!r}. Call "
            "this one as one of them."
        )
    (one,) = named
    if one.mixture is not None:
        raise UnipetError(
            f"{key}: {one.name!r} of {path} is a mixture itself. Merge it first (unipet merge --partial)."
        )
    differing = [
        f"{dimension}.{name}: {there.get(name)!r} there, {here.get(name)!r} here"
        for dimension in ("function", "composition", "scaling")
        for there, here in [(_options(one, dimension), _options(spec, dimension))]
        for name in {**there, **here}
        if there.get(name) != here.get(name)
    ]
    if one.position.form != spec.position.form:
        differing.append(f"position.form: {one.position.form!r} there, {spec.position.form!r} here")
    if differing:
        raise UnipetError(
            f"{key}: {one.name!r} of {path} is another function: {'; '.join(differing[:4])}. Make them the same."
        )
    return one


def _options(spec: InsertionSpec, dimension: str) -> dict[str, object]:
    """The choice that an insertion makes in a dimension, without what only matters while it trains."""
    options: dict[str, dict[str, object]] = spec.to_dict()
    return {name: value for name, value in options[dimension].items() if name not in _IN_TRAINING}
