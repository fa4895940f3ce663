"""Rows without a text or without an answer: an error that says how to leave them out, or left out and counted."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.support.files import FORMATS, parquet_of, task_for, write_both, write_file
from tests.support.running import LOW_RANK, run_id
from tests.support.tasks import config_of, refused, write_arch
from unipet.config import TaskConfig
from unipet.errors import UnipetError
from unipet.runs.run import run
from unipet.tasks import load_hidden, load_task

GAPS: list[dict[str, Any]] = [
    {"sentence": "a", "label": 1},
    {"sentence": "", "label": 1},
    {"sentence": "b", "label": -1},
    {"sentence": "c", "label": None},
    {"sentence": "  ", "label": None},
    {"sentence": "d", "label": 0},
    {"sentence": None, "label": 0},
]


@pytest.mark.parametrize("suffix", FORMATS)
def test_what_the_task_drops_is_left_out_and_counted(suffix: str, tmp_path: Path) -> None:
    task = task_for(write_both(tmp_path, suffix, GAPS), drop=["empty", "unlabelled"])
    data = load_task(task)
    assert data.train == [{"id": "train-0", "text": ["a"], "label": 1}, {"id": "train-5", "text": ["d"], "label": 0}]
    counts = {"empty": 3, "unlabelled": 2}
    assert data.record()["dropped"] == {"train": counts, "evaluation": counts}
    assert data.record()["train"] == data.record()["train_available"] == 2


@pytest.mark.parametrize("suffix", FORMATS)
def test_the_error_names_the_override_that_works(suffix: str, tmp_path: Path) -> None:
    task = task_for(write_both(tmp_path, suffix, GAPS))
    refused(task, f"train.{suffix}", "field 'sentence'", "empty text", "task.drop=[empty]")
    refused(replace(task, drop=["empty"]), "field 'label'", "hidden", "task.drop=[empty,unlabelled]")
    refused(replace(task, drop=["unlabelled"]), "field 'sentence'", "task.drop=[unlabelled,empty]")
    refused(replace(task, drop=["emty"]), "task.drop", "empty, unlabelled", "Did you mean 'empty'")


def test_nothing_is_dropped_and_nothing_said_by_default(tmp_path: Path) -> None:
    write_both(tmp_path, "jsonl", [GAPS[0]])
    assert load_task(task_for(tmp_path)).record()["dropped"] == {}
    asked = load_task(task_for(tmp_path, drop=["empty"]))
    assert asked.record()["dropped"] == {"train": {"empty": 0}, "evaluation": {"empty": 0}}
    assert asked.fingerprint == load_task(task_for(tmp_path)).fingerprint, "the same rows"


def test_dropping_changes_the_data_and_the_run(tmp_path: Path) -> None:
    write_both(tmp_path / "d", "jsonl", GAPS[:2])
    write_both(tmp_path / "e", "jsonl", [GAPS[0], {"sentence": "z", "label": 1}])
    dropped, whole = (load_task(task_for(tmp_path / name, drop=["empty"])) for name in "de")
    assert dropped.fingerprint != whole.fingerprint
    config = config_of("classification", tmp_path, write_arch(tmp_path / "m", "bert"), LOW_RANK)
    assert run_id(config) != run_id(replace(config, task=replace(config.task, drop=["empty"])))


def test_a_split_of_which_everything_is_dropped(tmp_path: Path) -> None:
    rows = [{"sentence": "a", "Label": 1}, {"sentence": "", "Label": 1}]
    task = task_for(write_both(tmp_path, "jsonl", rows), drop=["empty", "unlabelled"])
    refused(task, "train.jsonl", "all 2 rows", "empty 1, unlabelled 1", "Columns found: sentence, Label", "task.label")


def test_a_column_s_name_of_any_length_is_cut_in_the_error(tmp_path: Path) -> None:
    task = replace(task_for(write_both(tmp_path, "jsonl", [{"sentence": "a", "label": 1}])), text=["x" * 3000])
    with pytest.raises(UnipetError, match="no column 'xxx") as told:
        load_task(task)
    assert len(str(told.value)) < 1000


def test_a_field_that_only_some_lines_have(tmp_path: Path) -> None:
    rows = [{"sentence": "a"}, {"sentence": "b", "label": 1}, {"sentence": "c"}, {"label": 0}]
    task = task_for(write_both(tmp_path, "jsonl", rows))
    refused(task, "line 1", "no column 'label'")
    (tmp_path / "train.jsonl").write_text('{"sentence": "b", "label": 1}\n{"sentence": "c"}\n')
    refused(task, "line 2", "no column 'label'", "task.drop=[unlabelled]")
    data = load_task(replace(task, drop=["empty", "unlabelled"]))
    assert [row["id"] for row in data.train] == ["train-0"]
    assert [row["id"] for row in data.evaluation] == ["validation-1"]
    assert data.dropped["evaluation"] == {"empty": 1, "unlabelled": 2}


def test_gaps_of_numbers_texts_and_tags(tmp_path: Path) -> None:
    import pyarrow as pa

    both = ["empty", "unlabelled"]
    scores = pa.array([2.5, None, float("nan"), -1.0], from_pandas=False)
    folder = parquet_of(tmp_path / "n", {"sentence": ["a", "b", "c", "d"], "label": scores})
    numbers = task_for(folder, kind="regression", labels=[], metrics=["pearson"])
    refused(numbers, "row 1, field 'label'", "finite number", "task.drop=[unlabelled]")
    data = load_task(replace(numbers, drop=both))
    assert [row["label"] for row in data.train] == [2.5, -1.0], "-1 is a number like others"

    tags: list[dict[str, Any]] = [
        {"tokens": ["a", "b"], "tags": ["O", "B"]},
        {"tokens": [], "tags": []},
        {"tokens": ["a", " "], "tags": ["O", "O"]},
        {"tokens": ["a", "b"], "tags": None},
        {"tokens": ["a", "b"], "tags": ["O", None]},
    ]
    base = {"kind": "token_classification", "labels": ["O", "B"], "label": "tags", "text": ["tokens"]}
    words = task_for(write_both(tmp_path / "t", "jsonl", tags), **base)
    refused(words, "line 2, field 'tokens'", "a list of words", "task.drop=[empty]")
    refused(replace(words, drop=["empty"]), "line 4, field 'tags'", "task.drop=[empty,unlabelled]")
    data = load_task(replace(words, drop=both))
    assert [row["id"] for row in data.train] == ["train-0"] and data.dropped["train"] == {"empty": 2, "unlabelled": 2}

    texts = TaskConfig(name="t", kind="seq2seq", text=["sentence"], metrics=["bleu"], selection="none")
    texts.data_dir = str(tmp_path / "s")
    write_file(tmp_path / "s", "train", "jsonl", [{"sentence": "a", "target": "b"}, {"sentence": "a", "target": " "}])
    rows = [{"sentence": "a", "references": given} for given in (["b"], [], ["b", ""], None)]
    write_file(tmp_path / "s", "validation", "jsonl", rows)
    refused(texts, "train.jsonl, line 2, field 'target'", "empty text", "task.drop=[unlabelled]")
    assert load_task(replace(texts, drop=both)).dropped == {
        "train": {"empty": 0, "unlabelled": 1},
        "evaluation": {"empty": 0, "unlabelled": 3},
    }


def test_an_empty_row_of_a_hub_set(monkeypatch: pytest.MonkeyPatch) -> None:
    import datasets

    names = datasets.ClassLabel(names=["yes", "no"])
    features = datasets.Features({"sentence": datasets.Value("string"), "label": names})
    rows = {"sentence": ["a", "", "c", None], "label": [0, 1, -1, 1]}
    table = datasets.Dataset.from_dict(rows, features=features)
    splits = datasets.DatasetDict({"train": table, "validation": table})
    monkeypatch.setattr(datasets, "load_dataset", lambda *_, **__: splits)
    task = task_for(Path(), data_dir=None, hub="someone/some")
    refused(task, "someone/some, split 'train', row 1, field 'sentence'", "task.drop=[empty]")
    data = load_task(replace(task, drop=["empty", "unlabelled"]))
    assert [row["label"] for row in data.train] == [1]
    assert data.dropped["train"] == {"empty": 2, "unlabelled": 1}


def test_a_hidden_split_loses_no_row(tmp_path: Path) -> None:
    write_both(tmp_path, "jsonl", [GAPS[0]])
    write_file(tmp_path, "hidden", "jsonl", [{"sentence": "a"}, {"sentence": "", "label": -1}])
    with pytest.raises(UnipetError, match=r"hidden\.jsonl, line 2.*needs an answer for every row.*fill the row"):
        load_hidden(task_for(tmp_path, drop=["empty", "unlabelled"]), "hidden")


def test_a_run_records_what_was_dropped(tmp_path: Path) -> None:
    config = config_of("classification", tmp_path, write_arch(tmp_path / "m", "bert"), LOW_RANK, drop=["unlabelled"])
    path = tmp_path / "data_classification" / "train.jsonl"
    path.write_text(path.read_text() + '{"sentence": "w1", "label": -1}\n')
    record = run(config)
    assert record["status"] == "ok" and record["data"]["train"] == 24
    assert record["data"]["dropped"] == {"train": {"unlabelled": 1}, "evaluation": {"unlabelled": 0}}
