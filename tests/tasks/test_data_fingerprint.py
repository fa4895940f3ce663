"""The data's fingerprint: every value of every row of every split counts, and nothing that is not data."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.support.files import FORMATS, task_for, write_both, write_file
from tests.support.tasks import task_of
from unipet.tasks import load_task

Content = dict[str, list[dict[str, Any]]]


def write_splits(folder: Path, content: Content) -> Path:
    for split, rows in content.items():
        write_file(folder, split, "jsonl", rows)
    return folder


def content_of(folder: Path) -> Content:
    return {path.stem: [json.loads(line) for line in path.read_text().splitlines()] for path in folder.glob("*.jsonl")}


def text_of_last(split: str, column: str) -> Callable[[Content], None]:
    def change(content: Content) -> None:
        value = content[split][-1][column]
        content[split][-1][column] = [*value[:-1], "w59"] if isinstance(value, list) else value + " w59"

    return change


def swap_rows(content: Content) -> None:
    content["train"][0], content["train"][1] = content["train"][1], content["train"][0]


def move_a_row(content: Content) -> None:
    content["test"].insert(0, content["validation"].pop())


def other_label(split: str) -> Callable[[Content], None]:
    def change(content: Content) -> None:
        row = content[split][-1]
        row["label"] = 1 - row["label"]

    return change


def another_id(content: Content) -> None:
    content["test"][-1]["id"] = "mine"


CHANGES: dict[str, list[Callable[[Content], None]]] = {
    "classification": [
        *(text_of_last(split, "sentence") for split in ("train", "validation", "test")),
        *(other_label(split) for split in ("train", "validation", "test")),
        swap_rows,
        move_a_row,
        another_id,
    ],
    "multiple_choice": [text_of_last("train", "context"), text_of_last("validation", "a"), text_of_last("test", "b")],
    "token_classification": [text_of_last(split, "tokens") for split in ("train", "validation", "test")],
    "seq2seq": [text_of_last("train", "target"), text_of_last("train", "input"), text_of_last("test", "references")],
}


@pytest.mark.parametrize("kind", CHANGES)
def test_every_change_of_the_data_changes_the_fingerprint(kind: str, tmp_path: Path) -> None:
    """Splits train, validation (which selects) and test (which is scored); one value at a time is changed."""
    task = task_of(kind, tmp_path / "d", selection="validation", evaluation_split="test")
    found = [load_task(task).fingerprint]
    for i, change in enumerate(CHANGES[kind]):
        content = content_of(tmp_path / "d")
        change(content)
        folder = write_splits(tmp_path / f"changed{i}", content)
        found.append(load_task(replace(task, data_dir=str(folder))).fingerprint)
    assert len(set(found)) == len(found) > 3


def test_label_names_and_their_order_count(tmp_path: Path) -> None:
    folder = write_both(tmp_path, "jsonl", [{"sentence": "a", "label": 1}])
    names = (["no", "yes"], ["yes", "no"], ["no", "yes", "maybe"], ["n", "oyes"])
    assert len({load_task(task_for(folder, labels=labels)).fingerprint for labels in names}) == 4


def test_where_one_text_ends_counts(tmp_path: Path) -> None:
    pairs = [("a", "b c"), ("a b", "c"), ('a", "b', "c"), ("a\\", "b"), ("a", "\\b")]
    found = set()
    for i, (one, two) in enumerate(pairs):
        folder = write_both(tmp_path / str(i), "jsonl", [{"sentence": one, "second": two, "label": 0}])
        found.add(load_task(task_for(folder, text=["sentence", "second"])).fingerprint)
    assert len(found) == len(pairs)


def test_path_and_format_do_not_count(tmp_path: Path) -> None:
    rows = [{"sentence": 'über "alles"', "label": 1}, {"sentence": "b", "label": 0}]
    found = {load_task(task_for(write_both(tmp_path / suffix, suffix, rows))).fingerprint for suffix in FORMATS}
    assert len(found) == 1


def test_the_fingerprint_of_a_known_data_set_stays(tmp_path: Path) -> None:
    """A number written down: runs that are finished must find their data again."""
    rows = [{"id": 7, "sentence": "é\u2028", "label": "yes"}, {"sentence": "b", "label": "no"}]
    assert load_task(task_for(write_both(tmp_path, "jsonl", rows))).fingerprint == "00b036984c884900"
