"""Reading the oracles: a base model, its tensors, and the declared map from our parameter names to the oracle's keys.

An oracle is one safetensors file of `UNIPET_ORACLES` (default ../shared/oracles), described by its INDEX.json.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import Any

import torch
import transformers
import yaml
from safetensors.torch import load_file
from torch import Tensor, nn

import unipet
from tests.support.checkout import SHARED
from unipet.adaptation.api import adaptation, frozen
from unipet.calculus.sites import ARCHITECTURES, Architecture, Position, Site, architecture_of, prefix_of, resolve
from unipet.calculus.sites.table import ROLES
from unipet.config import conf_dir

ORACLES = Path(os.environ.get("UNIPET_ORACLES", SHARED / "oracles"))
PRESENT = (ORACLES / "INDEX.json").is_file()
INPUTS = ("input_ids", "attention_mask", "token_type_ids", "decoder_input_ids", "decoder_attention_mask")


@cache
def index() -> dict[str, Any]:
    """INDEX.json; empty where there are no oracles."""
    return json.loads((ORACLES / "INDEX.json").read_text(encoding="utf-8")) if PRESENT else {"oracles": {}}


@dataclass(frozen=True)
class Oracle:
    """One entry of the index with its tensors."""

    name: str
    entry: dict[str, Any]
    tensors: dict[str, Tensor]

    @property
    def config(self) -> dict[str, Any]:
        return self.entry.get("method_config") or {}

    @property
    def tolerance(self) -> dict[str, float]:
        found: dict[str, float] = self.entry["tolerance"]
        return found

    def keys(self, kind: str) -> set[str]:
        """What follows `delta/` (or `grad/`, ...) in the keys of the file."""
        return {key.removeprefix(f"{kind}/") for key in self.tensors if key.startswith(f"{kind}/")}

    def shape(self, suffix: str) -> tuple[int, ...]:
        """The shape of the first delta whose key ends so."""
        key = next(key for key in sorted(self.keys("delta")) if key.endswith(suffix))
        return tuple(self.tensors[f"delta/{key}"].shape)

    def inputs(self) -> dict[str, Tensor]:
        return {name: self.tensors[f"input/{name}"] for name in INPUTS if f"input/{name}" in self.tensors}


def oracle(name: str) -> Oracle:
    entry = index()["oracles"][name]
    return Oracle(name, entry, load_file(ORACLES / entry["file"]))


def base_model(which: Oracle) -> nn.Module:
    """The oracle's base model with its weights. Only tied names may be missing, and nothing may be left over."""
    spec = index()["models"][which.entry["model"]]
    options = {k: v for k, v in spec["config_full"].items() if k not in ("model_type", "transformers_version")}
    config = getattr(transformers, spec["config_class"])(**options, attn_implementation="eager")
    model: nn.Module = getattr(transformers, spec["model_class"])(config, **spec["init_kwargs"]).eval()
    loaded = model.load_state_dict({key: which.tensors[f"base/{key}"] for key in which.keys("base")}, strict=False)
    assert not loaded.unexpected_keys
    assert set(loaded.missing_keys) <= set(which.entry.get("tied", {})), loaded.missing_keys
    model.tie_weights()  # type: ignore[operator]
    return model


# -- the name map ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Ref:
    """Where a parameter of ours is in an oracle: its key, what of that tensor (a slice, a transpose; gradients go back the
    same way), and what to add to the value (our vectors are l - 1)."""

    key: str
    take: Callable[[Tensor], Tensor] = lambda tensor: tensor
    shift: float = 0.0

    def value(self, tensors: Mapping[str, Tensor], shape: torch.Size) -> Tensor:
        return self.take(tensors[f"delta/{self.key}"]).reshape(shape) + self.shift


@dataclass(frozen=True)
class Owned:
    """One parameter of ours: `<insertion>/<path>/<slot>`, and what the map may need to place it.

    `block` is the reference's name of the sublayer (`encoder.layer.0.ffn`), `number` counts the sites of the insertion,
    `kv` is the width of all keys, `u` that of the input, `part` the role of a part of a fused projection (`q`), `shape`
    the parameter's.
    """

    insertion: str
    path: str
    slot: str
    block: str = ""
    number: int = 0
    kv: int = 0
    u: int = 0
    part: str = ""
    shape: tuple[int, ...] = ()


