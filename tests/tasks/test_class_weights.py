"""Class weights: from the training rows alone, torch's weighted mean whatever the micro-batch, refused without classes."""

from __future__ import annotations

import json
import random
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

import unipet
from tests.support.running import LOW_RANK, MIXTURE, run_dir, tiny_config
from tests.support.tasks import TASKS, config_of, task_of, write_arch
from tests.support.tiny import tiny_batch, tiny_bert
from unipet.adaptation.adapted import adaptation
from unipet.calculus.library import load_method
from unipet.calculus.objectives import task_loss
from unipet.compose.parse_run_config import run_config
from unipet.config import RunConfig, TaskConfig, plain_values
from unipet.errors import UnipetError
from unipet.runs.run import prepare, run
from unipet.tasks import check_task, load_task
from unipet.tasks.readout import tokens
from unipet.training.ranks import Ranks
from unipet.training.step import Loss

WEIGHTS = (0.3, 2.0)


def gradients(
    method: dict[str, Any], labels: Tensor, micro_batch: int, count: int = 1
) -> tuple[float, dict[str, float], dict[str, Tensor]]:
    """Loss, terms and gradients of one step, as the sum of `count` processes."""
    torch.manual_seed(0)
    model = tiny_bert().double()
    unipet.adapt(model, method)
    for tensor in unipet.parameters(model, head=True).values():
        tensor.data.add_(0.3 * torch.randn_like(tensor))
    for module in model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
    model.train()
    batch = {**tiny_batch(rows=len(labels)), "labels": labels}
    loss = Loss(load_method(method).objective, class_weights=WEIGHTS)
    adaptation(model).draw(0, 0)  # the step's routes
    total, terms = 0.0, dict[str, float]()
    for rank in range(count):
        noted: dict[str, Tensor] = {}
        rows = Ranks(rank, count).part(len(labels))
        total += float(loss.gradients(model, batch, micro_batch, rows=rows, note=noted.update))
        terms = {name: terms.get(name, 0.0) + float(value) for name, value in noted.items()}
    own = {name: each.grad for name, each in unipet.parameters(model, head=True).items() if each.grad is not None}
    return total, terms, own


AGREEING = {**MIXTURE, "objective": {"consistency": {"weight": 0.7}}}


@pytest.mark.parametrize("method", [LOW_RANK, AGREEING], ids=["plain", "consistency"])
@pytest.mark.parametrize(("micro_batch", "count"), [(1, 1), (2, 1), (3, 1), (4, 2), (1, 3), (5, 2)])
def test_micro_batches_and_devices_change_nothing(method: dict[str, Any], micro_batch: int, count: int) -> None:
    """A mean of the micro-batches' own weighted means would be another loss: their weights differ."""
    labels = torch.tensor([0, 0, 0, 1, 0, 1, 1])
    loss, terms, own = gradients(method, labels, len(labels))
    again, parts, others = gradients(method, labels, micro_batch, count)
    assert again == pytest.approx(loss, abs=1e-6) and parts == pytest.approx(terms, abs=1e-6)
    assert own.keys() == others.keys()
    for name, gradient in own.items():
        torch.testing.assert_close(others[name], gradient, rtol=1e-5, atol=1e-7)


def test_the_loss_is_torchs() -> None:
    torch.manual_seed(1)
    logits, labels = torch.randn(7, 3), torch.tensor([0, 0, 2, 1, 0, 2, 2])
    weights = (0.5, 3.0, 1.5)
    for smoothing in (0.0, 0.2):
        theirs = F.cross_entropy(logits, labels, torch.tensor(weights), label_smoothing=smoothing)
        assert torch.equal(task_loss(logits, labels, False, smoothing, weights), theirs)
    by_hand = -sum(weights[y] * logits.log_softmax(-1)[i, y] for i, y in enumerate(labels.tolist()))
    total = sum(weights[y] for y in labels.tolist())
    assert float(task_loss(logits, labels, False, 0.0, weights)) == pytest.approx(float(by_hand) / total, abs=1e-6)
    several = torch.tensor([[1.0, 0.0, 0.0], [0.0, 1.0, 1.0]])
    theirs = F.binary_cross_entropy_with_logits(logits[:2], several, pos_weight=torch.tensor(weights))
    assert torch.equal(task_loss(logits[:2], several, False, 0.0, weights), theirs)


def test_words_are_weighed_by_their_own_labels() -> None:
    """Micro-batches of sentences with unequal numbers of labelled words."""
    torch.manual_seed(2)
    labels = torch.tensor([[0, 1, -100], [-100, -100, 1], [0, 0, 0]])
    logits = torch.randn(3, 3, 2, dtype=torch.float64)
    loss = Loss(load_method(LOW_RANK).objective, read=tokens, class_weights=WEIGHTS)
    whole = F.cross_entropy(logits.view(-1, 2), labels.view(-1), torch.tensor(WEIGHTS, dtype=torch.float64))
    total = 0.0
    for at, (piece, share) in enumerate(loss.shares({"labels": labels}, 1)):
        read, answers = tokens(logits[at : at + 1], {}, piece["labels"])
        total += share.task * float(task_loss(read, answers, False, 0.0, WEIGHTS))
    assert total == pytest.approx(float(whole), abs=1e-6)


