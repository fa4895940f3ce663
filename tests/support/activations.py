"""What the tests of the site tables share: one forward pass of a tiny model in which everything is written down."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor, nn

import unipet
from tests.support.architectures import ARCHS, LAYERS
from unipet.adaptation.adapted import adaptation
from unipet.calculus.insertion_parts import InsertionParts
from unipet.calculus.sites import ARCHITECTURES, Architecture, architecture_of, base_of

ROWS = 3
Place = tuple[str, str, int | None]  # role, stack, layer


@dataclass
class Pass:
    """One forward pass: h and x as insertions are handed them, and what hooks of our own saw, whatever a table says."""

    model: nn.Module
    table: Architecture
    h: dict[Place, list[Tensor]] = field(default_factory=dict)
    x: dict[Place, list[Any]] = field(default_factory=dict)
    layers: dict[tuple[str, int], tuple[Tensor, Tensor]] = field(default_factory=dict)  # stream in, stream out
    norms: list[tuple[str, Tensor, Tensor]] = field(default_factory=list)  # path, input, output
    attention: dict[str, tuple[Tensor, Tensor, Tensor, Tensor]] = field(default_factory=dict)  # path -> q, k, v, heads
    names: dict[nn.Module, str] = field(default_factory=dict)

    def one(self, role: str, stack: str, layer: int | None) -> Tensor:
        (found,) = self.h[role, stack, layer]
        return found

    def one_x(self, role: str, stack: str, layer: int | None) -> Any:
        (found,) = self.x[role, stack, layer]
        return found

    def normed(self, value: Tensor) -> list[Tensor]:
        """The outputs of every norm that read this value."""
        return [out for _, given, out in self.norms if same(given, value)]


def same(one: Tensor, other: Tensor) -> bool:
    """Equal up to rounding; attention may return another memory layout, and sums another order."""
    if one.shape != other.shape:
        return False
    return torch.allclose(one, other, atol=1e-5 * max(1.0, float(other.abs().max())), rtol=1e-5)


def table_of(name: str) -> Architecture:
    return architecture_of(ARCHS[name].build(), ARCHITECTURES)


def layer_lists(model: nn.Module) -> dict[str, tuple[str, nn.ModuleList]]:
    """The stacks' layers, found without a table: the outermost lists of `LAYERS` modules that hold parameters."""
    found: list[tuple[str, nn.ModuleList]] = []
    for path, module in model.named_modules():
        inside = path.startswith("_unipet") or any(path.startswith(f"{outer}.") for outer, _ in found)
        if isinstance(module, nn.ModuleList) and len(module) == LAYERS and not inside and list(module.parameters()):
            found.append((path, module))
    if len(found) == 2:
        return dict(zip(("encoder", "decoder"), found, strict=True))
    (single,) = found
    return {"encoder": single, "decoder": single}  # what a single stack is called is the table's to say


def probe(
    name: str,
    *,
    roles: list[str] | None = None,
    values: float = 0.0,
    prepare: Callable[[nn.Module], None] = lambda model: None,
    **position: Any,
) -> Pass:
    """Run the model with a vector (by default of zeros: the identity) at every role of its table, and write down all."""
    arch = ARCHS[name]
    model = arch.build(attention="eager")
    prepare(model)
    seen = Pass(model, table_of(name), names={module: path for path, module in model.named_modules()})
    roles = seen.table.roles() if roles is None else roles
    insertions = {
        f"probe_{role.replace('.', '_')}": {
            "function": "vector",
            "position": {"site": role, "optional": True, **position},
        }
        for role in roles
    }
    with patch.object(InsertionParts, "reads_x", True):  # probes read none, and heads are handed what is read
        unipet.adapt(model, {"name": "probe", "insertions": insertions})
    generator = torch.Generator().manual_seed(0)
    for parameter in unipet.parameters(model).values():
        parameter.data.add_(torch.randn(parameter.shape, generator=generator), alpha=values)
    for insertion in adaptation(model).items:
        insertion.register_forward_pre_hook(lambda m, args: _note(seen, m.site, args))
    with torch.no_grad(), _watched(seen):
        model(**arch.batch(ROWS))
    return seen


def _note(seen: Pass, site: Any, args: tuple[Any, ...]) -> None:
    place = (site.role, site.stack, site.layer)
    seen.h.setdefault(place, []).append(args[0].clone())
    seen.x.setdefault(place, []).append(args[1].clone() if isinstance(args[1], Tensor) else args[1])


@contextmanager
def _watched(seen: Pass) -> Iterator[None]:
    """Hooks on layers and norms, and a note of every call of the models' own eager attention."""
    handles, patched = [], []
    for stack, (_, layers) in layer_lists(seen.model).items():
        for index, layer in enumerate(layers):
            handles.append(layer.register_forward_hook(_layer_hook(seen, stack, index)))
    for path, module in base_of(seen.model).named_modules():
        if type(module).__name__.lower().endswith("norm"):
            handles.append(module.register_forward_hook(_norm_hook(seen, path)))
    spaces = {id(space): space for module in seen.model.modules() if (space := _namespace(module)) is not None}
    for space in spaces.values():
        patched.append((space, space["eager_attention_forward"]))
        space["eager_attention_forward"] = _recording(seen, space["eager_attention_forward"])
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
        for space, original in patched:
            space["eager_attention_forward"] = original


def _namespace(module: nn.Module) -> dict[str, Any] | None:
    space: dict[str, Any] = getattr(inspect.unwrap(type(module).forward), "__globals__", {})
    return space if "eager_attention_forward" in space else None


def _recording(seen: Pass, original: Any) -> Any:
    def attend(module: nn.Module, query: Tensor, key: Tensor, value: Tensor, *args: Any, **kwargs: Any) -> Any:
        found = original(module, query, key, value, *args, **kwargs)
        seen.attention[seen.names[module]] = (query.clone(), key.clone(), value.clone(), found[0].flatten(2).clone())
        return found

    return attend


def _layer_hook(seen: Pass, stack: str, index: int) -> Any:
    def hook(module: nn.Module, args: tuple[Any, ...], output: Any) -> None:
        out = output[0] if isinstance(output, tuple) else output
        seen.layers[stack, index] = (args[0].clone(), out.clone())

    return hook


def _norm_hook(seen: Pass, path: str) -> Any:
    def hook(module: nn.Module, args: tuple[Any, ...], output: Tensor) -> None:
        pair = [
            value.clone().view(ROWS, -1, value.shape[-1]) if value.dim() == 2 else value.clone()
            for value in (args[0], output)
        ]
        seen.norms.append((path, pair[0], pair[1]))  # OPT puts all tokens of a batch in one dimension

    return hook