#: slot (or "insertion:slot") -> key template, or what makes the Ref. Names of `Owned` stand in braces.
NameMap = Mapping[str, str | Callable[[Owned], Ref]]


@dataclass(frozen=True)
class Case:
    """What an oracle needs: the method as its YAML says with options set, the name map, and what the table covers."""

    family: str
    insertions: dict[str, Any]
    names: NameMap
    unfreeze: tuple[str, ...] = ()
    unused: Callable[[str], bool] = field(default=lambda key: False)  # deltas that never enter the computation

    def ref(self, owned: Owned) -> Ref:
        found = self.names.get(f"{owned.insertion}:{owned.slot}", self.names.get(owned.slot))
        assert found is not None, f"the name map of {self.family} has no line for {owned}"
        return Ref(found.format(**vars(owned))) if isinstance(found, str) else found(owned)


def block_of(site: Site, table: Architecture, prefix: str) -> str:
    return f"{prefix}{table.stacks[site.stack].layers}.{site.layer}.{site.role.split('.')[0]}"


def owned_tensors(model: nn.Module, sites: Architecture | None = None) -> dict[str, tuple[Owned, Tensor]]:
    """All that the method owns on this model, frozen tensors included, by our name."""
    items = adaptation(model).items
    table = (sites or architecture_of(model, ARCHITECTURES)) if items else None
    places: dict[str, Owned] = {}
    counts: dict[str, int] = {}
    for item in items:
        number = counts.get(item.name, 0)
        counts[item.name] = number + 1
        assert table is not None
        places[f"{item.name}/{item.site.name}"] = Owned(
            insertion=item.name,
            path=item.site.path,
            slot="",
            block=block_of(item.site, table, prefix_of(model)),
            number=number,
            kv=item.widths.kv,
            u=item.widths.u,
            part=item.site.role.rpartition(".")[2] if item.site.part else "",
        )
    found: dict[str, tuple[Owned, Tensor]] = {}
    for name, tensor in {**unipet.parameters(model), **frozen(model)}.items():
        place, _, slot = name.rpartition("/")
        insertion, _, path = place.partition("/")
        where = places.get(place, Owned(insertion, path, slot))
        found[name] = (replace(where, slot=slot, shape=tuple(tensor.shape)), tensor)
    return found


# -- methods -----------------------------------------------------------------------------------------------------------


@cache
def _file(name: str) -> str:
    beside = Path(__file__).parent / "oracles" / f"{name}.yaml"
    path = beside if beside.is_file() else conf_dir() / "method" / f"{name}.yaml"
    return path.read_text(encoding="utf-8")


def insertion(file: str, name: str, options: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """One insertion of a method file (shipped, or in oracles/ beside this file) with options set by dotted name."""
    given: dict[str, Any] = yaml.safe_load(_file(file))["insertions"][name]
    for key, value in (options or {}).items():
        *parents, last = key.split(".")
        target = given
        for parent in parents:
            if not isinstance(target.get(parent), dict):
                target[parent] = {"name": target[parent]} if isinstance(target.get(parent), str) else {}
            target = target[parent]
        target[last] = value
    return given


# -- sites -------------------------------------------------------------------------------------------------------------


def table_of(model: nn.Module) -> Architecture:
    return architecture_of(model, ARCHITECTURES)


def pre_norm(model: nn.Module) -> bool:
    return any(stack.norms for stack in table_of(model).stacks.values())


def roles_of(model: nn.Module, paths: set[str]) -> list[str]:
    """The roles whose modules are exactly these."""
    table, left, roles = table_of(model), set(paths), []
    for role in ROLES:
        position = Position(site=[role], optional=True)
        modules = {
            site.path
            for site in resolve(model, table, position, "position")
            if site.at == "output" and site.x_path == site.path and site.part is None
        }
        if modules and modules <= left:
            roles.append(role)
            left -= modules
    assert not left, f"no role is at {sorted(left)}"
    return roles


def linear_sites(which: Oracle, *suffixes: str) -> set[str]:
    """The module paths that have a delta of one of these names."""
    return {key.rpartition("/")[0] for key in which.keys("delta") if key.rpartition("/")[2] in suffixes}
