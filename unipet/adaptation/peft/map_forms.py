"""What peft calls our further linear maps beside a layer, and its trained bias."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from torch import Tensor

from unipet.adaptation.peft.form import Form, alpha_of, factor_of, per_channel, plain_factor, rows_by, whole
from unipet.calculus.composition import Add, Hadamard
from unipet.calculus.functions.block_sum import BlockSum
from unipet.calculus.functions.circulant import Circulant
from unipet.calculus.functions.grid import Grid
from unipet.calculus.functions.low_rank import LowRank
from unipet.calculus.functions.vector import Vector
from unipet.calculus.functions.weight_network import WeightNetwork
from unipet.calculus.insertion import Insertion


class HadamardForm(Form):
    """(W ⊙ B A) x; s goes into B."""

    peft_type = "HIRA"
    function = LowRank
    compositions = (Hadamard,)
    names: ClassVar[dict[str, str]] = {"hira_A": "down", "hira_B": "up"}
    suffixes = tuple(names)
    reads = ("r", "hira_dropout")
    patterns: ClassVar[dict[str, str]] = {"r": "rank_pattern"}

    def why_not(self, insertion: Insertion) -> str | None:
        function = insertion.parts.function
        assert isinstance(function, LowRank)
        if function.bias or function.diagonal or function.from_start:
            return "peft has neither a bias, a diagonal nor a start to subtract here"
        return super().why_not(insertion)

    def config(self, insertion: Insertion) -> dict[str, Any]:
        function = insertion.parts.function
        assert isinstance(function, LowRank)
        return {"r": function.size, "hira_dropout": function.dropout, "init_weights": True}

    def tensors(self, insertion: Insertion) -> dict[str, Tensor]:
        own = insertion.reduced()
        return {"hira_A": own["down"], "hira_B": rows_by(factor_of(insertion), own["up"])}

    def parts(self, config: Mapping[str, Any]) -> dict[str, Any]:
        function = {"name": "low_rank", "size": config["r"], "dropout": config.get("hira_dropout", 0.0)}
        return {"function": function, "composition": "hadamard", "scaling": 1.0}

    def slots(self, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        return {self.names[name]: tensor for name, tensor in tensors.items()}


class BlockSumForm(Form):
    """up · Σ of the input's blocks."""

    peft_type = "MISS"
    function = BlockSum
    suffixes = ("miss_block",)
    reads = ("r", "miss_dropout", "mini_r")

    def why_not(self, insertion: Insertion) -> str | None:
        function = insertion.parts.function
        assert isinstance(function, BlockSum)
        if function.of_weight:
            return "it changes each block of the weight in proportion to itself (of_weight), which is not written yet"
        return super().why_not(insertion)

    def config(self, insertion: Insertion) -> dict[str, Any]:
        size = getattr(insertion.parts.function, "size", 0)
        return {"r": size, "mini_r": 1, "bias": "none", "init_weights": True}

    def tensors(self, insertion: Insertion) -> dict[str, Tensor]:
        return {"miss_block": rows_by(factor_of(insertion), insertion.reduced()["up"]).T}

    def parts(self, config: Mapping[str, Any]) -> dict[str, Any]:
        return {"function": {"name": "block_sum", "size": config["r"]}, "composition": "add", "scaling": 1.0}

    def slots(self, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        return {"up": tensors["miss_block"].T}


class CirculantForm(Form):
    """Blocks that are circulant matrices."""

    peft_type = "C3A"
    function = Circulant
    suffixes = ("c3a_kernel",)
    reads = ("block_size",)
    patterns: ClassVar[dict[str, str]] = {"block_size": "block_size_pattern"}

    def why_not(self, insertion: Insertion) -> str | None:
        return per_channel(insertion) or super().why_not(insertion)

    def config(self, insertion: Insertion) -> dict[str, Any]:
        return {"block_size": getattr(insertion.parts.function, "size", 0), "bias": "none", "init_weights": True}

    def tensors(self, insertion: Insertion) -> dict[str, Tensor]:
        return {"c3a_kernel": insertion.reduced()["kernel"] * factor_of(insertion)}

    def parts(self, config: Mapping[str, Any]) -> dict[str, Any]:
        return {"function": {"name": "circulant", "size": config["block_size"]}, "composition": "add", "scaling": 1.0}

    def slots(self, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        return {"kernel": tensors["c3a_kernel"]}


class GridForm(Form):
    """A grid of low-rank maps times α/r."""

    peft_type = "GRALORA"
    function = Grid
    suffixes = ("gralora_A", "gralora_B")
    reads = ("r", "alpha", "gralora_dropout", "gralora_k", "hybrid_r")
    conv1d = True

    def why_not(self, insertion: Insertion) -> str | None:
        if alpha_of(insertion)[1]:
            return "peft has no α/√r here"
        return super().why_not(insertion)

    def config(self, insertion: Insertion) -> dict[str, Any]:
        function = insertion.parts.function
        assert isinstance(function, Grid)
        return {
            "r": function.size,
            "alpha": whole(alpha_of(insertion)[0]),
            "gralora_dropout": function.dropout,
            "gralora_k": function.blocks,
            "hybrid_r": 0,
            "bias": "none",
            "init_weights": True,
        }

    def tensors(self, insertion: Insertion) -> dict[str, Tensor]:
        function, own = insertion.parts.function, insertion.reduced()
        assert isinstance(function, Grid)
        count = function.blocks
        down, up = own["down"], rows_by(alpha_of(insertion)[2], own["up"])
        # Ours: (output part, input part, S, in/K) and rows by output part; theirs: (input part, in/K, output part · S) and
        # (output part, r, out/K).
        A = down.view(count, count, function.size // count, -1).permute(1, 3, 0, 2).flatten(2)
        return {"gralora_A": A, "gralora_B": up.view(count, -1, function.size).transpose(1, 2)}

    def parts(self, config: Mapping[str, Any]) -> dict[str, Any]:
        function = {
            "name": "grid",
            "size": config["r"],
            "blocks": config.get("gralora_k", 2),
            "dropout": config.get("gralora_dropout", 0.0),
        }
        scaling = {"name": "alpha_over_rank", "alpha": config.get("alpha", 64)}
        return {"function": function, "composition": "add", "scaling": scaling}

    def slots(self, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        A, B = tensors["gralora_A"], tensors["gralora_B"]
        if A.dim() != 3 or B.dim() != 3 or A.shape[2] % len(A):
            return {"down": A, "up": B}  # putting them into the model reports what is wrong with them
        count, width, size = A.shape
        down = A.reshape(count, width, count, size // count).permute(2, 0, 3, 1).reshape(-1, width)
        return {"down": down, "up": B.transpose(1, 2).reshape(-1, B.shape[1])}


class NetworkForm(Form):
    """A small network of the base weight, times x; its last layer is linear, so s is peft's own number."""

    peft_type = "PEANUT"
    function = WeightNetwork
    names: ClassVar[dict[str, str]] = {"peanut_A.weight": "down", "peanut_B.weight": "up"}
    suffixes = tuple(names)
    reads = ("r", "depth", "act_fn", "scaling")

    def why_not(self, insertion: Insertion) -> str | None:
        function = insertion.parts.function
        assert isinstance(function, WeightNetwork)
        if function.depth or function.activation not in ("relu", "gelu", "silu", "tanh"):
            return "only depth: 0 and activation: relu, gelu, silu or tanh are written for peft"
        return per_channel(insertion) or super().why_not(insertion)

    def config(self, insertion: Insertion) -> dict[str, Any]:
        function = insertion.parts.function
        assert isinstance(function, WeightNetwork)
        s = plain_factor(insertion)
        return {"r": function.size, "depth": 0, "act_fn": function.activation, "scaling": s, "init_weights": True}

    def tensors(self, insertion: Insertion) -> dict[str, Tensor]:
        own = insertion.reduced()
        return {name: own[slot] for name, slot in self.names.items()}

    def parts(self, config: Mapping[str, Any]) -> dict[str, Any]:
        activation = config.get("act_fn", "relu")
        function = {"name": "weight_network", "size": config["r"], "depth": 0, "activation": activation}
        return {"function": function, "composition": "add", "scaling": float(config.get("scaling", 1.0))}

    def slots(self, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        return {self.names[name]: tensor for name, tensor in tensors.items()}


class BiasForm(Form):
    """A vector that is added to a layer's output."""

    peft_type = "BEFT"
    function = Vector
    compositions = (Add,)
    suffixes = ("beft_bias",)

    def why_not(self, insertion: Insertion) -> str | None:
        function = insertion.parts.function
        assert isinstance(function, Vector)
        if function.through != "nothing":
            return f"peft adds the vector itself, not what through: {function.through} makes of it"
        return super().why_not(insertion)

    def config(self, insertion: Insertion) -> dict[str, Any]:
        return {"init_weights": True}

    def tensors(self, insertion: Insertion) -> dict[str, Tensor]:
        return {"beft_bias": (insertion.reduced()["value"] * factor_of(insertion)).unsqueeze(0)}

    def parts(self, config: Mapping[str, Any]) -> dict[str, Any]:
        return {"function": {"name": "vector", "init": "zeros"}, "composition": "add", "scaling": 1.0}

    def slots(self, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        return {"value": tensors["beft_bias"].flatten()}
