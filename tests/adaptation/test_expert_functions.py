"""Mixtures whose experts are functions of their own sizes and kinds. What any method promises, test_behaviour.py asks of two of
them; here is what is particular: each expert is that function, their outputs add, and merging is exact or refused."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import unipet
from tests.support.matrix import randomise
from tests.support.running import run_dir, tiny_config
from tests.support.tiny import tiny_batch, tiny_bert
from unipet.adaptation.adapted import adaptation
from unipet.calculus.library import load_method
from unipet.calculus.objectives.of_weights import Orthogonality
from unipet.runs.design import design
from unipet.runs.run import evaluate, run
from unipet.training.budget.size_places import sizes_of
from unipet.training.budget.sizes import solve
from unipet.training.expert_comparison import similarities
from unipet.training.start_values import learned_weights

NARROW, WIDE = {"name": "low_rank", "size": 2}, {"name": "low_rank", "size": 8}
BENT = {"name": "bottleneck", "size": 4}
EXPERTS = {"narrow": NARROW, "wide": WIDE, "bent": BENT}
LINEAR = {"narrow": NARROW, "wide": WIDE}
WIDTH, INNER, LAYERS = 32, 48, 2  # of the tiny BERT; the site is ffn.up


def insertion(experts: Any = EXPERTS, scaling: Any = 1.0, **mixture: Any) -> dict[str, Any]:
    return {"position": {"site": "ffn.up"}, "scaling": scaling, "mixture": {"experts": experts, **mixture}}


def method(experts: Any = EXPERTS, scaling: Any = 1.0, **mixture: Any) -> dict[str, Any]:
    return {"name": "x", "insertions": {"a": insertion(experts, scaling, **mixture)}}


def single(function: Mapping[str, Any], scaling: Any = 1.0) -> dict[str, Any]:
    return {"name": "x", "insertions": {"a": {"function": function, "position": "ffn.up", "scaling": scaling}}}


def adapted(spec: dict[str, Any]) -> nn.Module:
    model = tiny_bert()
    unipet.adapt(model, spec)
    randomise(model)
    return model.eval()


def logits(model: nn.Module) -> Tensor:
    with torch.no_grad():
        out: Tensor = model(**tiny_batch()).logits
    return out


def alone(model: nn.Module, number: int, function: Mapping[str, Any], scaling: Any = 1.0) -> nn.Module:
    """A model with that function as its only one, with the tensors of the expert."""
    other = tiny_bert()
    unipet.adapt(other, single(function, scaling))
    theirs = unipet.parameters(model, head=True)
    with torch.no_grad():
        for name, parameter in unipet.parameters(other, head=True).items():
            path, _, slot = name.rpartition("/")
            first, _, rest = slot.partition(".")
            own = f"{path}/{first}.{number}{'.' if rest else ''}{rest}"
            parameter.copy_(theirs[name if name.startswith("head/") else own])
    return other.eval()


@pytest.mark.parametrize("number", [0, 1, 2])
def test_each_expert_is_its_function_with_the_scaling_of_its_own_size(number: int) -> None:
    scaling = {"name": "alpha_over_rank", "alpha": 16}
    model = adapted(method(scaling=scaling, router="fixed", reducer="fixed", expert=number))
    function = list(EXPERTS.values())[number]
    expected = logits(alone(model, number, function, scaling))
    assert torch.equal(logits(model), expected)
    assert torch.equal(logits(model.train()), expected), "the router takes the same one, and nothing here has dropout"


def test_a_learned_router_weighs_their_outputs_and_the_mean_of_outputs_is_their_mean() -> None:
    scaling = {"name": "alpha_over_rank", "alpha": 8}
    for spec in (method(scaling=scaling, router="learned", top_k=3), method(scaling=scaling)):
        item = adaptation(adapted(spec)).items[0]
        assert item.parts.mixture is not None and item.parts.scaling is not None
        u_BTU, h_BTD = torch.randn(2, 3, WIDTH), torch.zeros(2, 3, INNER)
        own = {name: tensor.detach() for name, tensor in item.bank.named_tensors()}
        bent = (u_BTU @ own["down.2.weight"].T + own["down.2.bias"]).relu() @ own["up.2.weight"].T + own["up.2.bias"]
        outputs = torch.stack(
            [
                8 / 2 * (u_BTU @ own["down.0"].T @ own["up.0"].T),
                8 / 8 * (u_BTU @ own["down.1"].T @ own["up.1"].T),
                8 / 4 * bent,
            ]
        )
        weights = torch.full((2, 3, 3), 1 / 3)
        if item.parts.mixture.gated:
            item.context.note_tokens("encoder", torch.ones(2, 3), None)
            weights = (u_BTU @ own["router.weight"].T).softmax(-1)
        expected = (weights.permute(2, 0, 1).unsqueeze(-1) * outputs).sum(0)
        with torch.no_grad():
            assert torch.allclose(item(h_BTD, u_BTU), expected, atol=1e-4 * expected.abs().max().item())


def test_soft_trains_what_it_evaluates() -> None:
    model = adapted(method(router="soft"))
    assert torch.equal(logits(model.train()), logits(model.eval()))
    model.train()(**tiny_batch()).logits.sum().backward()
    assert all(p.grad is not None and p.grad.any() for p in unipet.parameters(model).values())


def test_linear_experts_fold_exactly_and_others_are_refused_by_name() -> None:
    model = adapted(method(LINEAR, scaling={"name": "alpha_over_rank", "alpha": 3})).double()
    expected = logits(model)
    assert unipet.describe(method(LINEAR), model.config).insertions[0].foldable
    unipet.merge(model)
    assert torch.allclose(logits(model), expected, atol=1e-12) and not hasattr(model, "_unipet")
    model = adapted(method())
    expected = logits(model)
    with pytest.raises(unipet.UnipetError, match="'a': expert 'bent': a bottleneck is not linear"):
        unipet.merge(model)
    assert torch.equal(logits(model), expected)
    unipet.merge(model, partial=True)
    assert torch.equal(logits(model), expected), "what stays keeps all its experts"


def test_one_chosen_expert_is_baked_into_its_own_function_and_folds_if_that_does(tmp_path: Path) -> None:
    model = adapted(method(reducer="fixed", expert=2))
    expected = logits(model)
    assert unipet.merge(model, partial=True) == {"a": "a bottleneck is not linear"}
    (spec,) = adaptation(model).method.insertions
    assert spec.mixture is None and dataclasses.asdict(spec.function)["size"] == 4
    assert torch.equal(logits(model), expected)
    loaded = tiny_bert()
    unipet.load(loaded, unipet.save(model, tmp_path / "a"))
    assert torch.equal(logits(loaded), expected)
    model = adapted(method(reducer="fixed", expert=1))
    expected = logits(model)
    assert unipet.merge(model) == {"a": "folded"}
    assert torch.allclose(logits(model), expected, atol=1e-5)


def test_the_written_method_is_read_back_and_a_saved_adapter_has_it(tmp_path: Path) -> None:
    listed, named = load_method(method(list(EXPERTS.values()))), load_method(method())
    for one in (listed, named):
        assert load_method(one.to_dict()) == one
    written = named.to_dict()["insertions"]["a"]
    assert "function" not in written and list(written["mixture"]["experts"]) == list(EXPERTS)
    assert list(listed.to_dict()["insertions"]["a"]["mixture"]["experts"]) == ["0", "1", "2"]
    assert (
        design(named.to_dict())["function"] == "low_rank + bottleneck"
        and design(named.to_dict())["size"] == "2 + 8 + 4"
    )
    model = adapted(method(router="hash"))
    loaded = tiny_bert()
    unipet.load(loaded, unipet.save(model, tmp_path / "a"))
    assert torch.equal(logits(loaded.eval()), logits(model))


def test_numbers_and_sizes_are_those_of_every_expert() -> None:
    report = unipet.describe(method(router="learned"), tiny_bert().config)
    each = [rank * (WIDTH + INNER) for rank in (2, 8, 4)]
    assert report.trainable == LAYERS * (sum(each) + 4 + INNER + 3 * WIDTH) == report.stored == report.merged
    assert unipet.describe(method(reducer="fixed", expert=1), tiny_bert().config).merged == LAYERS * each[1]
    assert report.insertions[0].function == "low_rank + bottleneck"
    key = "method.insertions.a.mixture.experts."
    assert sizes_of(load_method(method())) == {f"{key}narrow.size": 2, f"{key}wide.size": 8, f"{key}bent.size": 4}


def test_a_budget_lets_them_grow_in_proportion() -> None:
    solution = solve(load_method(method(router="learned")), tiny_bert(), 20_000)
    sizes = dict(zip(EXPERTS, solution.sizes.values(), strict=True))
    assert solution.report.trainable <= 20_000 < (solution.larger_trains or 0)
    assert sizes["wide"] in range(4 * sizes["narrow"], 4 * (sizes["narrow"] + 1)) and sizes["bent"] > 4
    (spec,) = solution.method.insertions
    assert sizes_of(solution.method) == solution.sizes and spec.mixture is not None
    kept = copy.deepcopy(method())
    kept["insertions"]["a"]["ratio"] = 0
    assert solve(load_method(kept), tiny_bert(), 20_000).sizes == {}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"mixture": {"experts": EXPERTS, "reducer": "mean_of_weights"}},
            r"mixture\.reducer: 'mean_of_weights' averages",
        ),
        ({"mixture": {"experts": EXPERTS, "reducer": "fisher"}}, "no common shapes"),
        ({"mixture": {"experts": EXPERTS, "share": ["up"]}}, "share and init are about copies"),
        ({"mixture": {"experts": EXPERTS, "slots": "independent"}}, r"mixture\.slots: 'independent' given"),
        ({"mixture": {"experts": {"one": NARROW}}}, "two or more functions"),
        ({"mixture": {"experts": {"one": NARROW, "two": None}}}, "two or more functions"),
        ({"mixture": {"experts": {"a.b": NARROW, "two": WIDE}}}, "may not be called 'a.b'"),
        ({"mixture": {"experts": {**LINEAR, "odd": {"name": "low_rnak"}}}}, r"experts\.odd\.name: unknown.*'low_rank'"),
        ({"mixture": {"experts": {**LINEAR, "odd": {"name": "low_rank", "sise": 1}}}}, r"experts\.odd\.sise.*'size'"),
        ({"function": "low_rank"}, r"a\.function: the experts of its mixture are functions of their own"),
        ({"ratio": 2}, r"a\.ratio: 2 given"),
        ({"scaling": {"name": "input_gate", "alpha": 2}}, "experts have several"),
        ({"composition": "normalise"}, "normalise"),
        ({"mixture": {"experts": {**LINEAR, "odd": {"name": "prefix"}}}}, r"experts\.odd"),
        ({"mixture": {"experts": {**LINEAR, "odd": {"name": "random_low_rank"}}}}, "tensors that all sites share"),
        (
            {"scaling": {"name": "alpha_over_rank"}, "mixture": {"experts": {**LINEAR, "odd": {"name": "vector"}}}},
            "has none",
        ),
    ],
)
def test_what_cannot_be_is_one_clear_error(changes: dict[str, Any], message: str) -> None:
    spec = {"name": "x", "insertions": {"a": {**insertion(), **changes}}}
    with pytest.raises(unipet.UnipetError, match=f"(?s){message}"):
        load_method(spec)


def test_diagnostics_compare_what_has_one_shape() -> None:
    model = adapted(method({"one": NARROW, "two": NARROW, "bent": BENT}))
    found = similarities(model)["a"]
    assert found.keys() == {"down", "up"}
    own = unipet.parameters(model)
    for path, cosine in found["down"].items():
        flat = [own[f"a/{path}/down.{number}"].detach().flatten() for number in (0, 1)]
        assert cosine == pytest.approx(float(torch.nn.functional.cosine_similarity(*flat, dim=0)))
    assert similarities(adapted(method())).get("a") is None
    Orthogonality(between="experts").term(learned_weights(model, {}))
    with pytest.raises(unipet.UnipetError, match="experts of one shape"):
        Orthogonality(between="experts").term(learned_weights(adapted(method()), {}))


def test_rows_of_a_batch_may_use_it_beside_another_method() -> None:
    model, batch = tiny_bert(), tiny_batch()
    unipet.adapt(model, method(router="learned", top_k=2), name="mixed")
    unipet.adapt(model, single(NARROW), name="plain")
    for name in ("mixed", "plain"):
        unipet.use(model, name)
        randomise(model, seed=len(name))
    own: dict[str, Tensor] = {}
    rows = ["mixed", "plain", "plain", "mixed"]
    with torch.no_grad():
        for name in ("mixed", "plain"):
            unipet.use(model, name)
            own[name] = model.eval().bert(**batch).last_hidden_state
        unipet.rows(model, rows)
        together = model.bert(**batch).last_hidden_state
    assert not torch.allclose(own["mixed"], own["plain"], atol=1e-2)
    for number, name in enumerate(rows):
        real = batch["attention_mask"][number].bool()
        assert torch.allclose(together[number][real], own[name][number][real], atol=1e-4)


def test_a_run_records_what_can_be_compared_and_is_identified_by_its_experts(tmp_path: Path) -> None:
    config = tiny_config(tmp_path, method(), budget__max_steps=3)
    record = run(config)
    assert record["status"] == "ok", record["error"]
    mixture = record["mixture"]
    assert mixture["ways"].keys() == {"mean_of_outputs", "ensemble_logits", "random", "oracle_expert"}
    assert mixture["ways"]["mean_of_outputs"]["score"] == record["score"]
    assert len({expert["loss"] for expert in mixture["experts"]}) == 3 and "barrier" not in mixture
    assert "similarity" not in mixture or not mixture["similarity"]
    assert list(record["composition"]["insertions"]["a"]["mixture"]["experts"]) == list(EXPERTS)
    assert evaluate(run_dir(config), experts=True)["reproduced"]
    turned = method(dict(reversed(EXPERTS.items())))
    other = method({**EXPERTS, "wide": {**WIDE, "size": 9}})
    ids = {run(tiny_config(tmp_path, one, budget__max_steps=1))["run_id"] for one in (turned, other, method())}
    assert len(ids) == 3, "size and order of the experts decide what a run computes"
