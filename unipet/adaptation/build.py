"""From a method and a base model to insertions: resolve every site, measure it, build. Touches nothing of the model."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import nn

from unipet.adaptation.adapted import Adaptation
from unipet.adaptation.place_checks import check_forms, check_in_memory, check_inside
from unipet.adaptation.prefix_init import start_from_text
from unipet.adaptation.room_for_tensors import Room
from unipet.adaptation.stack_hooks import lengthened, stacks_of, vocabulary
from unipet.calculus.bank import Bank, Contents
from unipet.calculus.functions.base import Widths
from unipet.calculus.insertion import Insertion
from unipet.calculus.insertion_parts import frozen_of, inside
from unipet.calculus.method import InsertionSpec, Method
from unipet.calculus.sites import (
    ARCHITECTURES,
    INSIDE,
    Architecture,
    Position,
    Site,
    architecture_of,
    head_names,
    is_formula,
    module_at,
    module_of,
    resolve,
)
from unipet.calculus.weights import BaseWeight, in_width, out_width, quantised, why_no_matrix
from unipet.errors import UnipetError

#: How the class names of normalisation layers end.
_NORMS = ("layernorm", "rmsnorm")


def build(
    model: nn.Module,
    method: Method,
    sites: Architecture | None = None,
    device: torch.device | None = None,
    head: frozenset[str] | None = None,
    most: int | None = None,
) -> Adaptation:
    """The adaptation of `model` by `method`, not yet attached; `sites` is a table for an architecture of the user's own,
    `device` where to make it, if not where the model is ("meta" makes nothing and starts nothing), `head` the names of
    the head's parameters where they are known (a saved adapter says them), `most` how many numbers there are to fill it.
    Raises UnipetError if any part does not fit."""
    insertions: list[Insertion] = []
    shared: dict[str, Bank] = {}
    dtype, where_it_is = _dtype_and_device(model)
    device = device or where_it_is
    check_in_memory(model, device)
    table = (
        (sites or architecture_of(model, ARCHITECTURES)) if method.insertions else None
    )  # else any architecture will do
    room = Room(dtype, device, most)
    for spec in method.insertions:
        assert table is not None
        key = f"method.insertions.{spec.name}"
        found, widths = places(model, table, spec)
        room.take(spec, widths)
        try:
            bank = _shared(spec, widths, dtype, device)
        except UnipetError as error:
            raise inside(key, error) from error
        if bank is not None:
            shared[spec.name] = bank
        parts = spec.parts
        for site, width in zip(found, widths, strict=True):
            base = _base(model, table, spec, site, key) if parts.needs_weight else None
            if site.on_input and (spec.function.needs_weight or spec.function.needs_bias):
                raise UnipetError(
                    f"{key}.position.site: it makes an output of {site.path} with that module's weight or bias, and at "
                    f"{site.name} h is the module's input. Use a site that is a linear module's output."
                )
            try:
                insertions.append(Insertion(spec.name, parts, site, width, dtype, device, base))
            except UnipetError as error:
                raise inside(key, error, f" This is at {site.name}.") from error
            if spec.function.needs_projections:
                insertions[-1].projections = _projections(model, table, site, key)
            if spec.function.reads_x:
                insertions[-1].query = _query(model, table, site, key)
    if table is not None:
        start_from_text(model, table, insertions)
    entries = {name: stack.entry for name, stack in table.stacks.items()} if table else {}
    present = {insertion.site.stack for insertion in insertions} | {i.site.tokens_of for i in insertions}
    if table and any(insertion.parts.composition.lengthens for insertion in insertions):
        present |= set(stacks_of(model, table))
    adaptation = Adaptation(method, insertions, shared, {k: v for k, v in entries.items() if k in present})
    adaptation.head = head_names(model) if head is None else head
    adaptation.unfrozen = unfrozen(model, method, adaptation.head)
    if method.trains and not insertions and not adaptation.unfrozen:
        raise UnipetError(
            f"method {method.name!r} would train nothing on this {type(model).__name__}: no insertion, and "
            f"unfreeze: {list(method.unfreeze)} matches no parameter."
        )
    return adaptation


def places(model: nn.Module, table: Architecture, spec: InsertionSpec) -> tuple[list[Site], list[Widths]]:
    """The sites of one insertion, and what each tells its function. Raises UnipetError where they cannot be."""
    key = f"method.insertions.{spec.name}"
    found = _with_bias(model, spec, resolve(model, table, spec.position, f"{key}.position"), key)
    geometry = {stack: table.stacks[stack].geometry(model.config) for stack in {site.stack for site in found}}
    measured = [_read_by(spec, _widths(model, site, *geometry[site.stack])) for site in found]
    widths = [replace(one, number=number) for number, one in enumerate(measured)]
    if spec.composition.lengthens:
        found, widths = lengthened(model, table, spec, found, widths)
    check_forms(spec, found, key)
    check_inside(spec, found, key)
    return found, widths


def _shared(spec: InsertionSpec, widths: list[Widths], dtype: torch.dtype, device: torch.device) -> Bank | None:
    """What all sites of an insertion use together."""
    function = spec.function
    slots = function.shared(widths)
    frozen = frozen_of(function, "shared_frozen", widths, spec.name) if widths else {}
    if not slots and not frozen:
        return None
    return Bank([Contents(slots, getattr(function, "init", "torch"), frozen)], None, dtype, device)


def _with_bias(model: nn.Module, spec: InsertionSpec, sites: list[Site], key: str) -> list[Site]:
    """The sites without those whose module lacks the bias that the function computes with."""
    if not spec.function.needs_bias:
        return sites
    lacking = [site for site in sites if getattr(module_of(model, site), "bias", None) is None]
    for site in lacking:
        if not spec.position.may_miss(site.role):
            raise UnipetError(
                f"{key}.position.site: it computes with the bias of {site.path}, which has none. Leave {site.role} "
                f"out, or say optional: [{site.role}]."
            )
    return [site for site in sites if site not in lacking]


def _query(model: nn.Module, table: Architecture, site: Site, key: str) -> BaseWeight:
    """The query projection of the attention at `site`; its output must be what the attention multiplies with the keys."""
    position = Position(site=[site.role.replace("heads", "q")], layers=[site.layer], stack=site.stack)
    found = resolve(model, table, position, f"{key}.position")[0]
    changed = [name for name, _ in model.named_modules() if "rotary" in name or "q_norm" in name]
    reason = why_no_matrix(module_at(model, found.path)) or (f"the model has {changed[0]}" if changed else None)
    if reason:
        raise UnipetError(
            f"{key}.function.norm: it makes queries with {found.path} alone, but {reason}. Use function.norm: none."
        )
    return BaseWeight(module_at(model, found.path), found.part)


def _projections(model: nn.Module, table: Architecture, site: Site, key: str) -> dict[str, BaseWeight]:
    """The key and value projections of the attention at `site`."""
    made: dict[str, BaseWeight] = {}
    for name, letter in (("keys", "k"), ("values", "v")):
        position = Position(site=[site.role.replace("heads", letter)], layers=[site.layer], stack=site.stack)
        found = resolve(model, table, position, f"{key}.position")[0]
        module = module_at(model, found.path)
        if reason := why_no_matrix(module):
            raise UnipetError(f"{key}.function: it makes {name} with {found.path}, but {reason}.")
        made[name] = BaseWeight(module, found.part)
    return made


def _base(model: nn.Module, table: Architecture, spec: InsertionSpec, site: Site, key: str) -> BaseWeight:
    """The weight that an insertion reads."""
    if spec.composition.lengthens:
        return vocabulary(model, table, site, key)
    module = module_of(model, site)
    reason = why_no_matrix(module)
    if reason is None and (module.weight.dim() != 2 or site.at not in ("output", "input", *INSIDE)):
        reason = f"{type(module).__name__} is no linear map"
    if reason is None and site.x_path != site.path:
        reason = "x is not the input of the module that yields h"
    if reason is not None:
        raise UnipetError(
            f"{key}.position.site: it computes with the base model's weight at {site.path}, and {reason}. "
            "Use the site of a plain linear projection (attn.q, ffn.up, ...)."
        )
    return BaseWeight(module, site.part)


def _dtype_and_device(model: nn.Module) -> tuple[torch.dtype, torch.device]:
    """Half-precision base models get float32 insertions: their small steps would be lost in half precision."""
    parameter = next((p for p in model.parameters() if p.is_floating_point()), next(model.parameters()))
    wide = parameter.dtype in (torch.float32, torch.float64)
    return (parameter.dtype if wide else torch.float32), parameter.device


def unfrozen(model: nn.Module, method: Method, head: frozenset[str]) -> dict[str, str]:
    """Base parameters that train, each with the part that named it. `all` is the base model and the head."""
    found: dict[str, str] = {}
    given = dict(model.named_parameters()) if method.unfreeze else {}
    for part in method.unfreeze:
        names = [name for name in given if _in_part(model, name, part, name in head)]
        if not names and part != "head":
            raise UnipetError(f"method.unfreeze: {part!r} matches no parameter of this {type(model).__name__}.")
        for name in names:
            if stored := quantised(given[name]):
                raise UnipetError(
                    f"method.unfreeze: {part!r} includes {name}, which is stored quantised ({stored}) and cannot train. "
                    "Unfreeze other parts (norm, bias), or load the base model with that weight unquantised."
                )
            found.setdefault(name, "head" if name in head else part)
    return found


def _in_part(model: nn.Module, name: str, part: str, is_head: bool) -> bool:
    if part == "head" or is_head:
        return is_head and part in ("head", "all")
    path, _, leaf = name.rpartition(".")
    module = module_at(model, path)
    if is_formula(module):
        return False
    if part == "bias":
        return leaf == "bias"
    if part == "norm":
        return type(module).__name__.lower().endswith(_NORMS)
    if part == "embeddings":
        return isinstance(module, nn.Embedding)
    return True


def _widths(model: nn.Module, site: Site, hidden: int, heads: int, kv_heads: int, head_dim: int) -> Widths:
    """Widths at a site, read from its modules; a block counts as wide as the residual stream."""
    module = module_of(model, site)
    reader = module if site.x_path == site.path else module_at(model, site.x_path)
    if site.role == "embed.tokens":
        scale = getattr(module, "scalar_embed_scale", getattr(module, "embed_scale", 1.0))
        return Widths(module.num_embeddings, module.embedding_dim, scale=float(scale))
    if site.at == "heads":
        return Widths(in_width(reader) or hidden, heads * head_dim, heads, kv_heads, head_dim)
    if site.at in ("input", "stream", "expert.mid"):
        width = in_width(module) or hidden
        return Widths(width if site.x_path == site.path else in_width(reader) or hidden, width)
    h = out_width(module) or hidden
    return Widths(in_width(reader) or hidden, h // site.part.count if site.part else h)


def _read_by(spec: InsertionSpec, widths: Widths) -> Widths:
    """The widths as the function sees them: in sequential form it reads h itself."""
    if spec.position.form != "sequential":
        return widths
    return Widths(widths.h, widths.h, widths.heads, widths.kv_heads, widths.head_dim)
