"""Whether a user's own table fits a model: the model must have every path and every number that the table names."""

from __future__ import annotations

import inspect
from collections.abc import Iterable
from difflib import get_close_matches
from typing import Any

from torch import nn

from unipet.calculus.sites.experts import INSIDE, why_not_inside
from unipet.calculus.sites.resolve import base_of, has_module
from unipet.calculus.sites.table import Architecture, HookPoint, Stack
from unipet.errors import UnipetError, nearest


def check_table(table: Architecture, model: nn.Module, key: str = "sites") -> None:
    """Raise UnipetError where `table` is for other models than this one, or names what this one does not have."""
    config: Any = getattr(model, "config", None)
    kind = str(getattr(config, "model_type", type(model).__name__))
    if kind not in table.model_types:
        raise UnipetError(
            f"{key}.model_types: {table.name} is for {', '.join(table.model_types)}; this model's model_type is "
            f"{kind!r}. Add it if the table fits."
        )
    for name, value in table.when.items():
        if (own := getattr(config, name, None)) != value:
            raise UnipetError(f"{key}.when.{name}: the table is for {value!r}, this model's configuration has {own!r}.")
    for name, stack in table.stacks.items():
        _check_stack(stack, base_of(model), config, f"{key}.stacks.{name}")


def widths_of(module: nn.Module) -> tuple[int, int] | None:
    """(in, out) of a linear map, also of transformers' transposed Conv1D; None for any other module."""
    if type(module).__name__ == "Conv1D":
        return int(module.weight.shape[0]), int(module.weight.shape[1])  # type: ignore[index]
    found = getattr(module, "in_features", None), getattr(module, "out_features", None)
    return (found[0], found[1]) if isinstance(found[0], int) and isinstance(found[1], int) else None


def calls_interface(module: nn.Module) -> bool:
    """Whether a module sends its attention through transformers' AttentionInterface."""
    return "ALL_ATTENTION_FUNCTIONS" in names_in_forward(module) and hasattr(module, "config")


def names_in_forward(module: nn.Module) -> tuple[str, ...]:
    """The names that the code of a module's forward mentions."""
    code = getattr(inspect.unwrap(type(module).forward), "__code__", None)
    return () if code is None else tuple(code.co_names)


def _check_stack(stack: Stack, base: nn.Module, config: Any, key: str) -> None:
    lists = [path for path, module in base.named_modules() if isinstance(module, nn.ModuleList) and len(module)]
    if stack.layers not in lists:
        raise UnipetError(
            f"{key}.layers: {stack.layers!r} is no list of layers of {type(base).__name__}."
            f"{nearest(stack.layers, lists)} It has: {', '.join(lists[:12]) or 'none'}."
        )
    layers: list[nn.Module] = list(base.get_submodule(stack.layers).children())
    for role, points in stack.roles.items():
        _check_role(points, layers, f"{key}.roles.{role}", f"no layer of {stack.layers}")
    for role, points in stack.outside.items():
        _check_role(points, [base], f"{key}.outside.{role}", type(base).__name__)
    for name, norms in (("norms", stack.norms), ("post_norms", stack.post_norms)):
        for block, path in norms.items():
            _check_role((HookPoint(path),), layers, f"{key}.{name}.{block}", f"no layer of {stack.layers}")
    if not has_module(base, stack.entry):
        raise UnipetError(
            f"{key}.entry: {type(base).__name__} has no module {stack.entry!r}.{_near(stack.entry, [base])}"
        )
    _check_geometry(stack, layers, config, key)


def _check_role(points: Iterable[HookPoint], owners: list[nn.Module], key: str, owner: str) -> None:
    """A hook point may be missing (as a gate is where the feed-forward block has none), a role not."""
    missing: list[tuple[str, str]] = []
    for point in points:
        paths = {"h": point.h, **({} if point.x is None else {"x": point.x})}
        lacks = [(tensor, path) for tensor, path in paths.items() if not any(has_module(one, path) for one in owners)]
        missing += lacks
        if not lacks:
            found = next(one for one in owners if has_module(one, point.h)).get_submodule(point.h)
            return _check_point(point, found, key)
    tensor, path = missing[0]
    has = f"{owner} has" if owner.startswith("no ") else f"{owner} does not have"
    raise UnipetError(f"{key}: {has} a module {path!r} (its {tensor}).{_near(path, owners)}")


def _check_point(point: HookPoint, module: nn.Module, key: str) -> None:
    if point.at == "heads" and not calls_interface(module):
        raise UnipetError(
            f"{key}: {type(module).__name__} does not send its attention through transformers' AttentionInterface, so "
            "nothing can act on its heads. Leave the role out; `without` may say why."
        )
    if point.at in INSIDE and (reason := why_not_inside(module)) is not None:
        raise UnipetError(f"{key}: nothing can act inside of the experts: {reason}. Leave the role out.")
    widths = widths_of(module)
    if point.part is not None and (widths is None or widths[1] % point.part[1]):
        wide = f"{type(module).__name__} is no linear map" if widths is None else f"its output is {widths[1]} wide"
        raise UnipetError(f"{key}.part: {point.h!r} does not have {point.part[1]} equal parts: {wide}.")


def _check_geometry(stack: Stack, layers: list[nn.Module], config: Any, key: str) -> None:
    """The configuration's names must be there, and agree with the projections where these stand by themselves."""
    numbers = {"hidden": stack.hidden, "heads": stack.heads}
    numbers |= {
        field: name for field in ("kv_heads", "head_dim") if (name := getattr(stack, field)) != getattr(Stack, field)
    }
    for field, name in numbers.items():
        value = getattr(config, name, None)
        if type(value) is not int or value < 1:
            known = [known for known, number in vars(config).items() if type(number) is int]
            raise UnipetError(
                f"{key}.{field}: this model's configuration has no whole number {name!r}.{nearest(name, known)} "
                f"It has: {', '.join(known)}."
            )
    _, heads, kv_heads, head_dim = stack.geometry(config)
    for role, count, field in (
        ("attn.q", heads, "heads"),
        ("attn.k", kv_heads, "kv_heads"),
        ("attn.v", kv_heads, "kv_heads"),
    ):
        for point in stack.roles.get(role, ()):
            module = next((layer.get_submodule(point.h) for layer in layers if has_module(layer, point.h)), None)
            widths = None if module is None or point.part is not None else widths_of(module)
            if widths is not None and widths[1] != count * head_dim:
                raise UnipetError(
                    f"{key}.{field}: {getattr(stack, field)!r} and {stack.head_dim!r} give {count} heads of {head_dim}, but "
                    f"{point.h} ({role}) is {widths[1]} wide. Name the configuration's own numbers."
                )


def _near(path: str, owners: list[nn.Module]) -> str:
    """A hint at the nearest module path, as the end of a message."""
    paths = list(dict.fromkeys(name for one in owners for name, module in one.named_modules() if name))
    leaf = path.rpartition(".")[2]
    match = get_close_matches(path, paths, n=1, cutoff=0.5) or [p for p in paths if p.rpartition(".")[2] == leaf][:1]
    match = match or get_close_matches(path, paths, n=1, cutoff=0.0)
    return f" Nearest: {match[0]!r}." if match else ""
