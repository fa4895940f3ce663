"""Insertions of a layer that begin with the same product of one x share it, and compute what each would alone."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor

import unipet
from tests.support.architectures import ARCHS
from tests.support.matrix import assert_same_gradients, close, randomise, with_loss
from unipet.adaptation import attaching
from unipet.calculus import read_once
from unipet.training.budget.checkpointing import checkpointed

SELF = ["attn.q", "attn.k", "attn.v"]


def adapted(arch: str, sites: list[str], **options: Any) -> Any:
    model = ARCHS[arch].build().double()
    function = {"name": "random_low_rank", "size": 4, **options}
    insertion = {"function": function, "position": {"site": sites, "form": "parallel"}, "composition": "add"}
    unipet.adapt(model, {"name": "x", "insertions": {"one": {**insertion, "scaling": 0.5}}})
    randomise(model)
    return model.train()


def outcome(arch: str, model: Any) -> tuple[Tensor, dict[str, Tensor]]:
    result = with_loss(arch, model, ARCHS[arch].batch(3, 7))
    result.loss.backward()
    found = unipet.parameters(model, head=True)
    return result.logits, {name: p.grad for name, p in found.items() if p.grad is not None}


@pytest.fixture
def products(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[int]]:
    """One entry for each product that was computed for several."""
    found: list[int] = []

    class Counted:
        def __getattr__(self, name: str) -> Any:
            return getattr(torch.nn.functional, name)

        def linear(self, *given: Any) -> Tensor:
            found.append(1)
            return torch.nn.functional.linear(*given)

    monkeypatch.setattr(read_once, "F", Counted())
    yield found


@pytest.mark.parametrize(
    ("arch", "sites", "groups"),
    [
        ("bert", SELF, 2),
        ("bert", ["attn.q", "attn.v"], 2),
        ("llama", [*SELF, "ffn.gate", "ffn.up"], 4),
        ("bart", [*SELF, "cross.k", "cross.v"], 6),  # of two encoder and two decoder layers
        ("t5", ["cross.k", "cross.v"], 2),
    ],
)
def test_it_is_what_each_would_compute_alone(
    arch: str, sites: list[str], groups: int, products: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    model = adapted(arch, sites)
    logits, gradients = outcome(arch, model)
    assert len(products) == groups
    monkeypatch.setattr(attaching, "group_of", lambda insertion: None)
    expected, expected_gradients = outcome(arch, adapted(arch, sites))
    assert len(products) == groups
    assert close(logits, expected, 1e-12)
    assert any(name.startswith("one/") and gradient.abs().max() > 0 for name, gradient in gradients.items())
    assert_same_gradients(gradients, expected_gradients, 1e-11)


def test_a_second_pass_and_a_copy_begin_anew(products: list[int]) -> None:
    model = adapted("bert", SELF)
    first = [each.clone() for each in outcome("bert", model)[1].values()]
    other = copy.deepcopy(model)
    for each in (model, other):
        each.zero_grad()
        again = outcome("bert", each)[1]
        assert all(torch.equal(one, two) for one, two in zip(first, again.values(), strict=True))
    assert len(products) == 3 * 2
    changed = adapted("bert", SELF)
    for name, buffer in changed.named_buffers():
        if name.endswith("down"):
            buffer.mul_(2)
    assert not torch.equal(outcome("bert", changed)[0], outcome("bert", model)[0])


def test_dropout_s_random_numbers_keep_each_apart(products: list[int]) -> None:
    outcome("bert", adapted("bert", SELF, dropout=0.5))
    assert not products


def test_a_layer_that_is_run_again_computes_the_same(products: list[int]) -> None:
    model = adapted("bert", SELF)
    expected = outcome("bert", model)
    gradients = {name: gradient.clone() for name, gradient in expected[1].items()}
    model.zero_grad()
    with checkpointed(model, True):
        logits, again = outcome("bert", model)
    assert close(logits, expected[0], 1e-12)
    assert_same_gradients(again, gradients, 1e-11)
