"""What peft calls our low-rank maps whose entries are those of one trained vector."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import sqrt
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from unipet.adaptation.peft.form import Form, Sites, counted, factor_of, plain_factor, renamed, rows_by, shared_of
from unipet.calculus.functions.hashed_low_rank import HashedLowRank
from unipet.calculus.insertion import Insertion
from unipet.calculus.weights import BaseWeight
from unipet.errors import UnipetError

_LETTERS = "AB"


class HashedForm(Form):
    """B A with entries θ[index] · scale; index and scale are in the file. √s goes into all scales where s is one number above
    zero, s into B's otherwise."""

    peft_type = "UNILORA"
    function = HashedLowRank
    conv1d = True
    bare = True
    suffixes = tuple(f"unilora_{what}_{letter}" for what in ("indices", "scales") for letter in _LETTERS)
    shares = ("unilora_theta_d",)
    reads = ("r", "proj_seed", "theta_d_length", "unilora_dropout", "init_theta_d_bound", "save_indices")

    def config(self, insertion: Insertion) -> dict[str, Any]:
        function = insertion.parts.function
        assert isinstance(function, HashedLowRank)
        return {
            "r": function.size,
            "theta_d_length": function.length,
            "proj_seed": function.seed,
            "unilora_dropout": function.dropout,
            "save_indices": True,
            "bias": "none",
            "init_weights": True,
        }

    def tensors(self, insertion: Insertion) -> dict[str, Tensor]:
        function, frozen, widths = insertion.parts.function, shared_of([insertion]).frozen(), insertion.widths
        assert isinstance(function, HashedLowRank)
        index, split = frozen[f"index.{widths.number}"], function.size * widths.u
        A_RU, B_DR = index[:split].view(function.size, -1), index[split:].view(-1, function.size)
        s = plain_factor(insertion)
        of_a, of_b = (sqrt(s), sqrt(s)) if s is not None and s > 0 else (1.0, factor_of(insertion))
        return {
            "unilora_indices_A": A_RU,
            "unilora_indices_B": B_DR,
            "unilora_scales_A": rows_by(of_a, frozen["factor"][A_RU]),
            "unilora_scales_B": rows_by(of_b, frozen["factor"][B_DR]),
        }

    def common(self, insertions: Sequence[Insertion]) -> dict[str, Tensor]:
        return {"unilora_theta_d": shared_of(insertions).reduced()["theta"]}

    def prepared(
        self, model: nn.Module, config: Mapping[str, Any], sites: Sites
    ) -> list[tuple[Mapping[str, Any], Sites]]:
        """Each site with its entries in one row, A's before B's, and the scale of every number of θ."""
        size = counted(config, "r")
        shapes = {path: tuple(BaseWeight(model.get_submodule(path), None).weight().shape) for path in sites}
        most = max(max(shape) for shape in shapes.values())
        if size > most:
            raise UnipetError(f"r: {str(size)[:40]!r} given; allowed: a whole number from 1 to {most}.")
        theta = next(iter(sites.values())).get("unilora_theta_d")
        if theta is None or theta.dim() != 1 or not len(theta):
            raise UnipetError("unilora_theta_d: allowed: one row of numbers, which is not there.")
        if config.get("save_indices", False):
            rows = {path: _stored(path, own, size, shapes[path]) for path, own in sites.items()}
        else:
            rows = _drawn(config, len(theta), {path: size * sum(shape) for path, shape in shapes.items()})
        index, scale = (torch.cat([row[which] for row in rows.values()]) for which in (0, 1))
        if not bool(((index >= 0) & (index < len(theta))).all()):
            raise UnipetError(f"unilora_indices: allowed: whole numbers from 0 to {len(theta) - 1}.")
        factor = torch.ones(len(theta), dtype=scale.dtype).index_copy(0, index, scale)
        if not torch.allclose(factor[index], scale, rtol=1e-5, atol=0.0):
            raise UnipetError(
                "unilora_scales: one number of unilora_theta_d has different scales, and here it has one wherever it stands."
            )
        return [(config, {path: {**own, "index": rows[path][0], "factor": factor} for path, own in sites.items()})]

    def parts(self, config: Mapping[str, Any]) -> dict[str, Any]:
        function = {
            "name": "hashed_low_rank",
            "size": config["r"],
            "length": config["theta_d_length"],
            "dropout": config.get("unilora_dropout", 0.0),
            "seed": config.get("proj_seed", 42),
        }
        return {"function": function, "composition": "add", "scaling": 1.0}

    def slots(self, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        return renamed({"unilora_theta_d": "theta"}, tensors)

    def frozen(self, tensors: Mapping[str, Tensor], insertion: Insertion) -> dict[str, Tensor]:
        return renamed({"index": f"index.{insertion.widths.number}", "factor": "factor"}, tensors)


def _stored(path: str, own: Mapping[str, Tensor], size: int, shape: tuple[int, ...]) -> tuple[Tensor, Tensor]:
    """The entries of one module and their scales."""
    expected = {"A": (size, shape[1]), "B": (shape[0], size)}
    for letter, of in expected.items():
        for what in ("indices", "scales"):
            tensor = own.get(f"unilora_{what}_{letter}")
            if tensor is None or tuple(tensor.shape) != of:
                raise UnipetError(f"unilora_{what}_{letter} of {path} are not stored, or not {of}.")
    index, scale = (
        torch.cat([own[f"unilora_{what}_{letter}"].flatten() for letter in _LETTERS]) for what in ("indices", "scales")
    )
    return index.long(), scale


def _drawn(config: Mapping[str, Any], length: int, counts: Mapping[str, int]) -> dict[str, tuple[Tensor, Tensor]]:
    """What peft draws where the file holds none: every number of θ equally often, up to one, in an order that the seed gives;
    the modules in the model's order."""
    seed = config.get("proj_seed", 42)
    if isinstance(seed, bool) or not isinstance(seed, int) or seed < 0:
        raise UnipetError(f"proj_seed: {str(seed)[:40]!r} given; allowed: a whole number from 0.")
    stream = np.random.default_rng(seed)
    often, more = divmod(sum(counts.values()), length)
    entries = np.repeat(np.arange(length), often)
    if more:
        entries = np.concatenate([entries, stream.choice(length, size=more, replace=False)])
    stream.shuffle(entries)
    index = torch.from_numpy(entries).long()
    scale = torch.bincount(index, minlength=length).clamp(min=1).float().rsqrt()[index]
    pieces = zip(index.split(list(counts.values())), scale.split(list(counts.values())), strict=True)
    return dict(zip(counts, pieces, strict=True))
