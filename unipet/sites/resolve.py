"""From roles to modules: which sites a position has on one base model. Everything or an error, never a partial match."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from torch import nn

from unipet.errors import UnipetError, nearest
from unipet.sites.position import Position, layer_indices
from unipet.sites.table import ROLES, Architecture, Tap


@dataclass(frozen=True)
class Site:
    """One place on one base model.

    `path` names the module whose output (or input, or heads) is h; `x_path` the module whose first input is x.
    """

    role: str
    path: str
    x_path: str
    at: str
    stack: str | None
    layer: int | None
    pre_norm: bool = False


def prefix_of(model: nn.Module) -> str:
    """The path of the base model inside `model`: "bert." under a task head, "" for the bare base model."""
    name = getattr(model, "base_model_prefix", "")
    return f"{name}." if name and isinstance(getattr(model, name, None), nn.Module) else ""


def base_of(model: nn.Module) -> nn.Module:
    """The base model inside `model` (itself where there is no head)."""
    return model.get_submodule(prefix_of(model).rstrip("."))


def architecture_of(model: nn.Module, tables: dict[str, Architecture]) -> Architecture:
    """The table for this model. Raises UnipetError with the modules found where there is none."""
    model_type = str(getattr(getattr(model, "config", None), "model_type", type(model).__name__))
    for table in tables.values():
        if model_type in table.model_types:
            return table
    known = sorted(name for table in tables.values() for name in table.model_types)
    kinds = sorted({_without_numbers(name) for name, _ in base_of(model).named_modules() if name})
    shown = ", ".join(kinds[:30]) + (", ..." if len(kinds) > 30 else "")
    raise UnipetError(
        f"No site table for the architecture {model_type!r}.{nearest(model_type, known)} Tables exist for: "
        f"{', '.join(known)}. A table is one file in unipet/sites naming the modules of each role; "
        f"this model's modules are: {shown}."
    )


def _without_numbers(path: str) -> str:
    return ".".join("*" if part.isdigit() else part for part in path.split("."))


def resolve(model: nn.Module, table: Architecture, position: Position, where: str) -> list[Site]:
    """Every site of a position, in layer order. Raises UnipetError for a role that matches nothing here."""
    if position.input == "pre_norm" and not table.pre_norm:
        raise UnipetError(
            f"{where}.input: {table.name} normalises after each block, so it has no pre_norm stream. Use post_norm."
        )
    if position.stack != "all" and position.stack not in table.stacks:
        raise UnipetError(
            f"{where}.stack: {table.name} has no {position.stack} stack. It has: {', '.join(table.stacks)}."
        )
    sites: list[Site] = []
    for role in position.site:
        if role not in ROLES and role not in table.roles():
            raise UnipetError(
                f"{where}.site: unknown role {role!r}.{nearest(role, ROLES)} {table.name} has: {', '.join(table.roles())}."
            )
        found = _sites_of(role, model, table, position, where)
        if not found and not position.optional:
            raise UnipetError(
                f"{where}.site: {role!r} matches nothing on this {table.name} model. It has: {', '.join(table.roles())}. "
                "Choose one of them, or say optional: true."
            )
        sites += found
    return sites


def _sites_of(role: str, model: nn.Module, table: Architecture, position: Position, where: str) -> list[Site]:
    prefix = prefix_of(model)
    sites: list[Site] = []
    if position.layers == "all" and position.stack == "all":
        sites += [_site(role, tap, prefix, None, None) for tap in table.outside.get(role, ())]
    for name, stack in table.stacks.items():
        if position.stack not in ("all", name) or role not in stack.roles:
            continue
        layers: Any = model.get_submodule(prefix + stack.layers)
        for index in layer_indices(position.layers, len(layers), f"{where}.layers"):
            root = f"{prefix}{stack.layers}.{index}."
            sites += [_site(role, tap, root, name, index) for tap in stack.roles[role]]
    return sites


def _site(role: str, tap: Tap, root: str, stack: str | None, layer: int | None) -> Site:
    path = (root + tap.h).rstrip(".")
    x_path = path if tap.x is None else (root + tap.x).rstrip(".")
    return Site(role, path, x_path, tap.at, stack, layer)
