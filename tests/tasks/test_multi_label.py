"""Multi-label classification: sets of labels from lists and from columns, their loss, their scores, and paired tests of them."""

from __future__ import annotations

import csv
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from tests.support.running import LOW_RANK, MIXTURE, run_dir
from tests.support.tasks import config_of, refused, task_of, tokenizer, write_arch
from tests.tasks.test_load import read
from unipet.calculus.objectives import Answers, Consistency, Distillation, task_loss
from unipet.config import TaskConfig
from unipet.errors import UnipetError
from unipet.report.resampling import answers
from unipet.runs.flags import raised
from unipet.runs.run import evaluate, run
from unipet.tasks import check_task, collate, encode, load_task, score_predictions
from unipet.tasks.encode import _ENCODED
from unipet.tasks.label_sets import many_hot
from unipet.tasks.summary import summary, text

LABELS = ["red", "green", "blue"]
SETS = {"red;blue": [0, 2], "": [], "green": [1]}


def of(folder: Path, **changes: Any) -> TaskConfig:
    values = {"name": "t", "kind": "multi_label", "text": ["s"], "labels": LABELS, "metrics": ["f1_micro"]}
    return TaskConfig(**{**values, "selection": "none", "data_dir": str(folder), **changes})


def folder_of(tmp_path: Path, rows: list[dict[str, Any]]) -> Path:
    """A task with these rows in both of its splits."""
    made = tmp_path / "data"
    made.mkdir(parents=True, exist_ok=True)
    for split in ("train", "validation"):
        (made / f"{split}.jsonl").write_text("".join(json.dumps({"s": "w1", **row}) + "\n" for row in rows))
    return made


@pytest.mark.parametrize(
    "label", [["blue", "red"], [2, 0], [0, 2]], ids=["names in any order", "indices", "indices in order"]
)
def test_a_list_of_names_or_indices_is_a_set(tmp_path: Path, label: list[Any]) -> None:
    folder = folder_of(tmp_path, [{"label": label}, {"label": []}])
    data = load_task(of(folder))
    assert [row["label"] for row in data.train] == [[0, 2], []] and data.several
    assert data.record()["train_labels"] == {"red": 1, "green": 0, "blue": 1}


def test_one_column_for_each_label(tmp_path: Path) -> None:
    cells = [{"red": 1, "green": 0, "blue": True}, {"red": "no", "green": "FALSE", "blue": 0.0}]
    listed = load_task(of(folder_of(tmp_path / "lists", [{"label": ["red", "blue"]}, {"label": []}])))
    columns = load_task(of(folder_of(tmp_path, cells), label_columns=True))
    assert [row["label"] for row in columns.train] == [row["label"] for row in listed.train] == [[0, 2], []]
    assert columns.fingerprint == listed.fingerprint, "the same examples are the same task"


def test_text_formats_hold_lists_as_json_and_columns_as_they_are(tmp_path: Path) -> None:
    for name, header, rows in (
        ("lists", ["s", "label"], [["w1", '["red", "blue"]'], ["w2", "[]"]]),
        ("columns", ["s", *LABELS], [["w1", "1", "0", "1"], ["w2", "0", "0", "0"]]),
    ):
        (tmp_path / name).mkdir()
        for split in ("train", "validation"):
            with (tmp_path / name / f"{split}.csv").open("w", newline="") as file:
                csv.writer(file).writerows([header, *rows])
        data = load_task(of(tmp_path / name, label_columns=name == "columns"))
        assert [row["label"] for row in data.train] == [[0, 2], []]


