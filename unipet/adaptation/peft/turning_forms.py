"""What peft calls our turns of activations: rotations and reflections of a layer's input, plane rotations of its output."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from torch import Tensor

from unipet.adaptation.peft.form import Form, factor_of
from unipet.calculus.composition import Replace
from unipet.calculus.functions.plane_rotation import PlaneRotation
from unipet.calculus.functions.reflection import Reflection
from unipet.calculus.functions.rotation import Rotation
from unipet.calculus.insertion import Insertion


class TurnForm(Form):
    """h' = f(h), without a scale."""

    compositions = (Replace,)
    place = ("sequential", "input")
    names: ClassVar[dict[str, str]] = {}

    def why_not(self, insertion: Insertion) -> str | None:
        if factor_of(insertion) != 1.0:
            return "peft has no scaling here (scaling: 1.0)"
        return super().why_not(insertion)

    def tensors(self, insertion: Insertion) -> dict[str, Tensor]:
        own = insertion.reduced()
        return {name: own[slot] for name, slot in self.names.items()}

    def slots(self, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        return {self.names[name]: tensor for name, tensor in tensors.items()}

    def parts(self, config: Mapping[str, Any]) -> dict[str, Any]:
        return {"function": self._function(config), "composition": "replace", "scaling": 1.0}

    def _function(self, config: Mapping[str, Any]) -> dict[str, Any]:
        raise NotImplementedError


class RotationForm(TurnForm):
    """W (R x), R block-diagonal."""

    peft_type = "OFT"
    function = Rotation
    names: ClassVar[dict[str, str]] = {"oft_R.weight": "upper"}
    suffixes = tuple(names)
    reads = (
        "r",
        "oft_block_size",
        "block_share",
        "use_cayley_neumann",
        "num_cayley_neumann_terms",
        "module_dropout",
        "eps",
    )

    def config(self, insertion: Insertion) -> dict[str, Any]:
        function = insertion.parts.function
        assert isinstance(function, Rotation)
        return {
            "r": 0,
            "oft_block_size": function.size,
            "block_share": function.share_blocks,
            "use_cayley_neumann": function.cayley == "neumann",
            "num_cayley_neumann_terms": function.terms,
            "bias": "none",
            "init_weights": True,
            "peft_version": "0.18.0",  # whose series this is; without it peft warns of an older one
        }

    def _function(self, config: Mapping[str, Any]) -> dict[str, Any]:
        series = config.get("use_cayley_neumann", True)
        return {
            "name": "rotation",
            "size": config["oft_block_size"],
            "cayley": "neumann" if series else "exact",
            "terms": config.get("num_cayley_neumann_terms", 5),
            "share_blocks": config.get("block_share", False),
        }


class ReflectionForm(TurnForm):
    """W (H x), H a product of reflections."""

    peft_type = "HRA"
    function = Reflection
    suffixes = ("hra_u",)
    reads = ("r", "apply_GS")

    def config(self, insertion: Insertion) -> dict[str, Any]:
        function = insertion.parts.function
        assert isinstance(function, Reflection)
        return {"r": function.size, "apply_GS": function.gram_schmidt, "bias": "none", "init_weights": True}

    def tensors(self, insertion: Insertion) -> dict[str, Tensor]:
        return {"hra_u": insertion.reduced()["vectors"].T}

    def slots(self, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        return {"vectors": tensors["hra_u"].T}

    def _function(self, config: Mapping[str, Any]) -> dict[str, Any]:
        return {"name": "reflection", "size": config["r"], "gram_schmidt": config.get("apply_GS", False)}


class PlaneRotationForm(TurnForm):
    """Pairs of a layer's output channels turned and stretched."""

    peft_type = "ROAD"
    function = PlaneRotation
    place = ("sequential", "output")
    names: ClassVar[dict[str, str]] = {"road_theta": "angles", "road_alpha": "gains"}
    suffixes = tuple(names)
    reads = ("variant", "group_size")

    def config(self, insertion: Insertion) -> dict[str, Any]:
        function = insertion.parts.function
        assert isinstance(function, PlaneRotation)
        return {"variant": f"road_{function.per_pair}", "group_size": function.group_size, "init_weights": True}

    def _function(self, config: Mapping[str, Any]) -> dict[str, Any]:
        count = str(config.get("variant", "road_1")).rpartition("_")[2]
        return {"name": "plane_rotation", "per_pair": int(count), "group_size": config.get("group_size", 64)}
