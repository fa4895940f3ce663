"""What peft calls our maps between frozen random matrices. It draws others, so its file holds ours, and gives us its own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import sqrt
from typing import Any, ClassVar

from torch import Tensor
from torch.nn import functional as F

from unipet.adaptation.peft.form import Form, alpha_of, factor_of, per_channel, renamed, shared_of, whole
from unipet.adaptation.peft.saved_modules import refuse
from unipet.calculus.functions.random_bases import RandomBases
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


class RandomBasesForm(Form):
    """Σ B diag(λ) A diag(γ) times α/r, in the order of the released code, which peft has."""

    peft_type = "RANDLORA"
    function = RandomBases
    conv1d = True
    names: ClassVar[dict[str, str]] = {"randlora_lambda": "inner", "randlora_gamma": "outer"}
    suffixes = (*names, "randlora_A", "randlora_B")  # peft's own files repeat at every module what all share
    shares = ("randlora_A", "randlora_B")
    reads = (
        "r",
        "randlora_alpha",
        "randlora_dropout",
        "projection_prng_key",
        "save_projection",
        "sparse",
        "very_sparse",
    )

    def why_not(self, insertion: Insertion) -> str | None:
        return per_channel(insertion) or super().why_not(insertion)

    def config(self, insertion: Insertion) -> dict[str, Any]:
        function = insertion.parts.function
        assert isinstance(function, RandomBases)
        alpha, root, _ = alpha_of(insertion)
        return {
            "r": function.size,
            "randlora_alpha": whole(alpha * sqrt(function.size) if root else alpha),
            "projection_prng_key": function.seed,
            "save_projection": True,
            "bias": "none",
            "init_weights": True,
        }

    def tensors(self, insertion: Insertion) -> dict[str, Tensor]:
        own = insertion.reduced()
        return {"randlora_lambda": own["inner"] * alpha_of(insertion)[2], "randlora_gamma": own["outer"]}

    def common(self, insertions: Sequence[Insertion]) -> dict[str, Tensor]:
        """Ours in peft's sizes: it makes A as wide as the smaller of the widest input and the widest output. What is wider than
        every site needs is never read."""
        function, frozen = insertions[0].parts.function, shared_of(insertions).frozen()
        assert isinstance(function, RandomBases)
        A_RM, B_XNR = frozen["A"], frozen["B"]
        size, bases = function.size, B_XNR.shape[1]
        narrow = min(max(item.widths.u for item in insertions), max(item.widths.h for item in insertions))
        if not function.released_order:
            if len({min(item.widths.u, item.widths.h) for item in insertions}) > 1:
                raise refuse(
                    f"{insertions[0].name}: it pairs bases in the order of the released code alone "
                    "(function.released_order: true), and these sites have different numbers of them"
                )
            # Column (k, n) of theirs stands where (n, k) of ours does.
            B_XNR = B_XNR.transpose(1, 2).reshape(len(B_XNR), bases, size)
        more = -(-narrow // size) - bases
        return {
            "randlora_A": F.pad(A_RM, (0, narrow - A_RM.shape[1])).unsqueeze(1),
            "randlora_B": F.pad(B_XNR, (0, 0, 0, more)),
        }

    def parts(self, config: Mapping[str, Any]) -> dict[str, Any]:
        function = {
            "name": "random_bases",
            "size": config["r"],
            "released_order": True,
            "seed": config.get("projection_prng_key", 0),
        }
        scaling = {"name": "alpha_over_rank", "alpha": config.get("randlora_alpha", 640)}
        return {"function": function, "composition": "add", "scaling": scaling}

    def slots(self, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        return renamed(self.names, tensors)

    def frozen(self, tensors: Mapping[str, Tensor], insertion: Insertion) -> dict[str, Tensor]:
        own = shared_of([insertion]).frozen()
        A, B = tensors.get("randlora_A"), tensors.get("randlora_B")
        if A is None or B is None or A.dim() != 3 or B.dim() != 3:
            return {}
        (wide, bases, _), narrow = own["B"].shape, own["A"].shape[1]
        return {"A": A[:, 0, :narrow], "B": B[:wide, :bases]}