@pytest.mark.parametrize(
    ("row", "changes", "said"),
    [
        ({"label": "red"}, {}, "a list of labels is needed, for example ['red']"),
        ({"label": 1}, {}, "task.label_columns=true"),
        ({"label": ["red", "rde"]}, {}, "label 2: unknown label 'rde'"),
        ({"label": ["red", "red"]}, {}, "has a label twice"),
        ({"label": ["red", 2]}, {}, "use names or indices, not both"),
        ({"label": [7]}, {}, "outside the range"),
        ({"label": None}, {}, "drop=[unlabelled]"),
        ({"red": 1, "green": 0}, {"label_columns": True}, "no column 'blue' (task.labels)"),
        ({"red": 2, "green": 0, "blue": 1}, {"label_columns": True}, "field 'red': 2 given; allowed: 0 or 1"),
        ({"red": None, "green": 0, "blue": 1}, {"label_columns": True}, "0 or 1 is needed"),
    ],
)
def test_what_is_no_set_is_one_error_with_its_place(
    tmp_path: Path, row: dict[str, Any], changes: dict[str, Any], said: str
) -> None:
    refused(of(folder_of(tmp_path, [row]), **changes), "train.jsonl, line 1", said)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"labels": ["one"]}, "at least two label names"),
        ({"metrics": ["accuracy"]}, "f1_macro, f1_micro, subset_accuracy"),
        ({"kind": "classification", "metrics": ["accuracy"], "label_columns": True}, "Use task.kind=multi_label"),
        ({"label_columns": True, "text": ["red"]}, "'red' is a label and a column of task.text"),
        ({"shots": 4}, "Use task.max_train"),
        ({"kind": "classification", "metrics": ["f1_micro"]}, "f1_macro"),
    ],
)
def test_keys_that_do_not_go_together(tmp_path: Path, changes: dict[str, Any], said: str) -> None:
    with pytest.raises(UnipetError) as error:
        check_task(of(tmp_path, **changes))
    assert said in str(error.value)


def test_rows_without_an_answer_are_left_out_and_counted(tmp_path: Path) -> None:
    data = load_task(of(folder_of(tmp_path, [{"label": [0]}, {"label": None}]), drop=["unlabelled"]))
    assert len(data.train) == 1 and data.dropped["train"] == {"unlabelled": 1}


def test_batches_hold_one_number_for_each_label(tmp_path: Path) -> None:
    task = task_of("multi_label", tmp_path / "d")
    data = load_task(task)
    first = encode(data, tokenizer(), task, tmp_path / "cache").train
    _ENCODED.clear()  # the cache on disk answers
    again = encode(data, tokenizer(), task, tmp_path / "cache").train
    for rows in (first, again):
        labels = collate(tokenizer())([rows[i] for i in range(4)])["labels"]
        assert labels.dtype is torch.float32 and labels.shape == (4, 2)
        assert labels.tolist() == many_hot([row["label"] for row in data.train[:4]], 2).tolist()
    assert "label: ['calm']" in text(summary(task, data, encode(data, tokenizer(), task), tokenizer()))


def test_scores_against_sklearns_definitions() -> None:
    """By hand: micro counts pairs, macro is a mean over labels that occur, subset accuracy over examples."""
    logits = np.array([[2.0, -1.0, 0.5, -3], [0.1, 0.2, -0.3, -3], [-1.0, -2.0, -3.0, -3]])
    truth = many_hot([[0, 2], [0], [1]], 4)
    task = of(Path(), labels=[*LABELS, "never"], metrics=["f1_micro", "f1_macro", "subset_accuracy"])
    scores = score_predictions(task, logits, truth)
    assert scores.predictions == [[0, 2], [0, 1], []] and scores.per_example == [1.0, 0.0, 0.0]
    assert scores.metrics["subset_accuracy"] == pytest.approx(1 / 3)
    assert scores.metrics["f1_micro"] == pytest.approx(2 * 3 / (4 + 4))
    assert scores.metrics["f1_macro"] == pytest.approx((1.0 + 0.0 + 1.0) / 3)
    nothing = score_predictions(task, -np.ones((2, 4)), np.zeros((2, 4)))
    assert nothing.metrics == {"f1_micro": 0.0, "f1_macro": 0.0, "subset_accuracy": 1.0}
    for wrong in (np.zeros(3), np.zeros((3, 5))):
        with pytest.raises(UnipetError, match="cannot score"):
            score_predictions(task, logits, wrong)


