"""Insertions of a layer that begin with the same product of one x share it, and compute what each would alone."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any
from weakref import ref

import pytest
import torch
from torch import Tensor

import unipet
from tests.support.architectures import ARCHS
from tests.support.matrix import assert_same_gradients, close, randomise, with_loss
from unipet.adaptation import attaching
from unipet.adaptation.adapted import adaptation
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


@pytest.mark.parametrize(
    ("arch", "sites", "groups", "grown"),
    [("bert", SELF, 2, False), *[("llama", [*SELF, "ffn.gate", "ffn.up"], 4, grown) for grown in (False, True)]],
)
@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_in_evaluation(
    arch: str,
    sites: list[str],
    groups: int,
    grown: bool,
    mode: Any,
    products: list[int],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def logits(model: Any) -> list[Tensor]:
        with mode():
            if not grown:
                return [model(**batch).logits for _ in range(2)]
            first = model(input_ids=batch["input_ids"], use_cache=True)
            later = model(input_ids=batch["input_ids"][:, :1], past_key_values=first.past_key_values)
            return [first.logits, later.logits]

    batch = {name: value for name, value in ARCHS[arch].batch(2, 3).items() if name != "labels"}
    model = adapted(arch, sites).eval()
    found = logits(model)
    assert len(products) == 2 * groups
    shared = list(adaptation(model).attached.read_once.values())
    assert len(shared) == groups and all(each._z is not None and each._z() is None for each in shared), (
        "nothing is kept"
    )
    monkeypatch.setattr(attaching, "group_of", lambda insertion: None)
    expected = logits(adapted(arch, sites).eval())
    assert len(products) == 2 * groups
    assert all(close(one, other, 1e-12) for one, other in zip(found, expected, strict=True))


def test_a_product_goes_with_its_x_though_not_everybody_has_read_it() -> None:
    shared, x, weight = read_once.ReadOnce(), torch.randn(1, 2, 3), torch.randn(4, 3)
    shared.members = 3
    readers: list[Any] = [object(), object()]
    z = ref(shared.product(readers[0], x, weight, None, False))
    assert shared.product(readers[1], x, weight, None, False) is z()
    del x
    assert z() is None


def test_other_numbers_or_a_recorded_pass_are_another_product() -> None:
    shared, x, weight = read_once.ReadOnce(), torch.randn(1, 2, 3), torch.randn(4, 3)
    shared.members = 9

    def product(x: Tensor, weight: Tensor, recorded: bool = False) -> Tensor:
        reader: Any = object()
        return shared.product(reader, x, weight, None, recorded)

    first = product(x, weight)
    weight.mul_(2)
    assert torch.equal(product(x, weight), 2 * first)
    x.mul_(2)
    assert torch.equal(product(x, weight), 4 * first)
    assert torch.equal(product(x.clone(), weight[:2]), 4 * first[..., :2])
    assert product(x.requires_grad_(), weight, True).requires_grad


@torch.inference_mode()
def test_who_asks_again_asks_for_another_pass() -> None:
    """In inference mode x does not tell that it was changed."""
    shared, x, weight = read_once.ReadOnce(), torch.randn(1, 2, 3), torch.randn(4, 3)
    shared.members, reader = 2, object()
    first = shared.product(reader, x, weight, None, False)  # type: ignore[arg-type]
    x.mul_(2)
    assert torch.equal(shared.product(reader, x, weight, None, False), 2 * first)  # type: ignore[arg-type]


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
