"""What peft calls our functions with frozen random parts. It draws others, so its file has to hold ours, and gives us its own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor

from unipet.adaptation.peft.form import Form, factor_of, renamed, shared_of
from unipet.calculus.functions.random_low_rank import RandomLowRank
from unipet.calculus.insertion import Insertion


class RandomLowRankForm(Form):
    """λ_b ⊙ B (λ_d ⊙ A x); A and B are written, too, because peft draws others."""

    peft_type = "VERA"
    function = RandomLowRank
    suffixes = ("vera_lambda_b", "vera_lambda_d")
    shares = ("vera_A", "vera_B")
    reads = ("r", "vera_dropout", "d_initial", "projection_prng_key", "save_projection")
    conv1d = True

    def config(self, insertion: Insertion) -> dict[str, Any]:
        function = insertion.parts.function
        assert isinstance(function, RandomLowRank)
        return {
            "r": function.size,
            "vera_dropout": function.dropout,
            "d_initial": function.start_at,
            "projection_prng_key": function.seed,
            "save_projection": True,
            "bias": "none",
            "init_weights": True,
        }

    def tensors(self, insertion: Insertion) -> dict[str, Tensor]:
        own = insertion.reduced()
        outer = own["outer"]
        return {"vera_lambda_b": outer * factor_of(insertion), "vera_lambda_d": own["inner"]}

    def common(self, insertions: Sequence[Insertion]) -> dict[str, Tensor]:
        frozen = shared_of(insertions).frozen()
        return {"vera_A": frozen["down"], "vera_B": frozen["up"]}

    def parts(self, config: Mapping[str, Any]) -> dict[str, Any]:
        given = {
            "size": config["r"],
            "dropout": config.get("vera_dropout", 0.0),
            "start_at": config.get("d_initial", 0.1),
        }
        seed = config.get("projection_prng_key", 0)
        return {"function": {"name": "random_low_rank", **given, "seed": seed}, "composition": "add", "scaling": 1.0}

    def slots(self, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        return renamed({"vera_lambda_b": "outer", "vera_lambda_d": "inner"}, tensors)

    def frozen(self, tensors: Mapping[str, Tensor], insertion: Insertion) -> dict[str, Tensor]:
        return renamed({"vera_A": "down", "vera_B": "up"}, tensors)
