"""What a run records of its experts: how they compare, how training used them, how alike they are."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

import unipet
from tests.support.running import LOW_RANK, MIXTURE, tiny_config
from tests.support.tiny import tiny_batch, tiny_bert
from unipet.adaptation.adapted import adaptation
from unipet.adaptation.reducing import reduced_by, weighing
from unipet.runs.run import run
from unipet.training import expert_comparison
from unipet.training.expert_comparison import similarities
from unipet.training.expert_use import ExpertUse


def record_of(root: Path, mixture: dict[str, Any], **changes: Any) -> dict[str, Any]:
    ffn = {**MIXTURE["insertions"]["ffn"], "mixture": {"experts": 3, **mixture}}
    method = {**MIXTURE, "insertions": {"ffn": ffn}, "objective": {}}
    return run(tiny_config(root, method, budget__max_steps=4, **changes))


def test_every_way_is_compared_and_the_merged_one_is_the_score(tmp_path: Path) -> None:
    record = record_of(tmp_path, {}, task__selection="train_holdout", task__selection_size=8)
    assert record["status"] == "ok", record["error"]
    found = record["mixture"]
    assert list(found["ways"]) == ["merged", "mean_of_outputs", "ensemble_logits", "random", "best_expert"]
    assert found["ways"]["merged"]["score"] == record["score"] and found["examples"] == 20
    assert found["ways"]["best_expert"] == found["experts"][found["best"]] and found["best_by"] == "selection"
    assert len(found["experts"]) == 3 and len({expert["loss"] for expert in found["experts"]}) == 3
    line = found["line"]
    assert [line[0], line[-1]] == [expert["loss"] for expert in found["experts"][:2]]
    above = [line[i] - (line[0] + (line[-1] - line[0]) * i / 4) for i in (1, 2, 3)]
    assert found["barrier"] == pytest.approx(max(0.0, *above), abs=1e-9)
    losses = [expert["loss"] for expert in found["experts"]]
    assert found["ways"]["ensemble_logits"]["loss"] <= sum(losses) / 3 + 1e-6, "the loss is convex in the logits"
    assert found["use_steps"] == [1, 2, 3, 4]
    for shares in found["use"]["ffn"]:
        assert sum(shares) == pytest.approx(1)
    assert "routed" not in found["ways"] and found["not_compared"] is None and found["collapsed"] == {}


def test_without_a_mixture_there_is_nothing_and_a_large_set_waits_to_be_asked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert "mixture" not in run(tiny_config(tmp_path, LOW_RANK, budget__max_steps=2))
    monkeypatch.setattr(expert_comparison, "AUTOMATIC", 19)
    found = record_of(tmp_path, {})["mixture"]
    assert "20 evaluation examples are many" in found["not_compared"] and "ways" not in found
    assert found["use"] and found["similarity"]


def test_a_trial_is_there_for_its_score_and_compares_nothing(tmp_path: Path) -> None:
    found = record_of(tmp_path, {}, trial__role="trial")["mixture"]
    assert "a trial is there for its score" in found["not_compared"] and "ways" not in found
    assert found["use"] and found["similarity"]


def test_a_router_that_looks_at_the_input_is_compared_and_its_collapse_is_a_flag(tmp_path: Path) -> None:
    record = record_of(tmp_path, {"router": "learned"})
    found = record["mixture"]
    assert found["ways"]["routed"]["score"] == record["score"]
    # Without a selection split, the best expert is chosen on the scored examples: its name says that it is an oracle.
    assert found["best_by"] == "evaluation" and "best_expert" not in found["ways"]
    assert found["ways"]["oracle_expert"] == found["experts"][found["best"]]
    assert all(each["score"] <= found["ways"]["oracle_expert"]["score"] for each in found["experts"])
    assert bool(found["collapsed"]) == any(flag["name"] == "router_collapsed" for flag in record["flags"])


@pytest.mark.parametrize("collapsed", [False, True])
def test_a_router_has_collapsed_where_it_sends_all_tokens_to_one_expert(collapsed: bool) -> None:
    model = tiny_bert()
    insertion = {"function": "low_rank", "position": "attn.q", "mixture": {"experts": 3, "router": "learned"}}
    unipet.adapt(model, {"name": "x", "insertions": {"a": insertion}})
    with torch.no_grad():
        for item in adaptation(model).items:
            item.bank.home.parameter("router.weight").normal_(
                0, 0.0 if collapsed else 1.0
            )  # all equal: the first one wins
    use = ExpertUse(model)
    adaptation(model).draw(0, 0)
    model.train()(**tiny_batch())
    use.on_step_end(None, SimpleNamespace(global_step=1, max_steps=1), None)
    report = use.report()
    assert bool(report["collapsed"]) is collapsed
    resumed = ExpertUse(model)
    resumed.resume(use.state())
    assert resumed.report() == report


def test_weighing_one_expert_is_that_expert_and_nothing_stays_changed() -> None:
    model, batch = tiny_bert(), tiny_batch()
    insertion = {"function": "low_rank", "position": "attn.q", "mixture": {"experts": 3}}
    unipet.adapt(model, {"name": "x", "insertions": {"a": insertion}})
    with torch.no_grad():
        for parameter in unipet.parameters(model).values():
            parameter.normal_(0, 0.5)
        before = model(**batch).logits
        with weighing(model, [0.0, 1.0, 0.0]):
            alone = model(**batch).logits
        for item in adaptation(model).items:
            item.bank.given = torch.tensor([0.0, 1.0, 0.0])
            expected = item.bank.routed(dict.fromkeys(item.bank.mixed_slots(), 1))
            assert all(torch.allclose(tensor, expected[name]) for name, tensor in item.bank.reduced().items())
            item.bank.given = None
        assert not torch.allclose(alone, before)
        with reduced_by(model, "random"):
            assert any(not torch.equal(model(**batch).logits, before) for _ in range(3))
        assert torch.equal(model(**batch).logits, before)


def test_similarity_is_the_mean_cosine_of_pairs() -> None:
    model = tiny_bert()
    insertion = {"function": "low_rank", "position": "attn.q", "mixture": {"experts": 3, "share": ["up"]}}
    unipet.adapt(model, {"name": "x", "insertions": {"a": insertion}})
    found = similarities(model)
    assert list(found) == ["a"] and list(found["a"]) == ["down"]
    site = "bert.encoder.layer.0.attention.self.query"
    copies = [unipet.parameters(model)[f"a/{site}/down.{i}"].detach().numpy().ravel() for i in range(3)]
    cosines = [
        copies[i] @ copies[j] / np.linalg.norm(copies[i]) / np.linalg.norm(copies[j])
        for i, j in ((0, 1), (0, 2), (1, 2))
    ]
    assert found["a"]["down"][site] == pytest.approx(float(np.mean(cosines)), abs=1e-6)
