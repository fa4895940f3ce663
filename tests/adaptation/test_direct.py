"""What an insertion computes in evaluation with few look-ups is, bit for bit, what it computes with all of them."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import nn

import unipet
from tests.support.architectures import ARCHS
from tests.support.functions import built
from tests.support.matrix import METHODS
from unipet.adaptation.adapted import adaptation
from unipet.calculus.insertion import Insertion

LORA = {
    "insertions": {"a": {"function": {"name": "low_rank", "size": 4}, "position": {"site": ["attn.q", "ffn.down"]}}}
}


def randomised(method: Any, arch: str) -> nn.Module:
    model = built(ARCHS[arch])
    unipet.adapt(model, method)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in unipet.parameters(model).values():
            parameter.add_(torch.randn(parameter.shape, generator=generator) * 0.2)
    return model.eval()


def answers(model: nn.Module, arch: str) -> torch.Tensor:
    with torch.no_grad():
        found: torch.Tensor = model(**ARCHS[arch].batch()).logits
    return found


@pytest.mark.parametrize("arch", ["bert", "llama", "bart", "gpt2"])
@pytest.mark.parametrize("name", sorted(METHODS))
def test_every_method(name: str, arch: str, monkeypatch: pytest.MonkeyPatch) -> None:
    try:
        model = randomised(METHODS[name], arch)
    except unipet.UnipetError:
        return  # of a role that this architecture lacks
    with_few = answers(model, arch)
    monkeypatch.setattr(Insertion, "direct", None)
    assert torch.equal(with_few, answers(model, arch))


def test_which_calls_are_direct() -> None:
    model = randomised({"name": "x", **LORA}, "bert")
    items = adaptation(model).items
    assert all(item.direct is not None for item in items)
    assert not any(item.train().direct for item in items)
    model.eval()
    heard: list[Any] = []
    handle = items[0].register_forward_hook(lambda module, args, output: heard.append(module))
    answers(model, "bert")
    assert heard == [items[0]], "a hook of the user's is heard"
    handle.remove()
    assert items[0].direct is not None
    gated = {"name": "x", "insertions": {"a": {**LORA["insertions"]["a"], "scaling": "input_gate"}}}
    assert not any(item.direct for item in adaptation(randomised(gated, "bert")).items)


def test_new_values_copies_and_other_parts_are_seen() -> None:
    """It keeps where tensors live, and neither their values nor those of another model."""
    model = randomised({"name": "x", **LORA}, "bert")
    before = answers(model, "bert")
    other = copy.deepcopy(model)
    with torch.no_grad():
        for parameter in unipet.parameters(other).values():
            parameter.zero_()
    assert torch.equal(answers(model, "bert"), before)
    bare = answers(other, "bert")
    assert not torch.equal(bare, before)
    for item in adaptation(model).items:
        item.bank.put("up", nn.Parameter(torch.zeros_like(item.bank.home.parameter("up"))))
    assert torch.equal(answers(model, "bert"), bare)
    summary = unipet.merge(other)
    assert summary == {"a": "folded"} and torch.allclose(answers(other, "bert"), bare, atol=1e-6)