def test_losses_and_divergences_are_those_of_yes_and_no() -> None:
    torch.manual_seed(0)
    logits, other = torch.randn(5, 3), torch.randn(5, 3)
    labels = (torch.rand(5, 3) < 0.5).float()
    assert torch.equal(task_loss(logits, labels, False), F.binary_cross_entropy_with_logits(logits, labels))
    smooth = F.binary_cross_entropy_with_logits(logits, labels * 0.8 + 0.1)
    torch.testing.assert_close(task_loss(logits, labels, False, 0.2), smooth)
    p, q = logits.sigmoid(), other.sigmoid()
    one, back = ((a * (a / b).log() + (1 - a) * ((1 - a) / (1 - b)).log()).mean() for a, b in ((p, q), (q, p)))
    seen = Answers([logits, other], several=True)
    torch.testing.assert_close(Consistency().term(seen), 0.5 * (one + back))
    taught = Answers([logits], teacher=other, several=True)
    torch.testing.assert_close(Distillation().term(taught), back)
    assert not torch.allclose(Consistency().term(seen), Consistency().term(replace(seen, several=False)))


SOUP = {
    **MIXTURE,
    "insertions": {
        "ffn": {**MIXTURE["insertions"]["ffn"], "mixture": {"experts": 2, "reducer": "fisher"}},
    },
}


@pytest.mark.parametrize("method", [MIXTURE, SOUP], ids=["consistency", "fisher"])
def test_a_mixture_is_evaluated_in_every_way_and_certified(tmp_path: Path, method: dict[str, Any]) -> None:
    model = write_arch(tmp_path / "model", "bert")
    config = config_of("multi_label", tmp_path, model, method, optim_epochs=3)
    record = run(config)
    assert record["status"] == "ok", record["error"]
    ways = record["mixture"]["ways"]
    assert {"mean_of_outputs", "ensemble_logits", "random", "oracle_expert"} <= ways.keys()
    assert all(0.0 <= way["score"] <= 1.0 and way["loss"] > 0 for way in ways.values())
    failed = {name: check for name, check in record["certificate"]["checks"].items() if check["status"] == "failed"}
    assert set(failed) <= {"moved"}, failed  # an expert may have got no route in so few steps


def test_predictions_give_the_score_again_and_are_compared_by_pairs(tmp_path: Path) -> None:
    model = write_arch(tmp_path / "model", "bert")
    for metric in ("f1_micro", "f1_macro", "subset_accuracy"):
        config = config_of("multi_label", tmp_path, model, LOW_RANK, metrics=[metric], optim_epochs=4)
        record = run(config)
        assert record["status"] == "ok", record["error"]
        usable = answers(run_dir(config), metric, record["score"], config.task.labels)
        assert not isinstance(usable, str), usable
        assert float(usable.rescore(np.ones((1, 10)))[0]) == pytest.approx(record["score"], abs=1e-9)
        lines = [json.loads(line) for line in (run_dir(config) / "predictions.jsonl").read_text().splitlines()]
        assert all(
            len(line["logits"]) == 2 and line["score"] == (line["prediction"] == line["label"]) for line in lines
        )
        assert all(line["prediction"] == [i for i, z in enumerate(line["logits"]) if z > 0] for line in lines)
        assert evaluate(run_dir(config))["reproduced"]


def test_one_set_for_every_example_is_flagged() -> None:
    rows = [{"prediction": [0], "label": [i % 2] if i % 3 else [], "logits": [1.0, -1.0]} for i in range(9)]
    names = {flag.name: flag.text for flag in raised(rows, False, [])}
    assert "all 9 examples got the same answer" in names["one_answer"]


def test_the_shipped_synthetic_task(tmp_path: Path) -> None:
    """What is praised in one twin is blamed in the other, which has the same words."""
    data = load_task(read("synthetic_praises", generated_train=400, generated_evaluation=40))
    assert data.synthetic and data.labels == ["food", "staff", "room", "price"]
    by_words: dict[tuple[str, ...], list[set[int]]] = {}
    for row in data.train + data.selection:
        by_words.setdefault(tuple(sorted(row["text"][0].split())), []).append(set(row["label"]))
    twins = [sets for sets in by_words.values() if len(sets) == 2]
    assert len(twins) > 100 and all(one.isdisjoint(other) for one, other in twins)
    sizes = {len(row["label"]) for row in data.train}
    assert sizes == {0, 1, 2, 3}
