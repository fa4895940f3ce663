"""The other routers and reducers of a mixture: what each takes, and what merging makes of it."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

import unipet
from tests.support.tiny import tiny_batch, tiny_bert
from unipet.adaptation.adapted import adaptation
from unipet.calculus.mixture import by_expert


def adapted(**mixture: Any) -> nn.Module:
    """A tiny BERT with three experts of a low-rank map at the feed-forward block of each layer."""
    model = tiny_bert()
    insertion = {
        "function": {"name": "low_rank", "size": 2, "init": "bert"},
        "position": "ffn.up",
        "mixture": {"experts": 3, **mixture},
    }
    unipet.adapt(model, {"name": "x", "insertions": {"a": insertion}})
    with torch.no_grad():
        for parameter in unipet.parameters(model).values():
            parameter.normal_(0, 0.3)
    return model


def logits(model: nn.Module) -> Tensor:
    with torch.no_grad():
        out: Tensor = model(**tiny_batch()).logits
    return out


def with_routes(model: nn.Module, routes: list[Any]) -> Tensor:
    """Logits in training mode with the same route at every site."""
    inserted = adaptation(model)
    inserted.train()
    inserted.routing.driven = True
    inserted.context.routes = [{item.number: route for item in inserted.items} for route in routes]
    result = logits(model)
    inserted.eval()
    return result


def test_round_robin_takes_each_in_turn_and_fixed_always_the_same() -> None:
    inserted = adaptation(adapted(router="round_robin"))
    taken = []
    for step in range(4):
        inserted.draw(step, seed=0)
        taken.append([view[0] for view in inserted.context.routes])
    assert [one[0] for one in taken] == [{"down": i, "up": i} for i in (0, 1, 2, 0)]
    assert [one[1] for one in taken] == [{"down": i, "up": i} for i in (1, 2, 0, 1)], "the second view is one ahead"
    inserted = adaptation(adapted(router="fixed", expert=2))
    inserted.draw(5, seed=0)
    assert inserted.context.routes[0] == {item.number: {"down": 2, "up": 2} for item in inserted.items}


def test_weighted_is_softmax_of_scores_and_soft_trains_through_it() -> None:
    model = adapted(router="soft", reducer="weighted")
    own = unipet.parameters(model)
    scores = {name: tensor for name, tensor in own.items() if name.endswith(".scores")}
    assert len(scores) == 4 and all(tensor.shape == (3,) for tensor in scores.values())
    weights = next(iter(scores.values())).softmax(0)
    bank = adaptation(model).items[0].bank
    stacked = torch.stack([bank.routed({"down": i, "up": 0})["down"] for i in range(3)])
    expected = (weights.view(3, 1, 1) * stacked).sum(0)
    assert torch.allclose(bank.reduced()["down"], expected, atol=1e-6)
    adaptation(model).train()
    model(**tiny_batch()).logits.sum().backward()
    assert all(tensor.grad is not None and tensor.grad.any() for tensor in own.values())
    adaptation(model).eval()
    before = logits(model)
    unipet.merge(model)
    assert torch.allclose(logits(model), before, atol=1e-5)


def test_scores_start_as_the_mean() -> None:
    model = tiny_bert()
    mixture = {"experts": 3, "router": "soft", "reducer": "weighted"}
    insertion = {"function": {"name": "low_rank", "size": 2}, "position": "ffn.up", "mixture": mixture}
    unipet.adapt(model, {"name": "x", "insertions": {"a": insertion}})
    bank = adaptation(model).items[0].bank
    mean = torch.stack([bank.routed({"down": i, "up": 0})["down"] for i in range(3)]).mean(0)
    assert torch.allclose(bank.reduced()["down"], mean, atol=1e-7)


def test_fixed_reduces_to_one_expert_and_mean_of_outputs_to_their_mean() -> None:
    model = adapted(reducer="fixed", expert=1)
    assert torch.equal(logits(model), with_routes(model, [{"down": 1, "up": 1}]))
    model = adapted(reducer="mean_of_outputs")
    item = adaptation(model).items[0]
    u = torch.randn(2, 3, item.widths.u)
    each = [item.parts.function.delta(u, params, False) for params in item.bank.copies()]
    h = torch.zeros(2, 3, item.widths.h)
    assert torch.allclose(item(h, u), torch.stack(each).mean(0), atol=1e-6)
    expected = logits(model)
    unipet.merge(model)  # of linear maps, the mean of the outputs is that of the maps
    assert torch.allclose(logits(model), expected, atol=1e-6)


@pytest.mark.parametrize("reducer", ["random", "random_example", "random_token"])
def test_random_reducers_draw_at_each_evaluation_and_do_not_merge(reducer: str) -> None:
    model = adapted(reducer=reducer)
    assert any(not torch.equal(logits(model), logits(model)) for _ in range(5))
    with pytest.raises(unipet.UnipetError, match="makes no single function"):
        unipet.merge(model)


def test_a_route_of_rows_is_each_row_s_own_expert() -> None:
    model = adapted(router="per_example")
    rows = tiny_batch()["input_ids"].shape[0]
    chosen = torch.arange(rows) % 3
    mixed = with_routes(model, [{"down": chosen, "up": chosen.flip(0)}])
    for row in range(rows):
        alone = with_routes(model, [{"down": int(chosen[row]), "up": int(chosen.flip(0)[row])}])
        assert torch.allclose(mixed[row], alone[row], atol=1e-6)


def test_by_expert_covers_every_row_once() -> None:
    route = {"down": torch.tensor([[0, 1], [2, 0]]), "up": torch.tensor([[1, 1], [0, 1]])}
    parts = list(by_expert(route))
    assert torch.equal(sum(rows.int() for _, rows in parts), torch.ones(2, 2, dtype=torch.int))  # type: ignore[union-attr]
    assert {tuple(one.values()) for one, _ in parts} == {(0, 1), (1, 1), (2, 0)}


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"mixture": {"router": "per_example"}, "composition": "hadamard"}, "functions of their own"),
        ({"mixture": {"experts": 3, "expert": 3}}, "expert: 3 given; allowed: a whole number from 0 to 2"),
        ({"mixture": {"router": "uniformly"}}, "Did you mean 'uniform'"),
    ],
)
def test_mistakes(change: dict[str, Any], match: str) -> None:
    insertion = {"function": "low_rank", "position": "ffn.up", **change}
    with pytest.raises(unipet.UnipetError, match=match):
        unipet.adapt(tiny_bert(), {"name": "x", "insertions": {"a": insertion}})
