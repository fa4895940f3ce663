"""Routers that look at single tokens (per_token, hash, learned), who shares a draw, and what a draw depends on."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import unipet
from tests.support.tiny import tiny_batch, tiny_bert
from unipet.adaptation.adapted import adaptation
from unipet.calculus.mixture.counter import choices, normal, place, places
from unipet.calculus.mixture.routes import rows_at

#: The routers that take tokens apart, each with options that matter.
BY_TOKEN: list[dict[str, Any]] = [
    {"router": "per_token"},
    {"router": "hash"},
    {"router": "hash", "slots": "independent", "grain": "model"},
    {"router": "learned", "noise": 0.5},
    {"router": "learned", "top_k": 2, "pool": "sequence"},
]
each_by_token = pytest.mark.parametrize("mixture", BY_TOKEN, ids=lambda m: "-".join(map(str, m.values())))


def adapted(site: str = "ffn.up", function: str = "low_rank", **mixture: Any) -> nn.Module:
    model = tiny_bert().double()
    insertion = {
        "function": {"name": function, "size": 2, "init": "bert"},
        "position": site,
        "mixture": {"experts": 3, **mixture},
    }
    unipet.adapt(model, {"name": "x", "insertions": {"a": insertion}})
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in unipet.parameters(model).values():
            parameter.copy_(torch.randn(parameter.shape, generator=generator))
    return model


def hidden(model: nn.Module, batch: dict[str, Tensor]) -> Tensor:
    with torch.no_grad():
        out: Tensor = model.bert(**batch).last_hidden_state  # type: ignore[operator, union-attr]
    return out


def in_training(model: nn.Module, batch: dict[str, Tensor], step: int = 5, seed: int = 0) -> Tensor:
    adaptation(model).draw(step, seed)
    out = hidden(model.train(), batch)
    model.eval()
    return out


# -- random numbers --------------------------------------------------------------------------------------------------


def test_a_number_is_the_same_for_one_place_and_for_many() -> None:
    bits = rows_at(place(3, "a"), 10, 5, torch.device("cpu"))
    assert torch.equal(bits[2:], rows_at(place(3, "a"), 12, 3, torch.device("cpu")))
    signed = place(7, 2**63 + 5)
    assert int(places(torch.tensor(place(7) - (2**64 if place(7) >= 2**63 else 0)), 2**63 + 5)) % 2**64 == signed


def test_numbers_are_uniform_normal_and_independent_of_their_neighbours() -> None:
    bits = places(rows_at(place(1), 0, 200, torch.device("cpu")).unsqueeze(1), torch.arange(200))
    counts = torch.bincount(choices(bits, 5).flatten(), minlength=5)
    assert (counts - 8000).abs().max() < 5 * 80  # the deviation of a count is 80
    z = normal(bits)
    assert abs(z.mean()) < 0.025 and abs(z.std() - 1) < 0.02 and z.abs().max() < 6
    for near in (z[1:] * z[:-1], z[:, 1:] * z[:, :-1]):
        assert abs(near.mean()) < 0.025


# -- what is computed ------------------------------------------------------------------------------------------------


def deltas(model: nn.Module, u_BTU: Tensor) -> Tensor:
    """Δ of each expert alone, (M, B, T, D)."""
    item = adaptation(model).items[0]
    return torch.stack([item.parts.function.delta(u_BTU, params, False) for params in item.bank.copies()])


def at_first_site(model: nn.Module, batch: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
    """(u, Δ) at the first site of one pass."""
    item, seen = adaptation(model).items[0], []

    def note(module: nn.Module, given: tuple[Any, ...], made: Tensor) -> None:
        seen.append((given[1], made - given[0]))

    handle = item.register_forward_hook(note)
    hidden(model, batch)
    handle.remove()
    return seen[0]


@pytest.mark.parametrize("pool", ["token", "sequence"])
@pytest.mark.parametrize("top_k", [1, 2, 3])
def test_learned_is_the_weighted_sum_over_the_best_experts_of_its_gate(pool: str, top_k: int) -> None:
    model, batch = adapted(router="learned", top_k=top_k, pool=pool), tiny_batch(3, 6)
    u, delta = at_first_site(model, batch)
    real = batch["attention_mask"].double().unsqueeze(-1)
    read = u if pool == "token" else ((u * real).sum(1, keepdim=True) / real.sum(1, keepdim=True))
    weight = unipet.parameters(model)["a/bert.encoder.layer.0.intermediate.dense/router.weight"]
    assert weight.shape == (3, 32)
    p = (read @ weight.T).float().softmax(-1)
    kept = p * (p >= p.sort(-1, descending=True).values[..., top_k - 1 : top_k])
    kept = kept / kept.sum(-1, keepdim=True) if top_k > 1 else kept
    each = deltas(model, u)
    expected = sum(kept[..., i : i + 1].double() * each[i] for i in range(3))
    torch.testing.assert_close(delta, expected, rtol=0, atol=1e-6 * float(each.detach().abs().max()))


def test_hash_takes_one_expert_for_each_word_everywhere() -> None:
    model, batch = adapted(router="hash"), tiny_batch(3, 6)
    u, delta = at_first_site(model, batch)
    each = deltas(model, u)
    taken = (each - delta).abs().sum(-1).argmin(0)
    assert torch.allclose(delta, each.gather(0, taken[None, ..., None].expand_as(each))[0])
    of_word: dict[int, set[int]] = {}
    for word, expert in zip(batch["input_ids"].flatten().tolist(), taken.flatten().tolist(), strict=True):
        of_word.setdefault(word, set()).add(expert)
    assert all(len(experts) == 1 for experts in of_word.values()) and len(set.union(*of_word.values())) == 3
    assert torch.equal(in_training(model, batch), hidden(model, batch)), "training and evaluation route alike"


def test_per_token_routes_are_uniform_over_experts_and_differ_between_steps() -> None:
    model, batch = adapted(router="per_token"), tiny_batch(4, 9)
    assert not torch.equal(in_training(model, batch, 1), in_training(model, batch, 2))
    assert not torch.equal(in_training(model, batch, 1, seed=1), in_training(model, batch, 1, seed=2))
    assert torch.equal(in_training(model, batch, 1), in_training(model, batch, 1))
    shares = torch.zeros(3)
    for step in range(60):
        in_training(model, batch, step)
        shares += adaptation(model).context.shares[0, 0]
    assert (shares / 60 - 1 / 3).abs().max() < 0.04  # of 1800 draws in two slots each


def test_noise_reaches_training_alone_and_changes_the_choice() -> None:
    model, batch = adapted(router="learned", noise=2.0), tiny_batch()
    calm = hidden(model, batch)
    assert torch.equal(calm, hidden(model, batch))
    first, second = in_training(model, batch, 1), in_training(model, batch, 2)
    assert not torch.allclose(first, calm) and not torch.allclose(first, second)


# -- what a row's output depends on ----------------------------------------------------------------------------------


@each_by_token
def test_neither_padding_nor_company_changes_what_a_row_gets(mixture: dict[str, Any]) -> None:
    """In training, too: draws and noise are those of the row's place and of its real tokens."""
    model, batch = adapted(**mixture), tiny_batch(4, 9)
    wide = {name: nn.functional.pad(tensor, (0, 3)) for name, tensor in batch.items()}
    real = batch["attention_mask"].bool()
    for says in (hidden, in_training):
        whole = says(model, batch)
        assert torch.allclose(says(model, wide)[:, :9][real], whole[real], rtol=0, atol=1e-8)
    alone = hidden(model, {name: tensor[2:3, :7] for name, tensor in batch.items()})
    assert torch.allclose(alone, hidden(model, batch)[2:3, :7], rtol=0, atol=1e-8)


