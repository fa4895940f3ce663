"""Bottlenecks of the adapters library: Houlsby's, Pfeiffer's, parallel ones, with plain or factorised hypercomplex weights.

Where x, h and the residual go follows from three of its switches: `is_parallel` reads the block's input; `original_ln_before`
reads what the block would yield with the residual and the norm; without either it reads the block's own output.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from torch import Tensor

from unipet.adaptation.adapters_library.layout import BOTTLENECK, SHARED, Where
from unipet.adaptation.adapters_library.part import Part, activation
from unipet.calculus.insertion import Insertion
from unipet.errors import UnipetError


class Bottlenecks(Part):
    """One bottleneck in each block that has tensors."""

    word = "bottleneck"
    only: ClassVar[Mapping[str, Any]] = {
        "ln_after": False,
        "original_ln_after": True,
        "residual_before_ln": True,
        "inv_adapter": None,
        "shared_W_phm": False,
        "shared_phm_rule": True,
        "factorized_phm_rule": False,
        "factorized_phm_W": True,
        "phm_bias": True,
    }

    def make(self) -> dict[str, dict[str, Any]]:
        c = self.config
        self.norm = self.option("ln_before", (bool,), False)
        self.factorised = self.option("phm_layer", (bool,), False)
        function: dict[str, Any] = {
            "name": "bottleneck",
            "activation": activation(self.source, c.get("non_linearity")),
            "norm": "in" if self.norm else "none",
            "dropout": float(self.option("dropout", (int, float), 0.0)),
        }
        if self.factorised:
            kind = {"terms": self.option("phm_dim", (int,), 4), "rank": self.option("phm_rank", (int,), 1)}
            function |= {"name": "kronecker_bottleneck", **kind}
            for where in self.held.places(BOTTLENECK):
                self.check_size("phm_dim", kind["terms"], self.held.size(BOTTLENECK, where, "adapter_up.W_left"))
                self.check_size(
                    "phm_rank", kind["rank"], self.held.size(BOTTLENECK, where, "adapter_up.W_left", axis=2)
                )
        entries = [(self._size(where), where.stack, where.layer, where.block) for where in self.held.places(BOTTLENECK)]
        return {
            name: {
                "function": {**function, "size": size},
                "position": {**position, **self._fed()},
                "composition": "add",
                "scaling": self._scaling(),
            }
            for (size, name), position in self.grouped(entries).items()
        }

    def _size(self, where: Where) -> int:
        bias = self.held.take(self.source, BOTTLENECK, where, self._name("down.bias"))
        return len(bias)

    def _fed(self) -> dict[str, str]:
        if self.option("is_parallel", (bool,), False):
            pre = any(stack.norms for stack in self.table.stacks.values())
            return {"form": "parallel", "input": "pre_norm" if pre else "post_norm"}
        if self.option("original_ln_before", (bool,), False):
            return {"form": "parallel", "input": "block_output"}
        return {"form": "sequential"}

    def _scaling(self) -> Any:
        if self.option("use_gating", (bool,), False):
            return {"name": "input_gate", "pool": "all"}
        scaling = self.option("scaling", (int, float, str), 1.0)
        if isinstance(scaling, str):
            names = {"learned": "learned", "channel": "learned_vector"}
            if scaling not in names:
                raise UnipetError(
                    f"{self.source}: scaling: {scaling[:40]!r} given; allowed: a number, learned, channel."
                )
            return names[scaling]
        return float(scaling)

    def _name(self, slot: str) -> str:
        """What the library calls a slot."""
        layer, _, leaf = slot.partition(".")
        if slot in ("scale", "gate.weight", "gate.bias"):
            return {"scale": "scaling"}.get(slot, slot)
        if layer == "norm":
            return f"adapter_norm_before.{leaf}"
        leaf = {"left": "W_left", "right": "W_right", "bias": "b"}.get(leaf, leaf) if self.factorised else leaf
        return f"adapter_down.{1 if self.norm else 0}.{leaf}" if layer == "down" else f"adapter_up.{leaf}"

    def value(self, insertion: str, item: Insertion | None, slot: str) -> Tensor:
        if slot == "rule":
            return self.held.take(self.source, SHARED, "", "phm_rule")
        assert item is not None and item.site.layer is not None
        where = Where(item.site.stack, item.site.layer, item.site.role)
        if slot.startswith("norm.") and self.held.has(
            BOTTLENECK, where, f"adapter_down.0.{slot.removeprefix('norm.')}"
        ):
            self.held.take(
                self.source, BOTTLENECK, where, f"adapter_down.0.{slot.removeprefix('norm.')}"
            )  # stored twice
        return self.held.take(self.source, BOTTLENECK, where, self._name(slot))
