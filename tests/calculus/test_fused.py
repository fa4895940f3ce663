"""Parts of fused projections: which rows a role is, in every layout, and folding into those rows and no others."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

import unipet
from tests.support.architectures import ARCHS
from tests.support.generating import adapted, lively
from tests.support.matrix import close

#: (the output's last dimension, part) -> that part, as each modelling file cuts it: 4 heads of 8.
Cut = Callable[[Tensor, int], Tensor]


def side_by_side(fused: Tensor, part: int) -> Tensor:
    """GPT-2, ModernBERT: all queries, all keys, all values."""
    return fused[..., part * 32 : (part + 1) * 32]


def per_head(fused: Tensor, part: int) -> Tensor:
    """GPT-NeoX: query, key and value of one head after the other."""
    return torch.cat([fused[..., head * 24 + part * 8 : head * 24 + (part + 1) * 8] for head in range(4)], -1)


def halves(fused: Tensor, part: int) -> Tensor:
    """ModernBERT's feed-forward block: what the activation acts on, then the gate."""
    return fused[..., part * 48 : (part + 1) * 48]


CASES: list[tuple[str, str, str, Cut, int, int]] = [
    *[("gpt2", role, "transformer.h.0.attn.c_attn", side_by_side, i, 3) for i, role in enumerate(("q", "k", "v"))],
    *[
        ("gpt_neox", role, "gpt_neox.layers.0.attention.query_key_value", per_head, i, 3)
        for i, role in enumerate(("q", "k", "v"))
    ],
    *[("modernbert", role, "model.layers.0.attn.Wqkv", side_by_side, i, 3) for i, role in enumerate(("q", "k", "v"))],
    *[("modernbert", role, "model.layers.0.mlp.Wi", halves, i, 2) for i, role in enumerate(("gate", "up"))],
]


def weight(model: Any, path: str) -> Tensor:
    """(out, in), GPT-2's Conv1D turned round."""
    module = model.get_submodule(path)
    return module.weight.detach().T if type(module).__name__ == "Conv1D" else module.weight.detach()


@pytest.mark.parametrize("form", ["parallel", "sequential"])
@pytest.mark.parametrize(("arch", "role", "path", "cut", "part", "parts"), CASES)
def test_a_part_is_its_rows(arch: str, role: str, path: str, cut: Cut, part: int, parts: int, form: str) -> None:
    site = f"{'attn' if parts == 3 else 'ffn'}.{role}"
    position = {"site": site, "form": form, "layers": [0]}
    spec = {"name": "test", "insertions": {"one": {"function": {"name": "low_rank", "size": 3}, "position": position}}}
    model, plain, batch = adapted(arch, spec), lively(arch), ARCHS[arch].batch()
    assert list(unipet.parameters(model)) == [f"one/{path}.{role}/down", f"one/{path}.{role}/up"]
    down, up = (tensor.detach() for tensor in unipet.parameters(model).values())
    seen: dict[str, Any] = {}
    model.get_submodule(path).register_forward_hook(lambda m, args, out: seen.update(x=args[0], new=out))
    plain.get_submodule(path).register_forward_hook(lambda m, args, out: seen.update(old=out))
    with torch.no_grad():
        before = model(**batch).logits
        plain(**batch)
    u = seen["x"] if form == "parallel" else cut(seen["old"], part)
    assert close(cut(seen["new"], part), cut(seen["old"], part) + u @ down.T @ up.T)
    for other in set(range(parts)) - {part}:
        assert torch.equal(cut(seen["new"], other), cut(seen["old"], other))
    unipet.merge(model)
    old, new = weight(plain, path).T, weight(model, path).T  # (in, out), so that `cut` cuts the outputs
    delta = (up @ down).T if form == "parallel" else cut(old, part) @ (up @ down).T
    assert close(cut(new, part), cut(old, part) + delta)
    for other in set(range(parts)) - {part}:
        assert torch.equal(cut(new, other), cut(old, other))
    with torch.no_grad():
        assert close(model(**batch).logits, before)


@pytest.mark.parametrize(("arch", "path", "cut"), [(case[0], case[2], case[3]) for case in CASES[2:6:3]])
def test_a_vector_folds_into_the_part_s_bias(arch: str, path: str, cut: Cut) -> None:
    spec = {
        "name": "test",
        "insertions": {"one": {"function": "vector", "position": {"site": "attn.v", "layers": [0]}}},
    }
    model, plain, batch = adapted(arch, spec), lively(arch), ARCHS[arch].batch()
    value = next(iter(unipet.parameters(model).values())).detach().clone()
    with torch.no_grad():
        before = model(**batch).logits
        unipet.merge(model)
        assert close(model(**batch).logits, before)
    change = model.get_submodule(path).bias - plain.get_submodule(path).bias
    assert close(cut(change, 2), value) and not cut(change, 0).any() and not cut(change, 1).any()