def test_padding_on_the_left_draws_the_same() -> None:
    model, batch = adapted(router="per_token"), tiny_batch(4, 9)
    left = {name: torch.stack([row.roll(min(i, 6)) for i, row in enumerate(tensor)]) for name, tensor in batch.items()}
    left["position_ids"] = (left["attention_mask"].cumsum(1) - 1).clamp(min=0)
    found, expected = in_training(model, left), in_training(model, batch)
    for row in range(4):
        assert torch.allclose(found[row, row:], expected[row, : 9 - row], rtol=0, atol=1e-8)


@each_by_token
def test_the_gradient_of_a_step_does_not_depend_on_micro_batches(mixture: dict[str, Any]) -> None:
    def gradients(sizes: list[int]) -> dict[str, Tensor]:
        model, batch = adapted(**mixture).train(), tiny_batch(6)
        adaptation(model).draw(3, seed=0)
        for rows in torch.arange(6).split(sizes):
            piece = {name: tensor[rows] for name, tensor in batch.items()}
            out = model.bert(**piece).last_hidden_state  # type: ignore[operator, union-attr]
            (out.pow(3) * piece["attention_mask"].unsqueeze(-1)).sum().backward()
        return {name: p.grad for name, p in unipet.parameters(model).items() if p.grad is not None}

    whole, parts = gradients([6]), gradients([1, 3, 2])
    assert whole.keys() == parts.keys() and len(whole) >= 12
    assert any("router" in name for name in whole) == (mixture["router"] == "learned")
    for name, gradient in whole.items():
        assert gradient.any(), name
        torch.testing.assert_close(parts[name], gradient, rtol=1e-6, atol=1e-8)


