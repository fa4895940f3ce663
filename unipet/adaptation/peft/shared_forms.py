"""What peft calls our maps that all sites make of the same few trained numbers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import sqrt
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from unipet.adaptation.peft.form import (
    Form,
    Sites,
    counted,
    factor_of,
    grouped,
    plain_factor,
    renamed,
    rows_by,
    shared_of,
)
from unipet.calculus.functions.singular_core import SingularCore
from unipet.calculus.functions.vector_bank import VectorBank
from unipet.calculus.insertion import Insertion
from unipet.errors import UnipetError


class SingularCoreForm(Form):
    """U S (Σ vₖ Pₖ) Vᵀ; s goes into U S. What all sites share is one v of peft's; imported, each of its groups is apart."""

    peft_type = "TINYLORA"
    function = SingularCore
    conv1d = True
    names: ClassVar[dict[str, str]] = {"tinylora_A": "down", "tinylora_B": "up", "tinylora_P": "projections"}
    suffixes = tuple(names)
    shares = ("tinylora_v.0",)
    reads = ("r", "u", "weight_tying", "projection_seed", "save_projection", "init_v_bound", "tinylora_dropout")

    def config(self, insertion: Insertion) -> dict[str, Any]:
        function = insertion.parts.function
        assert isinstance(function, SingularCore)
        return {
            "r": function.size,
            "u": function.count,
            "weight_tying": 1.0,
            "projection_seed": function.seed,
            "save_projection": True,
            "tinylora_dropout": function.dropout,
            "bias": "none",
            "init_weights": True,
        }

    def tensors(self, insertion: Insertion) -> dict[str, Tensor]:
        own = insertion.reduced()
        made = {name: own[slot] for name, slot in self.names.items()}
        return {**made, "tinylora_B": rows_by(factor_of(insertion), own["up"])}

    def common(self, insertions: Sequence[Insertion]) -> dict[str, Tensor]:
        return {"tinylora_v.0": shared_of(insertions).reduced()["core"]}

    def is_shared(self, name: str) -> bool:
        return name.startswith("tinylora_v.")

    def prepared(
        self, model: nn.Module, config: Mapping[str, Any], sites: Sites
    ) -> list[tuple[Mapping[str, Any], Sites]]:
        """Each site with the v of its group: runs of modules, in the model's order, as many as the degree of tying leaves."""
        tying, seed = config.get("weight_tying", 0.0), config.get("projection_seed", 42)
        if isinstance(tying, bool) or not isinstance(tying, int | float) or not 0 <= tying <= 1:
            raise UnipetError(f"weight_tying: {str(tying)[:40]!r} given; allowed: a number from 0 to 1.")
        if isinstance(seed, bool) or not isinstance(seed, int) or not 0 <= seed < 2**62:
            raise UnipetError(f"projection_seed: {str(seed)[:40]!r} given; allowed: a whole number from 0.")
        count = max(1, round(len(sites) * (1.0 - tying)))
        run = max(1, len(sites) // count)
        group = {path: min(number // run, count - 1) for number, path in enumerate(sites)}
        filled: dict[str, dict[str, Tensor]] = {}
        ranks: dict[str, int] = {}
        for number, (path, own) in enumerate(sites.items()):
            core, down = own[f"tinylora_v.{group[path]}"], own.get("tinylora_A")
            filled[path] = {**own, "v": core}
            # peft takes less rank where the weight is narrower.
            ranks[path] = down.shape[0] if down is not None and down.dim() == 2 else counted(config, "r")
            if not config.get("save_projection", True):
                filled[path].setdefault("seed", torch.tensor(seed + number))
        return grouped(config, filled, lambda path: {"r": ranks[path], "group": group[path]})

    def parts(self, config: Mapping[str, Any]) -> dict[str, Any]:
        function = {
            "name": "singular_core",
            "size": config["r"],
            "count": config["u"],
            "dropout": config.get("tinylora_dropout", 0.0),
            "seed": config.get("projection_seed", 42),
        }
        return {"function": function, "composition": "add", "scaling": 1.0}

    def slots(self, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        return renamed({"v": "core"}, tensors)

    def frozen(self, tensors: Mapping[str, Tensor], insertion: Insertion) -> dict[str, Tensor]:
        found = renamed(self.names, tensors)
        if "projections" not in found and "seed" in tensors:  # peft, too, makes them of a seed where it stored none
            shape = insertion.bank.frozen()["projections"].shape
            stream = torch.Generator("cpu").manual_seed(int(tensors["seed"]))
            found["projections"] = torch.normal(0.0, 1 / sqrt(shape[1]), shape, generator=stream, device="cpu")
        return found


class VectorBankForm(Form):
    """Pieces mixed from one bank; of mixtures that peft stored as weights alone, the logits are made again."""

    peft_type = "VBLORA"
    function = VectorBank
    conv1d = True
    names: ClassVar[dict[str, str]] = {"vblora_logits_A": "down.logits", "vblora_logits_B": "up.logits"}
    suffixes = tuple(f"{name}{end}" for name in names for end in ("", "_topk_indices", "_topk_weights"))
    shares = ("vblora_vector_bank",)
    reads = (
        "r",
        "num_vectors",
        "vector_length",
        "topk",
        "vblora_dropout",
        "save_only_topk_weights",
        "init_vector_bank_bound",
        "init_logits_std",
    )

    def why_not(self, insertion: Insertion) -> str | None:
        if plain_factor(insertion) != 1.0:
            return "peft has no scaling here (scaling: 1.0)"
        return super().why_not(insertion)

    def config(self, insertion: Insertion) -> dict[str, Any]:
        function = insertion.parts.function
        assert isinstance(function, VectorBank)
        return {
            "r": function.size,
            "num_vectors": function.vectors,
            "vector_length": insertion.widths.u // insertion.reduced()["down.logits"].shape[1],
            "topk": function.top,
            "vblora_dropout": function.dropout,
            "save_only_topk_weights": False,
        }

    def tensors(self, insertion: Insertion) -> dict[str, Tensor]:
        own = insertion.reduced()
        return {name: own[slot] for name, slot in self.names.items()}

    def common(self, insertions: Sequence[Insertion]) -> dict[str, Tensor]:
        return {"vblora_vector_bank": shared_of(insertions).reduced()["bank"]}

    def prepared(
        self, model: nn.Module, config: Mapping[str, Any], sites: Sites
    ) -> list[tuple[Mapping[str, Any], Sites]]:
        count = counted(config, "num_vectors")
        made = {
            path: {
                **own,
                **{
                    name: _logits(name, own[f"{name}_topk_indices"], own[f"{name}_topk_weights"], count)
                    for name in self.names
                    if f"{name}_topk_indices" in own and f"{name}_topk_weights" in own
                },
            }
            for path, own in sites.items()
        }
        return [(config, made)]

    def parts(self, config: Mapping[str, Any]) -> dict[str, Any]:
        function = {
            "name": "vector_bank",
            "size": config["r"],
            "vectors": config["num_vectors"],
            "vector": config["vector_length"],
            "top": config.get("topk", 2),
            "dropout": config.get("vblora_dropout", 0.0),
        }
        return {"function": function, "composition": "add", "scaling": 1.0}

    def slots(self, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        return renamed({**self.names, "vblora_vector_bank": "bank"}, tensors)


def _logits(name: str, which: Tensor, weights: Tensor, count: int) -> Tensor:
    """Logits whose largest give these mixtures; the last weight of each is what the others leave of one."""
    fits = which.dim() == weights.dim() == 3 and which.shape[:-1] == weights.shape[:-1]
    if not fits or which.shape[-1] != weights.shape[-1] + 1 or not bool(((which >= 0) & (which < count)).all()):
        raise UnipetError(
            f"{name}_topk_indices: allowed: whole numbers from 0 to {count - 1}, for each piece one more than it has weights."
        )
    every = torch.cat([weights, 1 - weights.sum(-1, keepdim=True)], -1)
    least = torch.finfo(every.dtype)
    shape = (*which.shape[:-1], count)
    return torch.full(shape, least.min, dtype=every.dtype).scatter(-1, which.long(), every.clamp(min=least.tiny).log())
