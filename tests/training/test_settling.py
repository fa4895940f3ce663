"""Reducers that data decide after training (greedy_soup, fisher), and the one that runs the model once for each expert."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import unipet
from tests.support.running import MIXTURE, run_dir, tiny_config
from tests.support.tiny import tiny_batch, tiny_bert
from unipet.adaptation.adapted import adaptation
from unipet.adaptation.reducing import weighing
from unipet.runs.run import evaluate, run
from unipet.training.settling import greedy_soup


def adapted(**mixture: Any) -> nn.Module:
    model = tiny_bert()
    insertion = {"function": {"name": "bottleneck", "size": 2}, "position": "ffn", "mixture": {"experts": 3, **mixture}}
    unipet.adapt(model, {"name": "x", "insertions": {"a": insertion}})
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in unipet.parameters(model).values():
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.5)
    return model


def logits(model: nn.Module) -> torch.Tensor:
    with torch.no_grad():
        out: torch.Tensor = model(**tiny_batch()).logits
    return out


def method_with(**mixture: Any) -> dict[str, Any]:
    ffn = {**MIXTURE["insertions"]["ffn"], "mixture": {"experts": 3, **mixture}}
    return {**MIXTURE, "insertions": {"ffn": ffn}, "objective": {}}


# -- ensemble of logits ----------------------------------------------------------------------------------------------


def test_ensemble_logits_is_the_mean_over_passes_of_one_expert_each() -> None:
    model = adapted(reducer="ensemble_logits")
    alone = []
    for expert in range(3):
        with weighing(model, [float(each == expert) for each in range(3)]):
            alone.append(logits(model))
    assert torch.allclose(logits(model), torch.stack(alone).mean(0), atol=1e-6)
    assert not torch.allclose(alone[0], alone[1], atol=1e-3)
    model.train()
    assert torch.isfinite(logits(model)).all()
    unipet.eject(model)
    assert torch.equal(logits(model.eval()), logits(tiny_bert()))


def test_ensemble_logits_refuses_what_would_be_of_one_expert_alone() -> None:
    model = adapted(reducer="ensemble_logits")
    with pytest.raises(unipet.UnipetError, match="Call it without labels"):
        model(**tiny_batch(), labels=torch.zeros(4, dtype=torch.long))
    with pytest.raises(unipet.UnipetError, match="makes no single function"):
        unipet.merge(model)


# -- greedy soup -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ({(0,): 1.0, (1,): 3.0, (2,): 2.0, (1, 2): 4.0, (0, 1, 2): 4.0}, [1, 2, 0]),
        ({(0,): 1.0, (1,): 3.0, (2,): 2.0, (1, 2): 2.9, (0, 1): 3.5}, [1, 0]),
        ({(0,): 5.0, (1,): 3.0, (2,): 2.0, (0, 1): 4.0, (0, 2): 4.0}, [0]),
    ],
)
def test_a_soup_takes_the_best_first_and_each_that_does_not_lower_the_score(
    values: dict[tuple[int, ...], float], expected: list[int]
) -> None:
    model = adapted(reducer="greedy_soup")

    def score() -> float:
        given = adaptation(model).items[0].bank.given
        assert given is not None and float(given.sum()) == pytest.approx(1.0)
        return values[tuple(given.nonzero().flatten().tolist())]

    assert greedy_soup(model, score) == expected


# -- after training --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("reducer", ["greedy_soup", "fisher"])
def test_until_training_is_over_the_weights_are_equal_and_do_not_train(reducer: str) -> None:
    model, plain = adapted(reducer=reducer), adapted(reducer="mean_of_weights")
    assert torch.allclose(logits(model), logits(plain), atol=1e-6)
    assert set(unipet.parameters(model)) == set(unipet.parameters(plain))
    assert all(
        p.requires_grad == ("soup" not in n and "fisher" not in n) for n, p in adaptation(model).named_parameters()
    )


@pytest.mark.parametrize("reducer", ["greedy_soup", "fisher"])
@pytest.mark.parametrize("router", ["uniform", "learned"])
def test_a_run_decides_them_and_its_adapter_carries_them(tmp_path: Path, reducer: str, router: str) -> None:
    selection = {"task__selection": "train_holdout", "task__selection_size": 8}
    config = tiny_config(
        tmp_path, method_with(reducer=reducer, router=router), optim__lr=0.05, budget__max_steps=6, **selection
    )
    record = run(config)
    assert record["status"] == "ok", record["error"]
    assert evaluate(run_dir(config))["reproduced"]
    model = tiny_bert()
    unipet.load(model, run_dir(config) / "adapter")
    decided = {n: p for n, p in adaptation(model).named_parameters() if n.endswith(".soup") or ".fisher" in n}
    if reducer == "greedy_soup":
        soup = record["mixture"]["soup"]
        assert soup and all(p.tolist() == [float(i in soup) for i in range(3)] for p in decided.values())
    else:
        assert record["mixture"]["fisher_examples"] == 40
        assert all((p > 0).all() and not torch.allclose(p[0], p[1], rtol=1e-2, atol=0.0) for p in decided.values())
    assert record["params"]["stored"] - record["params"]["trainable"] == sum(p.numel() for p in decided.values())
    said = logits(model)
    unipet.merge(model, partial=True)
    assert torch.allclose(logits(model), said, atol=1e-5)
    assert sum(p.numel() for p in unipet.parameters(model).values()) == record["params"]["merged"]


def test_fisher_weighs_each_number_by_its_information() -> None:
    model = adapted(reducer="fisher")
    bank = adaptation(model).items[0].bank
    weights = bank.home.parameter("down.fisher.weight")
    with torch.no_grad():
        weights.uniform_(0.1, 2.0)
    copies = torch.stack([params["down.weight"] for params in bank.copies()])
    expected = (weights * copies).sum(0) / weights.sum(0)
    assert torch.allclose(bank.reduced()["down.weight"], expected, atol=1e-6)


@pytest.mark.parametrize(
    ("mixture", "changes", "match"),
    [
        ({"reducer": "greedy_soup"}, {"task__selection": "none"}, "the split that is reported never chooses"),
        ({"reducer": "greedy_soups"}, {}, "Did you mean 'greedy_soup'"),
    ],
)
def test_mistakes(tmp_path: Path, mixture: dict[str, Any], changes: dict[str, Any], match: str) -> None:
    with pytest.raises(unipet.UnipetError, match=match):
        run(tiny_config(tmp_path, method_with(**mixture), **changes))