@each_by_token
def test_saved_and_loaded_it_says_the_same(mixture: dict[str, Any], tmp_path: Path) -> None:
    model, batch = adapted(**mixture), tiny_batch()
    unipet.save(model, tmp_path)
    loaded = tiny_bert().double()
    unipet.load(loaded, tmp_path)
    assert torch.equal(hidden(loaded, batch), hidden(model, batch))
    assert torch.equal(in_training(loaded, batch), in_training(model, batch))


@pytest.mark.parametrize("mixture", [{"router": "learned"}, {"router": "hash"}], ids=["learned", "hash"])
def test_what_the_input_decides_bakes_into_nothing_but_its_mean_does(mixture: dict[str, Any]) -> None:
    model, batch = adapted(**mixture), tiny_batch()
    with pytest.raises(unipet.UnipetError, match="reducer 'routed' makes no single function"):
        unipet.merge(model)
    model = adapted(**mixture, reducer="mean_of_weights")
    said, names = hidden(model, batch), {name for name in model.state_dict() if "_unipet" not in name}
    unipet.merge(model)
    assert set(model.state_dict()) == names
    assert torch.allclose(hidden(model, batch), said, rtol=0, atol=1e-9)


def test_a_hash_needs_token_ids() -> None:
    model = adapted(router="hash")
    with pytest.raises(unipet.UnipetError, match="called without input_ids"):
        model.bert(inputs_embeds=torch.randn(2, 4, 32, dtype=torch.float64))  # type: ignore[operator, union-attr]


# -- who shares a draw -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("grain", "distinct"), [("site", 4), ("layer", 2), ("model", 1)])
@pytest.mark.parametrize("slots", ["independent", "joint"])
def test_grain_says_which_sites_share_a_draw_and_slots_which_slots(grain: str, distinct: int, slots: str) -> None:
    model = tiny_bert()
    insertion = {"function": {"name": "low_rank", "size": 2}, "mixture": {"experts": 5, "grain": grain, "slots": slots}}
    both = {name: {**insertion, "position": site} for name, site in (("a", "attn.q"), ("b", "ffn.up"))}
    unipet.adapt(model, {"name": "x", "insertions": both})
    inserted, seen = adaptation(model), []
    for step in range(40):
        inserted.draw(step, 0)
        seen.append([(route["down"], route["up"]) for route in inserted.context.routes[0].values()])
    columns = list(zip(*seen, strict=True))
    assert len(set(columns)) == distinct
    layers = [item.site.layer for item in inserted.items]
    alike = [[columns[i] == columns[j] for j in range(4)] for i in range(4)]
    if grain == "layer":
        assert alike == [[layers[i] == layers[j] for j in range(4)] for i in range(4)]
    assert all((down == up) for column in columns for down, up in column) == (slots == "joint")


def test_ranks_draw_the_same_unless_asked_otherwise() -> None:
    for ranks, equal in (("same", True), ("different", False)):
        inserted, drawn = adaptation(adapted(ranks=ranks)), []
        for rank in (0, 1):
            inserted.routing.rank = rank
            routes = []
            for step in range(10):
                inserted.draw(step, 0)
                routes.append(inserted.context.routes)
            drawn.append(routes)
        assert (drawn[0] == drawn[1]) is equal


