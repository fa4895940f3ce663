"""A linear module whose weight an insertion's matrix is joined to computes what h + s·f(x) is, and remembers nothing."""

from __future__ import annotations

import weakref
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import unipet
from tests.support.architectures import ARCHS
from tests.support.matrix import assert_same_gradients, close, deep_copy, randomise, with_loss
from unipet.adaptation import attaching
from unipet.adaptation.adapted import adaptation
from unipet.adaptation.joined_weight import _Again, _Remade
from unipet.calculus import direct
from unipet.calculus.composition import Add, elementwise, of_weight
from unipet.calculus.functions import product
from unipet.calculus.functions.random_low_rank import RandomLowRank
from unipet.calculus.insertion import Insertion
from unipet.training.budget.checkpointing import checkpointed

AT = {"site": ["attn.q", "ffn.down"], "form": "parallel"}
FUNCTIONS: dict[str, dict[str, Any]] = {
    "hadamard product": {"function": {"name": "hadamard_product", "size": 2}, "scaling": 0.5},
    "spectrum": {"function": {"name": "fourier", "size": 20}, "scaling": 2.0},
    "wavelets": {"function": {"name": "wavelet", "size": 20}, "scaling": {"name": "learned_vector", "start": 0.7}},
    "entries": {"function": {"name": "sparse", "size": 1}, "scaling": 0.5},
    "entries and a learned number": {
        "function": {"name": "sparse", "size": 1},
        "scaling": {"name": "learned", "start": 0.7},
    },
    "entries and one for each row": {
        "function": {"name": "sparse", "size": 1},
        "scaling": {"name": "learned_vector", "start": 0.7},
    },
    "random bases": {"function": {"name": "random_bases", "size": 2}, "scaling": {"name": "learned", "start": 0.7}},
    "circulant blocks": {"function": {"name": "circulant", "size": 4}, "scaling": 3.0},
    "low rank": {"function": {"name": "low_rank", "size": 2}, "scaling": 0.5},
    "low rank with an offset": {"function": {"name": "low_rank", "size": 2, "bias": True}, "scaling": 0.5},
    "low rank with a diagonal": {"function": {"name": "low_rank", "size": 2, "diagonal": True}, "scaling": 0.5},
    "low rank and one number for each row": {
        "function": {"name": "low_rank", "size": 2},
        "scaling": {"name": "learned_vector", "start": 0.7},
    },
    "a grid of low-rank blocks": {"function": {"name": "grid", "size": 4, "blocks": 2}, "scaling": 0.5},
    "low rank behind a gate": {"function": {"name": "low_rank", "size": 2}, "scaling": "input_gate"},
    "low rank with an offset behind a gate of each token": {
        "function": {"name": "low_rank", "size": 2, "bias": True},
        "scaling": {"name": "input_gate", "pool": "token"},
    },
    "experts of low rank": {"function": {"name": "low_rank", "size": 2}, "mixture": {"experts": 2}, "scaling": 0.5},
    "experts for each token behind a gate": {
        "function": {"name": "low_rank", "size": 2},
        "mixture": {"experts": 2, "router": "per_token"},
        "scaling": "input_gate",
    },
    "rows normalised": {"function": {"name": "low_rank", "size": 2}, "composition": "normalise", "scaling": 0.5},
    "rows normalised with experts": {
        "function": {"name": "low_rank", "size": 2},
        "composition": {"name": "normalise", "bias": True, "detach": False},
        "mixture": {"experts": 2},
        "scaling": 0.5,
    },
    "factor of the weight": {"function": {"name": "low_rank", "size": 2}, "composition": "hadamard", "scaling": 0.5},
}


def adapted(insertion: dict[str, Any], dtype: torch.dtype = torch.float64) -> Any:
    model = ARCHS["bert"].build().to(dtype)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        unipet.adapt(model, {"name": "x", "insertions": {"one": {"position": AT, **insertion}}})
    randomise(model)
    return model


def joined(model: nn.Module) -> list[nn.Module]:
    return [module for module in model.modules() if "forward" in module.__dict__]


def outcome(model: Any) -> tuple[Tensor, dict[str, Tensor]]:
    model.train()
    torch.manual_seed(1)  # experts are drawn
    result = with_loss("bert", model, ARCHS["bert"].batch(3, 7))
    result.loss.backward()
    found = unipet.parameters(model, head=True)
    return result.logits, {name: p.grad for name, p in found.items() if p.grad is not None}


