"""Shipped methods of several insertions: what they make of one weight and bias, against their papers' formula."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

import unipet
from tests.support.architectures import ARCHS
from tests.support.functions import built, logits, randomise

PATH = "bert.encoder.layer.1.attention.self.value"


def tensors_at(model: nn.Module) -> dict[str, Tensor]:
    """insertion/slot -> tensor at one site."""
    found: dict[str, Tensor] = {}
    for name, tensor in unipet.parameters(model).items():
        insertion, path, slot = name.split("/")
        if path == PATH:
            found[f"{insertion}/{slot}"] = tensor.detach().clone()
    return found


def merged(method: str) -> tuple[Tensor, Tensor, dict[str, Tensor], Tensor, Tensor]:
    """W, b, the method's tensors, and W', b' after merging, at one site."""
    arch = ARCHS["bert"]
    model = built(arch)
    unipet.adapt(model, method)
    randomise(model)
    module, own = model.get_submodule(PATH), tensors_at(model)
    W, b = module.weight.detach().clone(), module.bias.detach().clone()
    before = logits(arch, model)
    unipet.merge(model)
    assert torch.allclose(logits(arch, model), before, atol=1e-5 * max(1.0, before.abs().max().item()))
    return W, b, own, module.weight.detach(), module.bias.detach()


def test_all_paths_of_the_generalised_low_rank_method() -> None:
    W, b, p, new_W, new_b = merged("glora")
    M, D = (p[f"{name}/up"] @ p[f"{name}/down"] for name in "AB")
    assert torch.allclose(new_W, W + W * M + D, atol=1e-5)
    assert torch.allclose(new_b, b + b * p["D/value"] + p["E/value"] + W @ p["C/value"], atol=1e-5)


def test_butterfly_and_scale_leave_the_bias_alone() -> None:
    W, b, p, new_W, new_b = merged("boft")
    assert torch.allclose(new_b, b, atol=1e-6)
    gain = 1 + p["scale/value"]
    assert torch.allclose((new_W / gain[:, None]).norm(dim=1), W.norm(dim=1), atol=1e-4), (
        "W M turns, it stretches nothing"
    )
    assert not torch.allclose(new_W, gain[:, None] * W, atol=1e-2)


def test_plane_rotations_turn_the_bias_with_the_output() -> None:
    W, b, p, new_W, new_b = merged("road")
    angle, gain = p["rotation/angles"], p["rotation/gains"]
    for old, new in ((b[:, None], new_b[:, None]), (W, new_W)):
        first, second = old[0::2], old[1::2]
        cos, sin = (gain * angle.cos())[:, None], (gain * angle.sin())[:, None]
        assert torch.allclose(new[0::2], cos * first - sin * second, atol=1e-5)
        assert torch.allclose(new[1::2], sin * first + cos * second, atol=1e-5)


@pytest.mark.parametrize("method", ["oft", "hra"])
def test_rotations_of_the_input_keep_the_bias(method: str) -> None:
    W, b, _, new_W, new_b = merged(method)
    assert torch.equal(new_b, b) and not torch.allclose(new_W, W, atol=1e-2)
    if method == "hra":
        assert torch.allclose(new_W.norm(dim=1), W.norm(dim=1), atol=1e-4)
