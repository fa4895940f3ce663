"""From a method and a base model to insertions: resolve every site, measure it, build. Touches nothing of the model."""

from __future__ import annotations

import torch
from torch import nn

from unipet.adaptation import Adaptation
from unipet.errors import UnipetError
from unipet.functions.base import Widths
from unipet.insertion import Insertion
from unipet.method import InsertionSpec, Method
from unipet.mixture import Bank
from unipet.sites import ARCHITECTURES, Architecture, Site, architecture_of, head_prefix, resolve
from unipet.weights import in_width, out_width, quantised

#: How the class names of normalisation layers end.
_NORMS = ("layernorm", "rmsnorm")
#: In the class names of position embeddings that are a formula kept as a parameter: no gradient ever reaches them.
_CONSTANT = "sinusoidal"


def build(model: nn.Module, method: Method, sites: Architecture | None = None) -> Adaptation:
    """The adaptation of `model` by `method`, not yet attached; `sites` is a table for an architecture of the user's own.

    Raises UnipetError if any part does not fit.
    """
    insertions: list[Insertion] = []
    shared: dict[str, Bank] = {}
    dtype, device = _dtype_and_device(model)
    # A method without insertions needs to know nothing of the architecture.
    table = (sites or architecture_of(model, ARCHITECTURES)) if method.insertions else None
    for spec in method.insertions:
        assert table is not None
        where = f"method.insertions.{spec.name}"
        found = resolve(model, table, spec.position, f"{where}.position")
        widths = [_read_by(spec, _widths(model, table, site)) for site in found]
        _check_forms(spec, found, where)
        slots = spec.function.shared(widths[0]) if widths else {}
        if slots:
            if any(spec.function.shared(other) != slots for other in widths):
                raise UnipetError(
                    f"{where}: its sites share tensors but differ in width: {sorted({w.u for w in widths})}."
                )
            shared[spec.name] = Bank(slots, getattr(spec.function, "init", "torch"), None, dtype, device)
        insertions += [
            Insertion(spec.name, spec.parts, site, width, dtype, device)
            for site, width in zip(found, widths, strict=True)
        ]
    entries = {name: stack.entry for name, stack in table.stacks.items()} if table else {}
    present = {insertion.site.stack for insertion in insertions} | {i.site.tokens_of for i in insertions}
    adaptation = Adaptation(method, insertions, shared, {k: v for k, v in entries.items() if k in present})
    adaptation.unfrozen = unfrozen(model, method)
    if not insertions and not adaptation.unfrozen:
        raise UnipetError(
            f"method {method.name!r} would train nothing on this {type(model).__name__}: no insertion, and "
            f"unfreeze: {list(method.unfreeze)} matches no parameter."
        )
    return adaptation


def _dtype_and_device(model: nn.Module) -> tuple[torch.dtype, torch.device]:
    """Half-precision base models get float32 insertions: their small steps would be lost in half precision."""
    parameter = next((p for p in model.parameters() if p.is_floating_point()), next(model.parameters()))
    wide = parameter.dtype in (torch.float32, torch.float64)
    return (parameter.dtype if wide else torch.float32), parameter.device


def unfrozen(model: nn.Module, method: Method) -> dict[str, str]:
    """Base parameters that train, each with the part that named it. `all` is the base model and the head."""
    prefix = head_prefix(model)
    found: dict[str, str] = {}
    given = dict(model.named_parameters())
    for part in method.unfreeze:
        names = [name for name in given if _in_part(model, name, part, prefix)]
        if not names and part != "head":
            raise UnipetError(f"method.unfreeze: {part!r} matches no parameter of this {type(model).__name__}.")
        for name in names:
            if stored := quantised(given[name]):
                raise UnipetError(
                    f"method.unfreeze: {part!r} includes {name}, which is stored quantised ({stored}) and cannot train. "
                    "Unfreeze other parts (norm, bias), or load the base model with that weight unquantised."
                )
            is_head = bool(prefix) and not name.startswith(prefix)
            found.setdefault(name, "head" if is_head else part)
    return found


def _in_part(model: nn.Module, name: str, part: str, prefix: str) -> bool:
    is_head = bool(prefix) and not name.startswith(prefix)
    if part == "head" or is_head:
        return is_head and part in ("head", "all")
    path, _, leaf = name.rpartition(".")
    module = model.get_submodule(path)
    if _CONSTANT in type(module).__name__.lower():
        return False
    if part == "bias":
        return leaf == "bias"
    if part == "norm":
        return type(module).__name__.lower().endswith(_NORMS)
    if part == "embeddings":
        return isinstance(module, nn.Embedding)
    return True


def _widths(model: nn.Module, table: Architecture, site: Site) -> Widths:
    """Widths at a site, read from its modules; a block counts as wide as the residual stream."""
    hidden, heads, kv_heads, head_dim = table.stacks[site.stack].geometry(model.config)
    module, reader = model.get_submodule(site.path), model.get_submodule(site.x_path)
    if site.at == "heads":
        return Widths(in_width(reader) or hidden, heads * head_dim, heads, kv_heads, head_dim)
    if site.at in ("input", "stream"):
        width = in_width(module) or hidden
        return Widths(width if site.x_path == site.path else in_width(reader) or hidden, width)
    h = out_width(module) or hidden
    return Widths(in_width(reader) or hidden, h // site.part.count if site.part else h)


def _check_forms(spec: InsertionSpec, sites: list[Site], where: str) -> None:
    for site in sites:
        if site.role == "embed" and spec.position.form == "parallel" and spec.function.reads == "u":
            raise UnipetError(
                f"{where}.position.form: x of embed is the token ids. Use form: sequential, which reads h."
            )
        own = site.at == "input" and site.x_path == site.path
        if own and spec.position.form == "parallel" and spec.function.reads == "u":
            raise UnipetError(
                f"{where}.position.form: {site.role} is an activation, it has no x of its own. Use form: sequential."
            )


def _read_by(spec: InsertionSpec, widths: Widths) -> Widths:
    """The widths as the function sees them: in sequential form it reads h itself."""
    if spec.position.form != "sequential":
        return widths
    return Widths(widths.h, widths.h, widths.heads, widths.kv_heads, widths.head_dim)
