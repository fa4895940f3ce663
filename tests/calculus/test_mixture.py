"""Mixtures: routing, its random stream, sharing, reducing and merging (AdaMix), and the consistency objective."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import unipet
from tests.support.tiny import TINY, tiny_batch
from unipet.adaptation.adapted import adaptation
from unipet.calculus.objectives import task_loss


def without_dropout(model: nn.Module) -> None:
    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0


POSITIONS = {
    "low_rank": {"position": {"site": "attn.q"}},
    "bottleneck": {"position": {"site": "ffn", "form": "sequential"}},
    "prefix": {"position": {"site": "attn.heads"}, "composition": "gated"},
}


def mixed(function: str = "low_rank", share: list[str] | None = None, **mixture: Any) -> nn.Module:
    insertion = {
        "function": {"name": function, "size": 3},
        **POSITIONS[function],
        "mixture": {"experts": 3, "share": share or [], **mixture},
    }
    model = TINY["bert"]()
    unipet.adapt(model, {"name": "mixed", "insertions": {"one": insertion}})
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for parameter in unipet.parameters(model).values():
            parameter.copy_(torch.randn(parameter.shape, generator=generator))
    return model


def test_names_carry_the_expert_after_the_slot() -> None:
    names = [name.rsplit("/")[-1] for name in unipet.parameters(mixed("bottleneck", ["up"]))]
    own = names[: len(names) // 2]
    assert own == [
        *(f"down.{e}.weight" for e in range(3)),
        *(f"down.{e}.bias" for e in range(3)),
        "up.weight",
        "up.bias",
    ]
    assert "down.0" in {name.rsplit("/")[-1] for name in unipet.parameters(mixed("low_rank", ["up"]))}


def test_expectation_of_random_routing_is_the_merged_mixture() -> None:
    """A linear function, slots drawn independently: E[B_j A_i x] = mean(B) mean(A) x, exactly."""
    insertion = adaptation(mixed()).items[0]
    x, h = torch.randn(2, 5, 32, dtype=torch.float32), torch.zeros(2, 5, 32)
    insertion.eval()
    merged = insertion(h, x)
    insertion.train()
    total = torch.zeros_like(h)
    for down, up in itertools.product(range(3), range(3)):
        insertion.context.routes = [{insertion.number: {"down": down, "up": up}}]
        total += insertion(h, x)
    assert torch.allclose(total / 9, merged, atol=1e-4)


@pytest.mark.parametrize("driven", [True, False])
def test_merging_right_after_a_training_step_takes_the_mean_not_the_routed_expert(driven: bool) -> None:
    """A training loop leaves the model in training mode, with the last step's routes in place."""
    model, batch = mixed(), tiny_batch()
    with torch.no_grad():
        expected = model(**batch).logits
        model.train()
        if driven:
            adaptation(model).draw(7, seed=0)
        model(**batch)
        insertion = adaptation(model).items[0]
        routed, mean = insertion.params(), insertion.reduced()
        assert not any(torch.allclose(routed[name], mean[name], atol=1e-3) for name in mean)
        unipet.merge(model)
        assert torch.allclose(model.eval()(**batch).logits, expected, rtol=0, atol=1e-6)  # the expert's differ by 5e-5


def test_the_router_is_uniform_independent_per_slot_and_per_site() -> None:
    inserted = adaptation(mixed())
    drawn = []
    for step in range(600):
        inserted.draw(step, seed=0)
        first, second = (inserted.context.routes[0][i] for i in (0, 1))
        drawn.append((first["down"], first["up"], second["down"]))
    for column in zip(*drawn, strict=True):
        counts = [column.count(expert) for expert in range(3)]
        assert min(counts) > 150 and sum(counts) == 600  # 200 expected, sd 11.5
    assert len({d[:2] for d in drawn}) == 9 and len({d[::2] for d in drawn}) == 9


def test_routing_leaves_the_global_random_stream_alone_and_follows_seed_and_step() -> None:
    inserted = adaptation(mixed())
    torch.manual_seed(0)
    expected = torch.rand(3)
    torch.manual_seed(0)
    inserted.draw(7, seed=1)
    first = inserted.context.routes
    assert torch.equal(torch.rand(3), expected)
    inserted.draw(8, seed=1)
    inserted.draw(7, seed=1)
    assert inserted.context.routes == first
    routes = []
    for step in range(20):
        inserted.draw(step, seed=2)
        routes.append(inserted.context.routes)
    assert any(route != routes[0] for route in routes)


def test_a_plain_training_loop_draws_anew_at_every_forward_pass() -> None:
    model = mixed().train()
    seen = []
    for _ in range(20):
        model(**tiny_batch())
        seen.append(adaptation(model).context.routes)
    assert any(route != seen[0] for route in seen)


def test_one_draw_holds_for_every_micro_batch_of_a_step() -> None:
    """The gradient of a step does not depend on how its batch is cut, routing included."""

    def gradients(parts: int) -> dict[str, Tensor]:
        model, batch = mixed("bottleneck", ["up"]).train(), tiny_batch(rows=4)
        without_dropout(model)
        adaptation(model).draw(3, seed=0)
        labels = torch.arange(4) % 2
        for rows in torch.arange(4).chunk(parts):
            out = model(**{name: tensor[rows] for name, tensor in batch.items()})
            (task_loss(out.logits, labels[rows], regression=False) * len(rows) / 4).backward()
        return {name: p.grad for name, p in unipet.parameters(model).items() if p.grad is not None}

    whole, halves = gradients(1), gradients(2)
    assert whole.keys() == halves.keys()
    assert all(torch.allclose(whole[name], halves[name], atol=1e-5) for name in whole)


@pytest.mark.parametrize("function", ["bottleneck", "prefix"])
def test_stacked_views_are_two_passes_with_two_routes(function: str) -> None:
    model, batch = mixed(function).train(), tiny_batch()
    without_dropout(model)
    inserted = adaptation(model)
    for step in range(50):  # until the two views differ at the first site
        inserted.draw(step, seed=0)
        routes = inserted.context.routes
        if routes[0][0] != routes[1][0]:
            break
    with inserted.views(2):
        stacked = model.bert(**{name: torch.cat([tensor, tensor]) for name, tensor in batch.items()}).last_hidden_state
    for view in range(2):
        inserted.context.routes = [routes[view]]
        assert torch.allclose(model.bert(**batch).last_hidden_state, stacked.chunk(2)[view], atol=1e-5)
    assert not torch.allclose(*stacked.chunk(2), atol=1e-3)


def test_init_cloned_and_independent() -> None:
    for init, equal in (("cloned", True), ("independent", False)):
        model = TINY["bert"]()
        mixture = {"experts": 3, "share": ["up"], "init": init}
        insertion = {"function": "low_rank", "position": "attn.q", "mixture": mixture}
        unipet.adapt(model, {"name": "mixed", "insertions": {"one": insertion}})
        p = unipet.parameters(model)
        name = "one/bert.encoder.layer.0.attention.self.query/down"
        assert torch.equal(p[f"{name}.0"], p[f"{name}.1"]) is equal