# -- what a learned router reports -----------------------------------------------------------------------------------


@pytest.mark.parametrize("pool", ["token", "sequence"])
def test_a_router_reports_its_probabilities_and_choices_of_real_tokens(pool: str) -> None:
    model, batch = adapted(router="learned", pool=pool, top_k=2), tiny_batch()
    hidden(model, batch)
    assert not adaptation(model).context.uses, "evaluation reports nothing"
    u, _ = at_first_site(model, batch)
    adaptation(model).draw(0, 0)
    model.train()(**batch)
    first, second = adaptation(model).context.uses
    assert (first.place, second.place) == tuple(f"a/{item.site.name}" for item in adaptation(model).items)
    weight = unipet.parameters(model)["a/bert.encoder.layer.0.intermediate.dense/router.weight"]
    real = batch["attention_mask"].bool()
    if pool == "token":
        read = u[real]
    else:
        read = (u * real.unsqueeze(-1)).sum(1) / real.sum(1, keepdim=True)
    p = (read @ weight.T).float().softmax(-1)
    torch.testing.assert_close(first.probabilities_NM, p)
    assert torch.equal(first.chosen_NM, torch.zeros_like(p).scatter(-1, p.topk(2).indices, 1.0))
    counts = first.counts()
    assert counts[-1] == len(p) and counts[:-1].sum() == 2 * len(p)
    torch.testing.assert_close(adaptation(model).context.shares[0, 0], counts[:-1] / counts[:-1].sum())
    first.probabilities_NM[:, 0].sum().backward()
    assert weight.grad is not None and weight.grad.any()


def test_a_look_at_the_whole_batch_before_its_gradients_draws_the_same() -> None:
    """An objective counts the choices of a batch first; noise and draws are those of the passes that follow."""

    def gradients(look: bool) -> dict[str, Tensor]:
        model, batch = adapted(router="learned", noise=1.0).train(), tiny_batch(6)
        adaptation(model).draw(3, seed=0)
        pieces = [{name: tensor[rows] for name, tensor in batch.items()} for rows in torch.arange(6).split(2)]
        with torch.no_grad():
            for piece in pieces if look else ():
                model.bert(**piece)  # type: ignore[operator, union-attr]
        for piece in pieces:
            model.bert(**piece).last_hidden_state[:, 0].pow(3).sum().backward()  # type: ignore[operator, union-attr]
        return {name: p.grad for name, p in unipet.parameters(model).items() if p.grad is not None}

    plain, looked = gradients(False), gradients(True)
    assert plain.keys() == looked.keys()
    assert all(torch.equal(plain[name], looked[name]) for name in plain)


# -- mistakes --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("mixture", "match"),
    [
        ({"router": "uniform", "reducer": "routed"}, "does not look at the input. Routers that do: learned, hash"),
        ({"router": "uniform", "top_k": 2}, "top_k: neither router 'uniform' nor reducer 'mean_of_weights' reads it"),
        ({"router": "learned", "top_k": 4}, "top_k: 4 given; allowed: a whole number from 1 to 3"),
        ({"router": "learned", "slots": "independent"}, "slots: neither router 'learned'"),
        ({"router": "round_robin", "grain": "model"}, "It is an option of router uniform"),
        ({"router": "learn"}, "Did you mean 'learned'"),
        ({"grain": "layers"}, "Did you mean 'layer'"),
    ],
)
def test_mistakes(mixture: dict[str, Any], match: str) -> None:
    with pytest.raises(unipet.UnipetError, match=match):
        adapted(**mixture)


def test_a_gate_cannot_read_token_ids_and_a_prompt_has_no_tokens_to_tell_apart() -> None:
    one = {"function": "vector", "position": "embed", "mixture": {"router": "learned"}}
    with pytest.raises(unipet.UnipetError, match=r"does not go with site .*token ids, which a gate cannot read"):
        unipet.adapt(tiny_bert(), {"name": "x", "insertions": {"a": one}})
    prompt = {"function": "prompt", "position": "embed", "composition": "concat", "mixture": {"router": "per_token"}}
    with pytest.raises(unipet.UnipetError, match="the tokens that it adds are the same for all inputs"):
        unipet.adapt(tiny_bert(), {"name": "x", "insertions": {"a": prompt}})
