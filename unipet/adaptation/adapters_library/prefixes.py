"""Keys and values in front of attention, as the adapters library stores them: for each kind of attention one group, for all its
layers, either as they are or as what a network makes of them.

Shapes: l prefix length, n layers of a group, E width of all keys of a layer.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from torch import Tensor

from unipet.adaptation.adapters_library.layout import GATE, PREFIX, Where
from unipet.adaptation.adapters_library.part import Part, activation
from unipet.calculus.insertion import Insertion
from unipet.errors import UnipetError

#: Groups whose position bias the library moves with the prefix.
_MOVED_BIAS = ("t5", "mt5")


class Prefixes(Part):
    """One insertion for each group."""

    word = "prefix"
    only: ClassVar[Mapping[str, Any]] = {"leave_out": [], "shared_gating": True}

    def make(self) -> dict[str, dict[str, Any]]:
        stacks = list(self.table.stacks)
        places = {"self_prefix": (stacks[-1], "attn"), "cross_prefix": (stacks[-1], "cross")}
        if len(stacks) > 1:
            places["encoder_prefix"] = (stacks[0], "attn")
        self.flat = self.option("flat", (bool,), False)
        self.gated = self.option("use_gating", (bool,), False)
        function: dict[str, Any] = {
            "name": "prefix",
            "size": self.option("prefix_length", (int,), 30),
            "dropout": float(self.option("dropout", (int, float), 0.0)),
            "scale_keys": self.gated,
            "reparam": None,
        }
        if not self.flat:
            hidden = self.option("bottleneck_size", (int,), 512)
            word = activation(self.source, self.config.get("non_linearity", "tanh"))
            function["reparam"] = {"hidden": hidden, "activation": word}
        for group in self.held.places(PREFIX):
            if self.flat:
                whole = self.held.size(PREFIX, group, "control_trans")
                self.check_size("prefix_length", function["size"], min(function["size"], whole))
            else:
                self.check_size("prefix_length", function["size"], self.held.size(PREFIX, group, "wte.weight"))
                self.check_size("bottleneck_size", hidden, self.held.size(PREFIX, group, "control_trans.0.weight"))
        self.groups: dict[str, str] = {}
        self.places: dict[str, tuple[str, str]] = {}
        found: dict[str, dict[str, Any]] = {}
        for group in self.held.places(PREFIX):
            if group not in places:
                raise UnipetError(
                    f"{self.source}: {str(group)[:60]} is no attention of this base model; it fits another one."
                )
            name = f"{group}{self.number}"
            self.groups[name], self.places[name] = group, places[group]
            stack, block = places[group]
            position: dict[str, Any] = {"site": f"{block}.heads"}
            if len(stacks) > 1:
                position["stack"] = stack
            found[name] = {
                "function": function,
                "position": position,
                "composition": {"name": "gated", "shift_bias": str(self.model.config.model_type) in _MOVED_BIAS},  # type: ignore[union-attr]
                "scaling": {"name": "input_gate", "pool": "all"} if self.gated else 1.0,
            }
        return found

    def value(self, insertion: str, item: Insertion | None, slot: str) -> Tensor:
        group = self.groups[insertion]
        if slot in ("tokens", "hidden.weight", "hidden.bias"):
            name = {"tokens": "wte.weight"}.get(slot, f"control_trans.0.{slot.removeprefix('hidden.')}")
            return self.held.take(self.source, PREFIX, group, name)
        assert item is not None and item.site.layer is not None
        stack, block = self.places[insertion]
        if slot.startswith("gate."):
            where = Where(stack, item.site.layer, block)
            return self.held.take(self.source, GATE, where, slot.removeprefix("gate."))
        kind, _, leaf = slot.partition(".")
        at, width = 2 * item.site.layer + ("keys", "values").index(kind), item.widths.kv
        if self.flat:
            whole = self.held.take(self.source, PREFIX, group, "control_trans")  # (l · 2n · E,)
            length = self.config["prefix_length"]
            if len(whole) % (length * width):
                raise UnipetError(
                    f"{self.source}: the keys of {group} are of another width than this model's ({width})."
                )
            return whole.view(length, -1, width)[:, at]
        rows = self.held.take(self.source, PREFIX, group, f"control_trans.2.{leaf}")
        return rows[at * width : (at + 1) * width]
