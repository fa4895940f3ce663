"""From a method and a base model to insertions: resolve every site, measure it, build. Touches nothing of the model."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from unipet.adaptation import Adaptation
from unipet.errors import UnipetError
from unipet.functions.base import Widths
from unipet.insertion import Insertion
from unipet.method import InsertionSpec, Method
from unipet.mixture import Bank
from unipet.sites import ARCHITECTURES, Site, architecture_of, prefix_of, resolve

#: How the class names of normalisation layers end.
_NORMS = ("layernorm", "rmsnorm")


@dataclass(frozen=True)
class Heads:
    """The head geometry of a model's attention."""

    heads: int
    kv_heads: int
    head_dim: int


def build(model: nn.Module, method: Method) -> Adaptation:
    """The adaptation of `model` by `method`, not yet attached. Raises UnipetError if any part does not fit."""
    insertions: list[Insertion] = []
    shared: dict[str, Bank] = {}
    dtype, device = _dtype_and_device(model)
    for spec in method.insertions:
        where = f"method.insertions.{spec.name}"
        table = architecture_of(model, ARCHITECTURES)
        sites = resolve(model, table, spec.position, f"{where}.position")
        widths = [_read_by(spec, _widths(model, site)) for site in sites]
        _check_widths(spec, sites, widths, where)
        slots = spec.function.shared(widths[0]) if widths else {}
        if slots:
            if len(set(widths)) > 1:
                raise UnipetError(
                    f"{where}: its sites share tensors but differ in width: {sorted({w.u for w in widths})}."
                )
            shared[spec.name] = Bank(slots, getattr(spec.function, "init", "torch"), None, dtype, device)
        insertions += [
            Insertion(spec.name, spec.parts, site, width, dtype, device)
            for site, width in zip(sites, widths, strict=True)
        ]
    adaptation = Adaptation(method, insertions, shared)
    adaptation.unfrozen = unfrozen(model, method)
    if not insertions and not adaptation.unfrozen:
        raise UnipetError(
            f"method {method.name!r} would train nothing on this {type(model).__name__}: no insertion, and "
            f"unfreeze: {list(method.unfreeze)} matches no parameter."
        )
    return adaptation


def _dtype_and_device(model: nn.Module) -> tuple[torch.dtype, torch.device]:
    """Half-precision base models get float32 insertions: their small steps would be lost in half precision."""
    parameter = next(model.parameters())
    wide = parameter.dtype in (torch.float32, torch.float64)
    return (parameter.dtype if wide else torch.float32), parameter.device


def unfrozen(model: nn.Module, method: Method) -> dict[str, str]:
    """Base parameters that train, each with the part that named it. `all` is the base model and the head."""
    prefix = prefix_of(model)
    found: dict[str, str] = {}
    for part in method.unfreeze:
        names = [name for name, _ in model.named_parameters() if _in_part(model, name, part, prefix)]
        if not names and part != "head":
            raise UnipetError(f"method.unfreeze: {part!r} matches no parameter of this {type(model).__name__}.")
        for name in names:
            is_head = bool(prefix) and not name.startswith(prefix)
            found.setdefault(name, "head" if is_head else part)
    return found


def _in_part(model: nn.Module, name: str, part: str, prefix: str) -> bool:
    is_head = bool(prefix) and not name.startswith(prefix)
    path, _, leaf = name.rpartition(".")
    module = model.get_submodule(path)
    if part == "head" or is_head:
        return is_head and part in ("head", "all")
    if part == "bias":
        return leaf == "bias"
    if part == "norm":
        return type(module).__name__.lower().endswith(_NORMS)
    if part == "embeddings":
        return isinstance(module, nn.Embedding)
    return True


def _widths(model: nn.Module, site: Site) -> Widths:
    """Widths at a site, read from its modules; a block counts as wide as the residual stream."""
    hidden = int(model.config.hidden_size)  # type: ignore[union-attr,arg-type]
    module, reader = model.get_submodule(site.path), model.get_submodule(site.x_path)
    if site.at == "heads":
        geometry = _geometry(model.config)
        h = geometry.heads * geometry.head_dim
        return Widths(hidden, h, geometry.heads, geometry.kv_heads, geometry.head_dim)
    if site.at == "input":
        width = _read(module, "in_features", hidden)
        return Widths(width, width)
    u = _read(reader, "in_features", _read(module, "out_features", hidden) if site.x_path == site.path else hidden)
    return Widths(u, _read(module, "out_features", hidden))


def _geometry(config: Any) -> Heads:
    heads = int(config.num_attention_heads)
    kv_heads = int(getattr(config, "num_key_value_heads", None) or heads)
    head_dim = int(getattr(config, "head_dim", None) or config.hidden_size // heads)
    return Heads(heads, kv_heads, head_dim)


def _read(module: nn.Module, attribute: str, default: int) -> int:
    return int(getattr(module, attribute, default))


def _check_widths(spec: InsertionSpec, sites: list[Site], widths: list[Widths], where: str) -> None:
    for site in sites:
        if site.at == "input" and spec.position.form == "parallel" and spec.function.reads == "u":
            raise UnipetError(
                f"{where}.position.form: {site.role} is an activation, it has no x of its own. Use form: sequential."
            )


def _read_by(spec: InsertionSpec, widths: Widths) -> Widths:
    """The widths as the function sees them: in sequential form it reads h itself."""
    if spec.position.form != "sequential":
        return widths
    return Widths(widths.h, widths.h, widths.heads, widths.kv_heads, widths.head_dim)
