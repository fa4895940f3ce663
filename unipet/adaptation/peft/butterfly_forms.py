"""What peft calls our butterflies: a rotation of a layer's input and, beside it, a scale of its output.

Without its CUDA extension peft computes one factor alone, whatever its configuration says. Several factors are written as the one
that they amount to, of blocks as wide as a run of the last.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from unipet.adaptation.peft.form import Form, Sites, factor_of, grouped, renamed
from unipet.adaptation.peft.saved_modules import refuse
from unipet.adaptation.peft.turning_forms import TurnForm
from unipet.calculus.composition import Multiply
from unipet.calculus.functions.butterfly import Butterfly
from unipet.calculus.functions.orthogonal import cayley
from unipet.calculus.functions.vector import Vector
from unipet.calculus.insertion import Insertion

_NEAR = 1e-6  # as near as one factor has to come to the product of several


class OutputScaleForm(Form):
    """(1 + s v) ⊙ W x + b; peft has it beside the rotation alone."""

    peft_type = "BOFT"
    joins = True
    function = Vector
    compositions = (Multiply,)

    def why_not(self, insertion: Insertion) -> str | None:
        function, composition = insertion.parts.function, insertion.parts.composition
        assert isinstance(function, Vector)
        if isinstance(composition, Multiply) and composition.bias:
            return "beside a butterfly peft leaves the bias out of the scale (composition.bias: false)"
        if function.through != "nothing" or insertion.site.at == "input":
            return "beside a butterfly peft scales the output, by the vector itself"
        return super().why_not(insertion)

    def config(self, insertion: Insertion) -> dict[str, Any]:
        return {}

    def tensors(self, insertion: Insertion) -> dict[str, Tensor]:
        # In double precision 1 + v keeps all of v, so that reading it gives v back.
        return {"boft_s": (1 + factor_of(insertion) * insertion.reduced()["value"].double()).unsqueeze(1)}

    def parts(self, config: Mapping[str, Any]) -> dict[str, Any]:
        composition = {"name": "multiply", "bias": False}
        return {"function": {"name": "vector", "init": "zeros"}, "composition": composition, "scaling": 1.0}

    def slots(self, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        return {"value": tensors["boft_s"].double().flatten() - 1} if "boft_s" in tensors else {}


class ButterflyForm(TurnForm):
    """W (Mᵀ x)."""

    peft_type = "BOFT"
    function = Butterfly
    names: ClassVar[dict[str, str]] = {"boft_R": "blocks"}
    suffixes = ("boft_R", "boft_s")
    reads = ("boft_block_size", "boft_block_num", "boft_n_butterfly_factor", "boft_dropout")
    beside = OutputScaleForm()

    def config(self, insertion: Insertion) -> dict[str, Any]:
        function = insertion.parts.function
        assert isinstance(function, Butterfly)
        return {
            "boft_block_size": function.size * 2 ** (function.factors - 1),
            "boft_block_num": 0,
            "boft_n_butterfly_factor": 1,
            "bias": "none",
            "init_weights": True,
        }

    def tensors(self, insertion: Insertion) -> dict[str, Tensor]:
        function, own = insertion.parts.function, insertion.reduced()
        assert isinstance(function, Butterfly)
        if function.factors == 1:
            return super().tensors(insertion)
        run = function.size * 2 ** (function.factors - 1)
        eye_DD = torch.eye(insertion.widths.h, dtype=torch.float64, device=own["blocks"].device)
        made = function.generate({"blocks": own["blocks"].double()}, {}, insertion.widths)
        M_DD = function.turned(eye_DD, made)
        turns_NBB = torch.stack([block[:, at * run : (at + 1) * run] for at, block in enumerate(M_DD.split(run))])
        one_BB = torch.eye(run, dtype=torch.float64, device=M_DD.device)
        skew_NBB, _ = torch.linalg.solve_ex(one_BB + turns_NBB, one_BB - turns_NBB)
        again_NBB = one_BB + cayley((skew_NBB - skew_NBB.mT) / 2)
        if not torch.allclose(again_NBB, turns_NBB, rtol=0.0, atol=_NEAR):
            raise refuse(
                f"{insertion.name}: its factors together turn something at {insertion.site.path} by half a circle, and one "
                "factor, which is all that peft computes everywhere, cannot"
            )
        return {"boft_R": skew_NBB.unsqueeze(0).to(own["blocks"].dtype)}

    def absent(self, width: int) -> dict[str, Tensor]:
        return {"boft_s": torch.ones(width, 1)}

    def prepared(
        self, model: nn.Module, config: Mapping[str, Any], sites: Sites
    ) -> list[tuple[Mapping[str, Any], Sites]]:
        """Number and width of the blocks as they are stored: peft may be told how many there are, and have fewer factors than it
        is told."""
        shapes = {path: own["boft_R"].shape if "boft_R" in own else torch.Size() for path, own in sites.items()}
        known = {path: shape if len(shape) == 4 else torch.Size((1, 1, 1, 1)) for path, shape in shapes.items()}
        return grouped(config, sites, lambda path: {"factors": known[path][0], "size": known[path][-1]})

    def slots(self, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        return renamed(self.names, tensors)

    def _function(self, config: Mapping[str, Any]) -> dict[str, Any]:
        return {"name": "butterfly", "size": config["size"], "factors": config["factors"]}