def uneven(folder: Path, labels: list[int]) -> Path:
    """A task whose training rows have these labels, and whose evaluation rows have all the others' weights."""
    folder.mkdir(parents=True)
    rng = random.Random(0)
    for split, own in (("train", labels), ("validation", [1] * 9 + [0])):
        rows = [{"sentence": f"w{10 * y + rng.randrange(10)} w{rng.randrange(50)}", "label": y} for y in own]
        (folder / f"{split}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder


def of(folder: Path, **changes: Any) -> TaskConfig:
    values = {"name": "t", "text": ["sentence"], "labels": ["no", "yes"], "metrics": ["accuracy"], "selection": "none"}
    return TaskConfig(**{**values, "data_dir": str(folder), "class_weights": "balanced", **changes})


def test_balanced_weights_are_of_the_training_rows_that_are_left(tmp_path: Path) -> None:
    folder = uneven(tmp_path / "d", [0] * 9 + [1] * 3)
    assert load_task(of(folder)).class_weights == pytest.approx([12 / 18, 12 / 6])
    held = load_task(of(folder, selection="train_holdout", selection_size=2))
    counts = [sum(row["label"] == y for row in held.train) for y in (0, 1)]
    assert held.class_weights == pytest.approx([sum(counts) / (2 * each) for each in counts]) and sum(counts) == 10
    assert load_task(of(folder, class_weights=None)).class_weights == []
    given = load_task(of(folder, class_weights={"yes": 3, "no": 0.5}))
    assert given.class_weights == [0.5, 3.0], "in the order of task.labels"
    assert given.record()["class_weights"] == {"no": 0.5, "yes": 3.0}


def test_balanced_weights_of_words_and_of_sets(tmp_path: Path) -> None:
    words = load_task(task_of("token_classification", tmp_path / "words", class_weights="balanced"))
    counts = [sum(row["label"].count(tag) for row in words.train) for tag in (0, 1)]
    assert words.class_weights == pytest.approx([sum(counts) / (2 * each) for each in counts])
    sets = load_task(task_of("multi_label", tmp_path / "sets", class_weights="balanced"))
    having = [sum(y in row["label"] for row in sets.train) for y in (0, 1)]
    assert sets.class_weights == pytest.approx([(24 - each) / each for each in having])


def test_a_label_without_rows_has_no_balanced_weight(tmp_path: Path) -> None:
    folder = uneven(tmp_path / "d", [0] * 12)
    with pytest.raises(UnipetError, match="no training row has the label 'yes'"):
        load_task(of(folder))
    assert load_task(of(folder, class_weights={"no": 1, "yes": 1})).class_weights == [1, 1]


@pytest.mark.parametrize(
    ("kind", "said"),
    [
        ("seq2seq", "tokens of a text"),
        ("causal_generation", "tokens of a text"),
        ("multiple_choice", "places among the choices"),
        ("regression", "numbers, which have no classes"),
    ],
)
def test_without_classes_they_are_refused(kind: str, said: str) -> None:
    keys = TASKS.get(kind, {"text": ["s"], "metrics": ["pearson"]})
    task = TaskConfig(name="t", kind=kind, data_dir="d", **keys)
    check_task(task)
    with pytest.raises(UnipetError, match=r"task\.class_weights: balanced given") as error:
        check_task(replace(task, class_weights="balanced"))
    assert said in str(error.value) and "task.class_weights=null" in str(error.value)


@pytest.mark.parametrize(
    ("value", "said"),
    [
        ({"no": 1.0}, "no weight for 'yes'"),
        ({"no": 1, "yess": 2}, "Did you mean 'yes'"),
        ({"no": 0, "yes": 2}, "greater than 0"),
        ({"no": -1, "yes": 2}, "greater than 0"),
        ({"no": float("nan"), "yes": 2}, "greater than 0"),
        ({"no": "much", "yes": 2}, "greater than 0"),
        ({}, "no weight for 'no', 'yes'"),
        ("balance", "balanced, or a mapping"),
        (2.0, "balanced, or a mapping"),
        ([1, 2], "balanced, or a mapping"),
    ],
)
def test_a_weight_for_each_label(value: Any, said: str, tmp_path: Path) -> None:
    with pytest.raises(UnipetError, match=r"task\.class_weights") as error:
        check_task(of(tmp_path, class_weights=value))
    assert said in str(error.value)


def test_whole_numbers_are_the_same_weights(tmp_path: Path) -> None:
    config = plain_values(tiny_config(tmp_path, LOW_RANK))
    made = [
        run_config({**config, "task": {**config["task"], "class_weights": {"no": one, "yes": 2}}}) for one in (1, 1.0)
    ]
    assert made[0].task.class_weights == {"no": 1.0, "yes": 2.0}
    assert prepare(made[0]).run_id == prepare(made[1]).run_id != prepare(tiny_config(tmp_path, LOW_RANK)).run_id


def test_a_run_is_trained_with_them_and_says_so(tmp_path: Path) -> None:
    def losses(**changes: Any) -> tuple[list[float], dict[str, Any]]:
        config: RunConfig = tiny_config(tmp_path, LOW_RANK, **changes)
        record = run(config)
        assert record["status"] == "ok", record["error"]
        lines = (run_dir(config) / "metrics.jsonl").read_text().splitlines()
        return [json.loads(line)["loss"] for line in lines], record

    plain, record = losses()
    assert "class_weights" not in record["data"]
    same, record = losses(task__class_weights="balanced")  # as many of each label
    assert record["data"]["class_weights"] == {"no": 1.0, "yes": 1.0} and same == pytest.approx(plain, rel=1e-5)
    other, _ = losses(task__class_weights={"no": 9.0, "yes": 1.0})
    assert other != pytest.approx(plain, rel=1e-3)


def test_prompts_have_classes(tmp_path: Path) -> None:
    model = write_arch(tmp_path / "model", "bert", "BertForMaskedLM")
    config = config_of("masked_prompt", tmp_path, model, LOW_RANK, class_weights={"no": 1.0, "yes": 4.0})
    assert run(config)["status"] == "ok"
