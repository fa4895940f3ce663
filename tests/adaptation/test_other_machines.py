"""A saved adapter on another machine: frozen factors of the base weight are made again by another linear algebra library.

It may give singular vectors and columns of Q other signs, other last bits, and another basis where singular values are
equal. The first two must not matter; the third is refused, because the adapter was trained with other vectors.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import BertConfig, BertModel

import unipet
from tests.support.matrix import randomise
from tests.support.tiny import SIZES
from unipet.adaptation.api import frozen

SVD, QR = torch.linalg.svd, torch.linalg.qr
SITE = {"site": ["attn.q", "ffn.down"]}
FROM_START = {"size": 4, "from_start": True}
#: Functions whose frozen tensors come from a factorisation.
FACTORED: dict[str, dict[str, Any]] = {
    "svd": {"name": "low_rank", "init": "svd", **FROM_START},
    "svd_minor": {"name": "low_rank", "init": "svd_minor", **FROM_START},
    "qr": {"name": "low_rank", "init": "qr", **FROM_START},
    "frozen_half": {"name": "low_rank", "size": 4, "init": "svd", "freeze": ["down"]},
    "singular_core": {"name": "singular_core", "size": 4},
    "subspace_rotation": {"name": "subspace_rotation", "size": 4},
    "subspace_rotation_even": {"name": "subspace_rotation", "size": 4, "split": "even"},
}


def signs(count: int) -> Tensor:
    """Half of them -1."""
    return torch.where(torch.arange(count) % 2 == 0, -1.0, 1.0).double()


def other_svd(weight: Tensor, full_matrices: bool = True) -> Any:
    u, s, v = SVD(weight, full_matrices=full_matrices)
    sign = signs(len(s))
    noise = torch.randn(v.shape, generator=torch.Generator().manual_seed(0), dtype=v.dtype) * 1e-14
    return u * sign, s, (v + noise) * sign.unsqueeze(1)


def other_qr(weight: Tensor) -> Any:
    q, r = QR(weight)
    sign = signs(q.shape[1])
    return q * sign, r * sign.unsqueeze(1)


def other_basis(weight: Tensor, full_matrices: bool = True) -> Any:
    """Of equal singular values, any rotation of their vectors is as good."""
    u, s, v = SVD(weight, full_matrices=full_matrices)
    turn = QR(torch.randn(len(s), len(s), generator=torch.Generator().manual_seed(1), dtype=v.dtype))[0]
    return u @ turn, s, turn.T @ v


def base_model(equal: bool = False) -> Any:
    torch.manual_seed(0)
    model = BertModel(BertConfig(**SIZES)).eval()
    with torch.no_grad():
        for path, module in model.named_modules():
            if equal and path.endswith(("query", "output.dense")):
                torch.nn.init.orthogonal_(module.weight)
    return model


def saved(function: dict[str, Any], where: Path, equal: bool = False) -> Tensor:
    model = base_model(equal)
    spec = {"name": "x", "unfreeze": [], "insertions": {"a": {"function": function, "position": SITE}}}
    unipet.adapt(model, spec)
    randomise(model)
    unipet.save(model, where)
    return output(model)


def output(model: Any) -> Tensor:
    with torch.no_grad():
        found: Tensor = model(input_ids=torch.arange(5, 25).view(2, 10)).last_hidden_state
    return found


@pytest.mark.parametrize("name", FACTORED)
def test_other_signs_and_last_bits_do_not_matter(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = saved(FACTORED[name], tmp_path)
    base = output(base_model())
    assert (expected - base).abs().max() > 1e-3, "it does nothing"
    monkeypatch.setattr(torch.linalg, "svd", other_svd)
    monkeypatch.setattr(torch.linalg, "qr", other_qr)
    model = base_model()
    unipet.load(model, tmp_path)
    assert frozen(model)
    assert torch.allclose(output(model), expected, atol=1e-5)


@pytest.mark.parametrize("name", [name for name in FACTORED if name != "qr"])
def test_another_basis_of_equal_singular_values_is_refused(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    saved(FACTORED[name], tmp_path, equal=True)
    monkeypatch.setattr(torch.linalg, "svd", other_basis)
    model = base_model(equal=True)
    with pytest.raises(unipet.UnipetError, match="frozen tensors of a came out differently"):
        unipet.load(model, tmp_path)
    assert not hasattr(model, "_unipet")


@pytest.mark.parametrize("mask", ["largest", "smallest"])
def test_entries_of_one_size_are_chosen_in_order(mask: str) -> None:
    """Half-precision weights have many; which of them train must not be left to a sorting routine."""
    model = base_model()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_((parameter * 20).round() / 20)
    function = {"name": "sparse", "mask": mask, "density": 0.05}
    unipet.adapt(model, {"name": "x", "insertions": {"a": {"function": function, "position": SITE}}, "unfreeze": []})
    for name, places in frozen(model).items():
        size = model.get_submodule(name.split("/")[1]).weight.abs().flatten()
        border = size[places].min() if mask == "largest" else size[places].max()
        tied = (size == border).nonzero().flatten()
        taken = torch.isin(tied, places)
        assert 0 < taken.sum() < len(tied), "no tie at the border, so nothing was checked"
        assert torch.equal(taken, torch.arange(len(tied)) < taken.sum()), "the first of them"