@pytest.mark.parametrize("name", FUNCTIONS)
def test_it_is_the_equation(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    model = adapted(FUNCTIONS[name])
    assert len(joined(model)) == 2 * model.config.num_hidden_layers
    monkeypatch.setattr(attaching, "can_join", lambda module: False)
    apart = adapted(FUNCTIONS[name])
    assert not joined(apart)
    logits, gradients = outcome(model)
    expected, expected_gradients = outcome(apart)
    assert close(logits, expected, 1e-10)
    assert any(gradient.abs().max() > 0 for name, gradient in gradients.items() if name.startswith("one/"))
    assert_same_gradients(gradients, expected_gradients, 1e-9)
    batch = ARCHS["bert"].batch(3, 7)
    with torch.no_grad():
        assert close(model.eval()(**batch).logits, apart.eval()(**batch).logits, 1e-10)


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("name", ["low rank", "low rank behind a gate", "experts of low rank", "rows normalised"])
def test_h_is_added_to_in_its_own_memory_unless_somebody_looks_on(
    name: str, training: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, places = adapted(FUNCTIONS[name]).train(training), list[int]()
    inside = product.into

    def seen(h: Tensor, *delta: Any) -> Tensor:
        found = inside(h, *delta)
        places.append(h.data_ptr())
        assert found.data_ptr() == h.data_ptr()
        return found

    for module in (direct, elementwise, of_weight):
        monkeypatch.setattr(module, "into", seen)
    batch = ARCHS["bert"].batch(3, 7)
    with torch.set_grad_enabled(training):
        model(**batch)
        assert len(places) == len(joined(model)) > 0
        calls: list[Tensor] = []
        insertions = list(adaptation(model).items)
        handles = [each.register_forward_hook(lambda own, given, h: calls.append(h)) for each in insertions]
        model(**batch)
        assert len(calls) == len(insertions) == len(places)
        for handle in handles:
            handle.remove()
        model(**batch)
        assert len(places) == 2 * len(insertions)


def test_the_weight_is_not_kept_for_the_backward_pass(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[weakref.ref[Tensor]] = []
    weight = Add.weight

    def watched(self: Add, W_DI: Tensor, *of_function: Any) -> Tensor:
        result = weight(self, W_DI, *of_function)
        made.append(weakref.ref(result))
        return result

    monkeypatch.setattr(Add, "weight", watched)
    model = adapted(FUNCTIONS["hadamard product"]).train()
    loss = with_loss("bert", model, ARCHS["bert"].batch(3, 7)).loss
    count = len(joined(model))
    assert len(made) == count and all(each() is None for each in made)
    loss.backward()
    assert len(made) == 2 * count


@pytest.mark.parametrize("other", [torch.float16, torch.bfloat16])
def test_a_base_model_in_half_precision_keeps_its_weight_apart(other: torch.dtype) -> None:
    """Joined to a half-precision weight, small changes would be rounded away."""
    model = adapted(FUNCTIONS["hadamard product"], other)
    for tensor in unipet.parameters(model).values():
        tensor.data = tensor.data.float() * 1e-3
    module, x = joined(model)[0], torch.ones(2, 3, 16, dtype=other)
    insertion = module.forward.__self__.hook.insertion  # type: ignore[attr-defined]
    x = torch.ones(2, 3, module.in_features, dtype=other)  # type: ignore[arg-type]
    assert insertion.joined_weight(module.weight, x) is None
    assert module(x).dtype == other


def test_under_autocast_the_weight_stays_apart() -> None:
    model = adapted(FUNCTIONS["hadamard product"], torch.float32)
    module: Any = joined(model)[0]
    insertion, x = module.forward.__self__.hook.insertion, torch.ones(2, 3, module.in_features)
    assert insertion.joined_weight(module.weight, x) is not None
    with torch.autocast("cpu", torch.bfloat16):
        assert insertion.joined_weight(module.weight, x) is None


def test_ejecting_gives_every_module_its_own_forward_pass_back() -> None:
    before = ARCHS["bert"].build().double()
    model = adapted(FUNCTIONS["hadamard product"])
    unipet.eject(model)
    assert not joined(model)
    batch = ARCHS["bert"].batch(3, 7)
    assert torch.equal(model.eval()(**batch).logits, before.eval()(**batch).logits)


def test_a_deep_copy_computes_with_its_own_weights() -> None:
    model = adapted(FUNCTIONS["hadamard product"]).eval()
    batch = ARCHS["bert"].batch(3, 7)
    with torch.no_grad():
        expected = model(**batch).logits
        other = deep_copy(model)
        for parameter in model.parameters():
            parameter.zero_()
        assert torch.equal(other(**batch).logits, expected)


def test_one_that_reads_h_before_it_keeps_its_place() -> None:
    """The second insertion at a module does not come before the first: its weight stays apart."""
    model = ARCHS["bert"].build()
    first = {"function": {"name": "bottleneck", "size": 2}, "position": {"site": "attn.q", "form": "sequential"}}
    second = {**FUNCTIONS["hadamard product"], "position": "attn.q"}
    unipet.adapt(model, {"name": "x", "insertions": {"first": first, "second": second}})
    assert not joined(model)


@pytest.mark.parametrize("name", ["low rank behind a gate", "experts of low rank"])
def test_what_differs_between_rows_is_joined_to_no_weight(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    model = adapted(FUNCTIONS[name])
    monkeypatch.setattr(Insertion, "joined_weight", None)
    outcome(model)


def test_shapes_choose_between_tokens_and_matrix() -> None:
    """Large random factors cost less as one matrix where the batch has many tokens, and never with dropout in training."""
    from unipet.calculus.functions.base import Widths

    function, widths = RandomLowRank(size=256), Widths(384, 384)
    assert function.cheaper_as_matrix(2048, widths, True) and not function.cheaper_as_matrix(16, widths, True)
    assert not RandomLowRank(size=8).cheaper_as_matrix(2048, widths, True)
    assert not RandomLowRank(size=256, dropout=0.1).cheaper_as_matrix(2048, widths, True)
    assert RandomLowRank(size=256, dropout=0.1).cheaper_as_matrix(2048, widths, False)


@pytest.mark.parametrize("bias", [True, False])
def test_a_weight_that_is_linear_in_what_trains_is_made_again_without_a_graph(bias: bool) -> None:
    """For every input that trains: the gradients of the plain linear map, and the matrix is made with gradients once."""
    made: list[bool] = []
    base = torch.randn(5, 4, dtype=torch.float64)
    values = torch.randn(5, 4, dtype=torch.float64, requires_grad=True)
    x = torch.randn(2, 3, 4, dtype=torch.float64, requires_grad=True)
    own = torch.randn(5, dtype=torch.float64, requires_grad=True) if bias else None

    def make() -> Tensor:
        made.append(torch.is_grad_enabled())
        return base + 0.5 * values

    def remade(x: Tensor, values: Tensor, own: Tensor | None) -> Tensor:
        return _Remade.apply(x, make(), own, make)

    assert torch.autograd.gradcheck(remade, (x, values, own))
    assert torch.autograd.gradgradcheck(remade, (x, values, own))
    made.clear()
    remade(x, values, own).sum().backward()
    assert made == [True, False]
    made.clear()
    remade(x.detach(), values, own).sum().backward()  # nothing before it trains: the matrix is not needed again
    assert made == [True]


def test_any_other_weight_is_made_again_once_with_all_that_its_gradients_need() -> None:
    made: list[bool] = []
    base = torch.randn(5, 4, dtype=torch.float64)
    first, second = (torch.randn(5, 4, dtype=torch.float64, requires_grad=True) for _ in range(2))
    x = torch.randn(2, 3, 4, dtype=torch.float64, requires_grad=True)

    def remade(x: Tensor, first: Tensor, second: Tensor) -> Tensor:
        def make() -> Tensor:
            made.append(torch.is_grad_enabled())
            return base * (first * second).exp() + 0.5 * torch.linalg.qr(first)[0] @ second.T @ second

        again = _Again(make)
        return _Remade.apply(x, again.begin(), None, again.weight)

    assert torch.autograd.gradcheck(remade, (x, first, second))
    assert torch.autograd.gradgradcheck(remade, (x, first, second))
    for given in (x, x.detach()):  # nothing may train before it
        made.clear()
        result = remade(given, first, second).sin().sum()
        assert made == [True]
        grads = [torch.autograd.grad(result, (first, second), retain_graph=retain) for retain in (True, False)]
        assert made == [True] * 3, "once in each backward pass"
        assert all(map(torch.equal, *grads))


def test_nothing_that_a_weight_is_made_of_is_kept() -> None:
    """Neither before the backward pass nor after it."""
    kept: list[weakref.ref[Tensor]] = []
    values = torch.randn(5, 4, requires_grad=True)

    def make() -> Tensor:
        middle = values.exp()
        kept.append(weakref.ref(middle))
        return middle * middle.sin()

    again = _Again(make)
    result = _Remade.apply(torch.randn(2, 4), again.begin(), None, again.weight)
    assert len(kept) == 1 and kept[0]() is None
    result.sum().backward(retain_graph=True)
    assert len(kept) == 2 and kept[1]() is None and not again._kept
    assert values.grad is not None and values.grad.abs().sum() > 0


def test_layers_that_are_run_again_make_it_again() -> None:
    def gradients(checkpoints: bool) -> dict[str, Tensor]:
        model = adapted(FUNCTIONS["hadamard product"]).train()
        with checkpointed(model, checkpoints):
            with_loss("bert", model, ARCHS["bert"].batch(3, 7)).loss.backward()
        return {name: each.grad for name, each in unipet.parameters(model).items() if each.grad is not None}

    assert_same_gradients(gradients(True), gradients(False), 1e-11)
