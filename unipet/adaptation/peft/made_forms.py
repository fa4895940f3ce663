"""What peft calls our maps whose factors are made of what trains: normalised, cut out of the weight, or mixed from a bank."""

from __future__ import annotations

from collections.abc import Mapping
from math import sqrt
from typing import Any, ClassVar

from torch import Tensor, nn

from unipet.adaptation.peft.form import (
    Form,
    Sites,
    counted,
    factor_of,
    grouped,
    per_channel,
    plain_factor,
    renamed,
    whole,
)
from unipet.calculus.functions.normalised_low_rank import NormalisedLowRank
from unipet.calculus.functions.projection import Projection
from unipet.calculus.insertion import Insertion
from unipet.calculus.weights import out_width
from unipet.errors import UnipetError


class NormalisedForm(Form):
    """λ/r B diag(1/(‖A_i‖ ‖B_i‖)) A diag(‖W_:j‖); s goes into λ."""

    peft_type = "DELORA"
    function = NormalisedLowRank
    names: ClassVar[dict[str, str]] = {"delora_A": "down", "delora_B": "up", "delora_lambda": "strength"}
    suffixes = (*names, "delora_w_norm")
    reads = ("r", "delora_lambda")
    patterns: ClassVar[dict[str, str]] = {"r": "rank_pattern", "delora_lambda": "lambda_pattern"}

    def why_not(self, insertion: Insertion) -> str | None:
        return per_channel(insertion) or super().why_not(insertion)

    def config(self, insertion: Insertion) -> dict[str, Any]:
        function = insertion.parts.function
        assert isinstance(function, NormalisedLowRank)
        return {"r": function.size, "delora_lambda": whole(function.strength), "bias": "none", "init_weights": True}

    def tensors(self, insertion: Insertion) -> dict[str, Tensor]:
        own, s = insertion.reduced(), factor_of(insertion)
        made = {name: own[slot] for name, slot in self.names.items()}
        return {**made, "delora_lambda": own["strength"] * s, "delora_w_norm": own["norms"]}

    def parts(self, config: Mapping[str, Any]) -> dict[str, Any]:
        given = {"size": config["r"], "strength": config.get("delora_lambda", 15.0)}
        return {"function": {"name": "normalised_low_rank", **given}, "composition": "add", "scaling": 1.0}

    def slots(self, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        return renamed(self.names, tensors)

    def frozen(self, tensors: Mapping[str, Tensor], insertion: Insertion) -> dict[str, Tensor]:
        return renamed({"delora_w_norm": "norms"}, tensors)


class ProjectionForm(Form):
    """Q (fill - Nᵀ W). √s goes into both, so that it scales what is removed as well; not where the basis is made orthonormal."""

    peft_type = "DEFT"
    function = Projection
    conv1d = True
    names: ClassVar[dict[str, str]] = {"deft_P": "basis", "deft_R": "fill"}
    suffixes = tuple(names)
    reads = ("r", "decomposition_method", "init_scale", "alpha", "para", "deft_dropout")

    def why_not(self, insertion: Insertion) -> str | None:
        function, s = insertion.parts.function, plain_factor(insertion)
        assert isinstance(function, Projection)
        if s is None or s <= 0:
            return "peft has neither a scale per channel nor one below zero here"
        if s != 1.0 and function.decomposition == "qr":
            return "peft has no scaling beside an orthonormal basis (scaling: 1.0)"
        return super().why_not(insertion)

    def config(self, insertion: Insertion) -> dict[str, Any]:
        function = insertion.parts.function
        assert isinstance(function, Projection)
        return {
            "r": function.size,
            "decomposition_method": function.decomposition,
            "para": not function.inject,
            "alpha": None,
            "init_weights": True,
        }

    def tensors(self, insertion: Insertion) -> dict[str, Tensor]:
        own, s = insertion.reduced(), plain_factor(insertion)
        assert s is not None
        return {name: own[slot] * sqrt(s) for name, slot in self.names.items() if slot in own}

    def prepared(
        self, model: nn.Module, config: Mapping[str, Any], sites: Sites
    ) -> list[tuple[Mapping[str, Any], Sites]]:
        """α/r goes into the fill. peft takes less rank where the output is narrower."""
        alpha, most = config.get("alpha") or 0, counted(config, "r")
        if isinstance(alpha, bool) or not isinstance(alpha, int | float):
            raise UnipetError(f"alpha: {str(alpha)[:40]!r} given; allowed: a number.")
        sizes = {path: min(most, out_width(model.get_submodule(path)) or most) for path in sites}
        filled = {
            path: {
                name: one * (alpha / sizes[path]) if alpha and name == "deft_R" else one for name, one in own.items()
            }
            for path, own in sites.items()
        }
        return grouped(config, filled, lambda path: {"r": sizes[path]})

    def parts(self, config: Mapping[str, Any]) -> dict[str, Any]:
        given = {
            "size": config["r"],
            "decomposition": config.get("decomposition_method", "relu"),
            "inject": not config.get("para", False),
        }
        return {"function": {"name": "projection", **given}, "composition": "add", "scaling": 1.0}

    def slots(self, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        return renamed(self.names, tensors)
