"""A gate: what it computes, and that reading its input together with the function changes nothing but the work."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

import unipet
import unipet.calculus.insertion as insertion_module
from tests.support.insertions import adapted, method, only, output
from tests.support.tiny import tiny_batch
from unipet.calculus.insertion import Insertion


def test_input_gate_means_over_real_tokens_and_keeps_alpha() -> None:
    scaling = {"name": "input_gate", "alpha": 8.0}
    insertion = only(adapted(method(function={"name": "low_rank", "size": 4}, scaling=scaling)))
    x, mask = torch.randn(2, 5, 32), torch.tensor([[1, 1, 1, 1, 1], [1, 1, 0, 0, 0]]).bool()
    insertion.context.masks_BS[insertion.site.tokens_of] = mask
    p = insertion.scale.reduced()
    each = torch.sigmoid(x @ p["gate.weight"].T + p["gate.bias"]).squeeze(-1)
    expected = torch.stack([each[0].mean(), each[1, :2].mean()]) * 8.0 / 4
    factor = insertion.factor(x, x)
    assert isinstance(factor, Tensor) and torch.allclose(factor.flatten(), expected)


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("pool", ["sequence", "token", "all"])
@pytest.mark.parametrize(
    ("function", "at_once"),
    [
        ({"name": "bottleneck", "size": 3}, True),
        ({"name": "bottleneck", "size": 3, "bias": False}, True),
        ({"name": "bottleneck", "size": 3, "norm": "in"}, False),
        ({"name": "low_rank", "size": 3}, True),
        ({"name": "low_rank", "size": 3, "bias": True}, True),
        ({"name": "kronecker_bottleneck", "size": 4, "terms": 2}, True),
        ({"name": "random_low_rank", "size": 3}, True),
        ({"name": "vector"}, False),
    ],
)
def test_a_gate_that_reads_with_the_function_computes_what_it_would_alone(
    function: dict[str, Any], at_once: bool, pool: str, training: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = method(function=function, position="ffn", scaling={"name": "input_gate", "pool": pool})
    model = adapted(spec).double().train(training)
    products: list[int] = []
    count = insertion_module.both
    monkeypatch.setattr(insertion_module, "both", lambda *maps: (products.append(1), count(*maps))[1])

    def outcome() -> list[Tensor]:
        hidden = model(**tiny_batch()).last_hidden_state
        return [hidden, *torch.autograd.grad(hidden.square().sum(), list(unipet.parameters(model).values()))]

    found = outcome()
    assert bool(products) == at_once
    monkeypatch.setattr(Insertion, "_at_once", lambda *call: None)
    assert all(torch.allclose(one, other, atol=1e-10) for one, other in zip(found, outcome(), strict=True))


@pytest.mark.parametrize(
    "function", [{"name": "rotation", "size": 8}, {"name": "kronecker_bottleneck", "size": 4, "norm": "in"}]
)
def test_what_a_function_generates_is_generated_once_in_a_pass(
    function: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = method(function=function, position={"site": "ffn", "form": "sequential"}, scaling="input_gate")
    model = adapted(spec).train()
    kind: Any = type(only(model).parts.function)
    generate, calls = kind.generate, []
    monkeypatch.setattr(kind, "generate", lambda *given: (calls.append(1), generate(*given))[1])
    output(model)
    assert len(calls) == 2  # one for each layer


@pytest.mark.parametrize("pool", ["sequence", "token"])
@pytest.mark.parametrize(
    "function", [{"name": "low_rank", "size": 3}, {"name": "bottleneck", "size": 3, "bias": False}]
)
def test_a_gate_leaves_half_precision_as_it_is(
    function: dict[str, Any], pool: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = adapted(method(function=function, position="ffn", scaling={"name": "input_gate", "pool": pool})).train()
    kind: Any = type(only(model).parts.composition)
    join, seen = kind.join, []

    def joined(own: Any, h: Tensor, delta: Any, *given: Any) -> Tensor:
        seen.append((h.dtype, delta.z.dtype, delta.joins(h)))
        return join(own, h, delta, *given)

    monkeypatch.setattr(kind, "join", joined)
    with torch.autocast("cpu", torch.bfloat16):
        model(**tiny_batch())
    assert seen[0] == (torch.bfloat16, torch.bfloat16, True)
