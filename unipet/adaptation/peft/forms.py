"""What peft calls our compositions: for each of its types the function, the options and the names of the tensors."""

from __future__ import annotations

from collections.abc import Mapping
from math import sqrt
from typing import Any, ClassVar

import torch
from torch import Tensor

from unipet.adaptation.peft.form import Form, alpha_of, factor_of, rows_by, whole
from unipet.calculus.composition import Add, Multiply, Normalise
from unipet.calculus.functions.hadamard_product import HadamardProduct
from unipet.calculus.functions.kronecker import Kronecker
from unipet.calculus.functions.low_rank import LowRank
from unipet.calculus.functions.vector import Vector
from unipet.calculus.insertion import Insertion


class LowRankForm(Form):
    """B A x times α/r or α/√r, rows renormalised if its composition says so."""

    peft_type = "LORA"
    joins = True
    function = LowRank
    compositions = (Add, Normalise)
    names: ClassVar[dict[str, str]] = {
        "lora_A.weight": "down", "lora_B.weight": "up", "lora_B.bias": "up.bias", "lora_magnitude_vector": "magnitude",
    }  # fmt: skip
    suffixes = tuple(names)
    reads = ("lora_bias", "r", "lora_alpha", "use_rslora", "use_dora", "lora_dropout", "init_lora_weights")
    conv1d = True
    patterns: ClassVar[dict[str, str]] = {"r": "rank_pattern", "lora_alpha": "alpha_pattern"}

    def why_not(self, insertion: Insertion) -> str | None:
        composition = insertion.parts.composition
        if isinstance(composition, Normalise) and not (
            composition.detach and composition.scaled and not composition.bias
        ):
            return "peft renormalises with detach: true, scaled: true and bias: false alone"
        if isinstance(composition, Normalise) and getattr(insertion.parts.function, "bias", False):
            return "peft has no bias of its own where it renormalises rows"
        return super().why_not(insertion)

    def _size(self, insertion: Insertion) -> int:
        function = insertion.parts.function
        assert isinstance(function, LowRank)
        return function.size * (2 if function.from_start else 1)

    def config(self, insertion: Insertion) -> dict[str, Any]:
        function = insertion.parts.function
        assert isinstance(function, LowRank)
        alpha, root, _ = alpha_of(insertion)
        size = self._size(insertion)
        ratio = size / function.size  # the start to subtract doubles the rank, not s
        return {
            "r": size,
            "lora_alpha": whole(alpha * (sqrt(ratio) if root else ratio)),
            "use_rslora": root,
            "use_dora": isinstance(insertion.parts.composition, Normalise),
            "lora_dropout": function.dropout,
            "lora_bias": function.bias,
            "bias": "none",
            "init_lora_weights": True,
        }

    def tensors(self, insertion: Insertion) -> dict[str, Tensor]:
        function, own = insertion.parts.function, insertion.reduced()
        assert isinstance(function, LowRank)
        down, up = own["down"], own["up"]
        if function.diagonal:
            up = up * own["diagonal"]
        if function.from_start:
            down = torch.cat([down, own["start_down"]])
            up = torch.cat([up, -own["start_up"]], dim=1)
        rest = alpha_of(insertion)[2]
        made = {"lora_A.weight": down, "lora_B.weight": rows_by(rest, up)}
        if function.bias:
            made["lora_B.bias"] = own["up.bias"] * rest
        if isinstance(insertion.parts.composition, Normalise):
            made["lora_magnitude_vector"] = insertion.joint.reduced()["magnitude"]
        return made

    def parts(self, config: Mapping[str, Any]) -> dict[str, Any]:
        root = config.get("use_rslora", False)
        return {
            "function": {
                "name": "low_rank",
                "size": config["r"],
                "dropout": config.get("lora_dropout", 0.0),
                "bias": config.get("lora_bias", False),
            },
            "composition": "normalise" if config.get("use_dora") else "add",
            "scaling": {"name": "alpha_over_sqrt_rank" if root else "alpha_over_rank", "alpha": config["lora_alpha"]},
        }

    def slots(self, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        return {self.names[suffix]: tensor for suffix, tensor in tensors.items()}


class VectorForm(Form):
    """y ⊙ l at a projection's output, or W (l ⊙ x) at its input (`feedforward_modules`); l = 1 + s v."""

    peft_type = "IA3"
    joins = True
    function = Vector
    compositions = (Multiply,)
    suffixes = ("ia3_l",)
    reads = ("feedforward_modules",)
    conv1d = True

    def why_not(self, insertion: Insertion) -> str | None:
        composition = insertion.parts.composition
        if isinstance(composition, Multiply) and not composition.bias:
            return "peft scales the bias as well (composition.bias: true)"
        return super().why_not(insertion)

    def config(self, insertion: Insertion) -> dict[str, Any]:
        return {"init_ia3_weights": True}

    def tensors(self, insertion: Insertion) -> dict[str, Tensor]:
        # In double precision 1 + v keeps all of v, so that reading it gives v back.
        gain = 1 + factor_of(insertion) * insertion.reduced()["value"].double()
        return {"ia3_l": gain.unsqueeze(0 if insertion.site.at == "input" else 1)}

    def parts(self, config: Mapping[str, Any]) -> dict[str, Any]:
        return {"function": {"name": "vector"}, "composition": "multiply", "scaling": 1.0}

    def slots(self, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        return {"value": tensors["ia3_l"].double().flatten() - 1}


class HadamardProductForm(Form):
    """(w1_a w1_b) ⊙ (w2_a w2_b) times α/r."""

    peft_type = "LOHA"
    function = HadamardProduct
    reads = ("r", "alpha")
    patterns: ClassVar[dict[str, str]] = {"r": "rank_pattern", "alpha": "alpha_pattern"}
    names: ClassVar[dict[str, str]] = {
        "hada_w1_a": "up1", "hada_w1_b": "down1", "hada_w2_a": "up2", "hada_w2_b": "down2",
    }  # fmt: skip
    suffixes = tuple(names)

    def why_not(self, insertion: Insertion) -> str | None:
        root = alpha_of(insertion)[1]
        return "peft has no α/√r here" if root else super().why_not(insertion)

    def config(self, insertion: Insertion) -> dict[str, Any]:
        size = getattr(insertion.parts.function, "size", 0)
        return {"r": size, "alpha": whole(alpha_of(insertion)[0]), "init_weights": True}

    def tensors(self, insertion: Insertion) -> dict[str, Tensor]:
        own, rest = dict(insertion.reduced()), alpha_of(insertion)[2]
        own["up2"] = rows_by(rest, own["up2"])  # (s a) ⊙ b = a ⊙ (s b), row by row, too
        return {name: own[slot] for name, slot in self.names.items()}

    def parts(self, config: Mapping[str, Any]) -> dict[str, Any]:
        scaling = {"name": "alpha_over_rank", "alpha": config["alpha"]}
        return {"function": {"name": "hadamard_product", "size": config["r"]}, "composition": "add", "scaling": scaling}

    def slots(self, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        return {self.names[name]: tensor for name, tensor in tensors.items()}


class KroneckerForm(Form):
    """w1 ⊗ w2, each whole or in two factors, times α/r."""

    peft_type = "LOKR"
    function = Kronecker
    reads = ("r", "alpha", "decompose_factor", "decompose_both")
    patterns: ClassVar[dict[str, str]] = {"r": "rank_pattern", "alpha": "alpha_pattern"}
    names: ClassVar[dict[str, str]] = {
        "lokr_w1": "outer", "lokr_w1_a": "outer_up", "lokr_w1_b": "outer_down",
        "lokr_w2": "inner", "lokr_w2_a": "inner_up", "lokr_w2_b": "inner_down",
    }  # fmt: skip
    suffixes = tuple(names)

    def why_not(self, insertion: Insertion) -> str | None:
        _, root, rest = alpha_of(insertion)
        if root or (isinstance(rest, Tensor) and rest.numel() > 1):
            return "peft has neither α/√r nor a scale per channel here"
        return super().why_not(insertion)

    def config(self, insertion: Insertion) -> dict[str, Any]:
        function = insertion.parts.function
        assert isinstance(function, Kronecker)
        factors = {"decompose_factor": function.factor, "decompose_both": function.decompose_both}
        return {"r": function.size, "alpha": whole(alpha_of(insertion)[0]), **factors, "init_weights": True}

    def tensors(self, insertion: Insertion) -> dict[str, Tensor]:
        own, rest = dict(insertion.reduced()), alpha_of(insertion)[2]
        first = "outer" if "outer" in own else "outer_up"
        own[first] = rows_by(rest, own[first])
        return {name: own[slot] for name, slot in self.names.items() if slot in own}

    def parts(self, config: Mapping[str, Any]) -> dict[str, Any]:
        factors = {"factor": config.get("decompose_factor", -1), "decompose_both": config.get("decompose_both", False)}
        function = {"name": "kronecker", "size": config["r"], **factors}
        scaling = {"name": "alpha_over_rank", "alpha": config["alpha"]}
        return {"function": function, "composition": "add", "scaling": scaling}

    def slots(self, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        return {self.names[name]: tensor for name, tensor in tensors.items()}
