"""Half-precision base models and autocast: insertions stay float32 and compute what they compute in full precision."""

from __future__ import annotations

from contextlib import nullcontext
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import unipet
from tests.support.architectures import ARCHS
from tests.support.generating import adapted, generate, lively, prompts, steps
from tests.support.matrix import close

MODES = {"bfloat16": torch.bfloat16, "float16": torch.float16, "autocast": torch.bfloat16}


def half(arch: str, method: str, full: nn.Module, mode: str) -> Any:
    """The same adapted model on a base of lower precision (autocast: the model itself)."""
    if mode == "autocast":
        return full
    model = lively(arch).to(MODES[mode])
    unipet.adapt(model, method)
    assert all(parameter.dtype == torch.float32 for parameter in unipet.parameters(model).values())
    with torch.no_grad():
        for name, parameter in unipet.parameters(model, head=True).items():
            parameter.copy_(unipet.parameters(full, head=True)[name])
    return model


def around(mode: str) -> Any:
    return torch.autocast("cpu", torch.bfloat16) if mode == "autocast" else nullcontext()


def trained(arch: str, model: Any, mode: str) -> tuple[Tensor, dict[str, Tensor]]:
    batch = ARCHS[arch].batch()
    model.train()
    model.zero_grad()
    with around(mode):
        out = model(**batch, labels=ARCHS[arch].labels(batch))
    out.loss.backward()
    model.eval()
    owned = unipet.parameters(model)
    return ARCHS[arch].real(batch, out.logits).detach().float(), {name: p.grad for name, p in owned.items()}


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("method", ["unipelt", "mam", "ia3"])
@pytest.mark.parametrize("arch", ["bert", "gpt2", "llama", "opt", "bart", "t5"])
def test_lower_precision_computes_and_trains_the_same(arch: str, method: str, mode: str) -> None:
    full = adapted(arch, method, std=0.05)
    for module in full.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
    expected, gradients = trained(arch, full, "full")
    gradients = {name: gradient.clone() for name, gradient in gradients.items()}
    found, lower = trained(arch, half(arch, method, full, mode), mode)
    assert close(found, expected, 0.05)
    for gradient in lower.values():
        assert gradient.dtype == torch.float32 and gradient.isfinite().all()
    one, other = (torch.cat([g.flatten() for g in each.values()]) for each in (gradients, lower))
    assert nn.functional.cosine_similarity(one, other, dim=0) > 0.98


@pytest.mark.parametrize("arch", ["llama", "bart"])
def test_generation_under_autocast(arch: str) -> None:
    model, batch = adapted(arch, "mam", std=0.05), prompts(arch)
    expected = steps(generate(model, batch, new=1))
    with around("autocast"):
        cached, whole = (generate(model, batch, new=3, use_cache=flag) for flag in (True, False))
    assert close(steps(cached)[:1].float(), expected, 0.05) and close(steps(cached), steps(whole), 0.05)
