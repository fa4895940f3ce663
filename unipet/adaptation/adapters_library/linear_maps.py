"""Low-rank maps and rescaling vectors at linear layers, as the adapters library has them.

A fused projection (GPT-2's) holds the chosen parts one after another: (n R, d_in) and (n d, R) for n of query, key and value.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from torch import Tensor

from unipet.adaptation.adapters_library.layout import LINEAR
from unipet.adaptation.adapters_library.part import Part
from unipet.calculus.insertion import Insertion
from unipet.calculus.sites import Position, Site, resolve
from unipet.errors import UnipetError

_PARTS = ("q", "k", "v")
_FUSED = "attn.qkv"


class LinearMaps(Part):
    """B A x times α/r, or the layer's output times a vector."""

    word = "linear"
    only: ClassVar[Mapping[str, Any]] = {"vera_d": None, "vera_b": None, "dtype": None}

    def make(self) -> dict[str, dict[str, Any]]:
        mode = self.option("composition_mode", (str,), "add")
        if mode not in ("add", "scale"):
            raise UnipetError(f"{self.source}: composition_mode: {mode[:40]!r} given; allowed: add, scale.")
        self.vector = mode == "scale"
        self.gated = self.option("use_gating", (bool,), False)
        if self.vector and (self.gated or self.option("alpha", (int, float), 1) != 1):
            raise UnipetError(f"{self.source}: a vector with use_gating or with alpha other than 1 is not imported.")
        chosen = self.config.get("attn_matrices", ["q", "v"])
        if not isinstance(chosen, list) or not set(map(str, chosen)) <= {*_PARTS, "o"}:
            raise UnipetError(f"{self.source}: attn_matrices: {str(chosen)[:60]} given; allowed: a list of q, k, v.")
        self.letters = [letter for letter in _PARTS if letter in chosen]
        sites = self._sites()
        entries = [(0, site.stack, site.layer, site.role) for site in sites if site.layer is not None]
        what = self._what()
        return {name: {**what, "position": position} for (_, name), position in self.grouped(entries).items()}

    def _what(self) -> dict[str, Any]:
        """Function, composition and scaling."""
        if self.vector:
            return {"function": {"name": "vector", "init": "zeros"}, "composition": "multiply", "scaling": 1.0}
        size, alpha = self.option("r", (int,), 8), float(self.option("alpha", (int, float), 8))
        for path in self.held.places(LINEAR):
            self.check_size("r", size, self.held.size(LINEAR, path, "lora_B", axis=1))
        dropout = float(self.option("dropout", (int, float), 0.0))
        scaling: dict[str, Any] = {"name": "alpha_over_rank", "alpha": alpha}
        rule: Any = "add"
        if self.option("use_dora", (bool,), False):
            rule = {"name": "normalise", "detach": False, "bias": True, "scaled": False}
        if self.gated:  # α/r is not applied then
            scaling = {"name": "input_gate", "pool": "all"}
        return {
            "function": {"name": "low_rank", "size": size, "dropout": dropout},
            "composition": rule,
            "scaling": scaling,
        }

    def _sites(self) -> list[Site]:
        """The sites of all modules that have tensors: the one of the module, or those of its chosen parts."""
        wanted = set(self.held.places(LINEAR))
        left, found = set(wanted), list[Site]()
        fused = {site.path for site in self._at(_FUSED)} if _FUSED in self.table.roles() else set()
        for role in self.table.roles():
            for site in self._at(role):
                if site.path not in wanted or (site.part is None and site.path not in left):
                    continue
                part = role.rpartition(".")[2] if site.part is not None else ""
                if site.path in fused and part not in self.letters:
                    continue
                found.append(site)
                left.discard(site.path)
        if left:
            raise UnipetError(f"{self.source}: no role is at {', '.join(sorted(map(str, left))[:3])}.")
        return found

    def _at(self, role: str) -> list[Site]:
        try:
            sites = resolve(self.model, self.table, Position(site=[role], optional=True), "position")
        except UnipetError:
            return []
        return [site for site in sites if site.at == "output" and site.x_path == site.path and site.layer is not None]

    def value(self, insertion: str, item: Insertion | None, slot: str) -> Tensor:
        assert item is not None
        path, part = item.site.path, item.site.role.rpartition(".")[2] if item.site.part is not None else ""
        if self.vector:
            return self._own(self.held.take(self.source, LINEAR, path, "lora_B").flatten(), part) - 1
        name = {"down": "lora_A", "up": "lora_B", "magnitude": "m.weight"}.get(slot, slot)
        return self._own(self.held.take(self.source, LINEAR, path, name), part)

    def _own(self, tensor: Tensor, part: str) -> Tensor:
        """The rows of one part of a fused projection."""
        if not part:
            return tensor
        size, at = len(tensor) // len(self.letters), self.letters.index(part)
        return tensor[at * size : (at + 1) * size]
