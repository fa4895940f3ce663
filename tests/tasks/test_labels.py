"""What the label column says: names, indices, truth values and declared names, one rule for every format."""

from __future__ import annotations

from collections.abc import Callable
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from tests.support.files import FORMATS, parquet_of, task_for, write_both, write_file
from tests.support.tasks import refused, task_of
from unipet.config import TaskConfig
from unipet.errors import UnipetError
from unipet.tasks import load_hidden, load_task
from unipet.tasks.declared import alignment, declared_names
from unipet.tasks.labels import LabelReader

STARS = ["4", "3", "2", "1", "0"]


def labels_of(folder: Path, suffix: str, given: list[Any], **changes: Any) -> list[Any]:
    rows = [{"sentence": "a", "label": value} for value in given]
    return [row["label"] for row in load_task(task_for(write_both(folder, suffix, rows), **changes)).train]


# --- one rule for all formats -------------------------------------------------------------------------------------

AGREED: dict[str, tuple[list[str], list[Any], list[int]]] = {
    "names": (["no", "yes"], ["yes", "no"], [1, 0]),
    "indices": (["no", "yes"], [1, 0], [1, 0]),
    "indices as text": (["no", "yes"], ["1", "0"], [1, 0]),
    "whole numbers with a point": (["no", "yes"], [1.0, 0.0], [1, 0]),
    "names that are their indices": (["0", "1", "2"], [2, 0, 1], [2, 0, 1]),
    "names beyond every index": (["10", "20"], [20, 10], [1, 0]),
    "negative names": (["-1", "+5"], [-1, 5], [0, 1]),
    "names with a point": (["0.5", "1.5"], [1.5, 0.5], [1, 0]),
    "a number that means one label both ways": (STARS, [2, 2], [2, 2]),
    "truth": (["no", "yes"], [True, False], [1, 0]),
    "truth the other way round": (["True", "False"], [True, False], [0, 1]),
    "truth in digits": (["0", "1"], [True, False], [1, 0]),
    "truth as text": (["n", "y"], ["true", "FALSE"], [1, 0]),
}


@pytest.mark.parametrize("suffix", FORMATS)
@pytest.mark.parametrize("case", AGREED)
def test_a_label_is_read_alike_in_every_format(case: str, suffix: str, tmp_path: Path) -> None:
    names, given, indices = AGREED[case]
    assert labels_of(tmp_path, suffix, given, labels=names) == indices


REFUSED: dict[str, tuple[list[str], list[Any], list[str]]] = {
    "name and index": (
        STARS,
        [2, 1],
        ["the name of the label '1' (index 3)", "the index of the label '3'", "label_is"],
    ),
    "name and index as text": (STARS, [2, "4"], ["the name of the label '4'", "the index of the label '0'"]),
    "stars from one": (["1", "2", "3"], [3, 1], ["the name of the label '1'", "the index of the label '2'"]),
    "mixed": (["no", "yes"], ["yes", "1"], ["a label's index", "a label's name", "not both"]),
    "a part of an index": (["no", "yes"], [0, 0.5], ["0.5", "no whole number", "1 = yes"]),
    "too large": (["no", "yes"], [0, 2], ["2", "outside the range"]),
    "minus two": (["no", "yes"], [0, -2], ["-2", "outside the range"]),
    "huge": (["no", "yes"], [0, 10**18], ["outside the range"]),
    "unknown": (["no", "yes"], ["no", "Yes"], ["unknown label 'Yes'", "Did you mean 'yes'"]),
    "hidden": (["no", "yes"], [0, -1], ["-1", "hidden", "task.drop=[unlabelled]"]),
    "hidden with a point": (["no", "yes"], [0.0, -1.0], ["-1.0", "hidden", "task.drop=[unlabelled]"]),
    "none": (["no", "yes"], [0, None], ["no answer", "task.drop=[unlabelled]"]),
}


@pytest.mark.parametrize("suffix", FORMATS)
@pytest.mark.parametrize("case", REFUSED)
def test_a_label_is_refused_alike_in_every_format(case: str, suffix: str, tmp_path: Path) -> None:
    names, given, parts = REFUSED[case]
    if suffix == "parquet" and len({type(value) for value in given if value is not None}) > 1:
        given = [str(value) for value in given]  # a parquet column has one type
    place = "row 1" if suffix == "parquet" else f"line {2 if suffix == 'jsonl' else 3}"
    task = task_for(tmp_path, labels=names)
    write_both(tmp_path, suffix, [{"sentence": "a", "label": value} for value in given])
    refused(task, f"train.{suffix}, {place}, field 'label'", *parts)


@pytest.mark.parametrize("suffix", FORMATS)
def test_what_could_be_two_labels_is_said_by_the_task(suffix: str, tmp_path: Path) -> None:
    assert labels_of(tmp_path / "n", suffix, [1, 2, 4], labels=STARS, label_is="name") == [3, 2, 0]
    assert labels_of(tmp_path / "i", suffix, [1, 2, 4], labels=STARS, label_is="index") == [1, 2, 4]
    folder = write_both(tmp_path / "o", suffix, [{"sentence": "a", "label": 5}])
    refused(task_for(folder, labels=STARS, label_is="name"), "unknown label", "5")
    refused(task_for(folder, labels=STARS, label_is="index"), "5", "outside the range")
    refused(task_for(folder, labels=STARS, label_is="nam"), "task.label_is", "auto, index, name", "Did you mean 'name'")


def test_two_names_of_one_number() -> None:
    versions = LabelReader(["1.1", "1.10"], "name")
    assert [versions.index(text, "here") for text in ("1.10", "1.1")] == [1, 0]
    with pytest.raises(UnipetError, match=r"the name of the label '1\.1'.*'1\.10'.*as text"):
        versions.index(1.1, "here")
    assert LabelReader(["no", "yes"]).index(Decimal("1.00"), "here") == 1


def test_truth_without_names_that_say_so(tmp_path: Path) -> None:
    refused_labels = {"labels": ["negative", "positive"]}
    task = task_for(write_both(tmp_path, "jsonl", [{"sentence": "a", "label": True}]), **refused_labels)
    refused(task, "line 1, field 'label'", "True given", "no/yes", "task.labels=[no,yes]")
    followed = task_for(tmp_path)
    assert load_task(followed).train[0]["label"] == 1, "the advice, followed"
    three = task_for(tmp_path, labels=["no", "yes", "maybe"])
    refused(three, "true and false are labels only where task.labels are two")


# --- declared names -----------------------------------------------------------------------------------------------


def class_label(names: list[str]) -> dict[str, Any]:
    return {"names": names, "_type": "ClassLabel"}


LISTS: dict[str, Callable[[Any], Any]] = {
    "List": lambda inner: {"feature": inner, "_type": "List"},
    "LargeList": lambda inner: {"feature": inner, "length": -1, "_type": "LargeList"},
    "Sequence": lambda inner: {"feature": inner, "length": -1, "_type": "Sequence"},
    "a list in the oldest notation": lambda inner: [inner],
}


def test_declared_names_in_another_order_are_aligned(tmp_path: Path) -> None:
    features = {"label": class_label(["yes", "no"]), "sentence": {"dtype": "string", "_type": "Value"}}
    task = task_for(parquet_of(tmp_path, {"sentence": ["a", "b", "c"], "label": [0, 1, 0]}, features))
    data = load_task(task)
    assert [row["label"] for row in data.train] == [row["label"] for row in data.evaluation] == [1, 0, 1]
    same = load_task(task_for(write_both(tmp_path / "j", "jsonl", [
        {"sentence": text, "label": name} for text, name in (("a", "yes"), ("b", "no"), ("c", "yes"))
    ])))  # fmt: skip
    assert data.fingerprint == same.fingerprint


def test_declared_names_of_every_split_count_on_their_own(tmp_path: Path) -> None:
    """Training, selection and evaluation split each declare another order."""
    columns = {"sentence": ["a", "b", "c"], "label": [0, 1, 2]}
    orders = {"train": ["x", "y", "z"], "dev": ["z", "x", "y"], "test": ["y", "z", "x"]}
    for split, names in orders.items():
        parquet_of(tmp_path, columns, {"label": class_label(names)}, split)
    task = task_for(
        tmp_path,
        labels=["z", "y", "x"],
        selection="validation",
        selection_split="dev",
        evaluation_split="test",
    )
    data = load_task(task)
    found = [[task.labels[row["label"]] for row in rows] for rows in (data.train, data.selection, data.evaluation)]
    assert found == list(orders.values())


@pytest.mark.parametrize("how", LISTS)
def test_declared_names_of_tags_are_aligned(how: str, tmp_path: Path) -> None:
    features = {"tags": LISTS[how](class_label(["B-X", "O"]))}
    columns = {"tokens": [["a", "b"], ["c"]], "tags": [[0, 1], [1]]}
    task = TaskConfig(**{**vars(task_of("token_classification", tmp_path / "x")), "data_dir": str(tmp_path / "d")})
    parquet_of(tmp_path / "d", columns, features)
    assert task.labels == ["O", "B-X"]
    assert [row["label"] for row in load_task(task).train] == [[1, 0], [0]]


def test_other_declared_names_are_an_error_with_both_lists(tmp_path: Path) -> None:
    features = {"label": class_label(["negative", "positive"])}
    folder = parquet_of(tmp_path, {"sentence": ["a"], "label": [0]}, features)
    refused(task_for(folder), "task.labels", "['no', 'yes']", "train.parquet", "['negative', 'positive']")
    refused(task_for(folder, labels=["negative", "positive", "neutral"]), "'neutral']", "['negative', 'positive']")
    assert load_task(task_for(folder, labels=["positive", "negative"])).train[0]["label"] == 1


def test_names_that_are_only_indices_are_no_names(tmp_path: Path) -> None:
    folder = parquet_of(tmp_path, {"sentence": ["a", "b"], "label": [0, 1]}, {"label": class_label(["0", "1"])})
    assert [row["label"] for row in load_task(task_for(folder)).train] == [0, 1]
    # declared indices are never ambiguous, whatever the names are
    assert [row["label"] for row in load_task(task_for(folder, labels=["1", "2"])).train] == [0, 1]
    assert [row["label"] for row in load_task(task_for(folder, labels=["1", "0"])).train] == [1, 0]


def test_an_index_that_nothing_declares(tmp_path: Path) -> None:
    features = {"label": class_label(["no", "yes"])}
    folder = parquet_of(tmp_path, {"sentence": ["a", "b"], "label": [0, 2]}, features)
    refused(task_for(folder), "row 1, field 'label'", "2 is outside the range")
    folder = parquet_of(tmp_path / "h", {"sentence": ["a", "b"], "label": [0, -1]}, features)
    refused(task_for(folder), "row 1, field 'label'", "hidden", "task.drop=[unlabelled]")


def test_bare_indices_beside_a_split_that_declares_another_order(tmp_path: Path) -> None:
    parquet_of(tmp_path, {"sentence": ["a"], "label": [0]}, {"label": class_label(["yes", "no"])}, "train")
    write_file(tmp_path, "validation", "jsonl", [{"sentence": "a", "label": 1}])
    refused(task_for(tmp_path), "validation.jsonl, line 1, field 'label'", "train.parquet", "['yes', 'no']")
    assert load_task(task_for(tmp_path, labels=["yes", "no"])).evaluation[0]["label"] == 1
    write_file(tmp_path, "validation", "jsonl", [{"sentence": "a", "label": "yes"}])
    assert load_task(task_for(tmp_path)).evaluation[0]["label"] == 1


def test_declared_numbers_of_a_regression(tmp_path: Path) -> None:
    """A stored index stands for the declared name, also where that is a number."""
    columns = {"sentence": ["a", "b"], "label": [0, 2]}
    task: dict[str, Any] = {"kind": "regression", "labels": [], "metrics": ["pearson"]}
    folder = parquet_of(tmp_path, columns, {"label": class_label(["5", "4.5", "1"])})
    assert [row["label"] for row in load_task(task_for(folder, **task)).train] == [5.0, 1.0]
    folder = parquet_of(tmp_path / "w", columns, {"label": class_label(["bad", "good", "best"])})
    refused(task_for(folder, **task), "['bad', 'good', 'best']", "not numbers", "task.kind=classification")
    folder = parquet_of(tmp_path / "h", {"sentence": ["a"], "label": [-1]}, {"label": class_label(["5", "1"])})
    refused(task_for(folder, **task), "row 0, field 'label'", "hidden")


def test_metadata_that_cannot_be_read(tmp_path: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet

    table = pa.table({"sentence": ["a"], "label": [0]})
    for text, fine in {"{": False, "[" * 99_999: False, "[]": True, '{"info": 3}': True}.items():
        for split in ("train", "validation"):
            pyarrow.parquet.write_table(
                table.replace_schema_metadata({"huggingface": text}), tmp_path / f"{split}.parquet"
            )
        if fine:
            assert load_task(task_for(tmp_path)).train[0]["label"] == 0
        else:
            refused(task_for(tmp_path), "train.parquet", "huggingface", "malformed")


def test_features_that_declare_no_names() -> None:
    for feature in (None, 3, [], {"_type": "Value"}, {"_type": "ClassLabel"}, {"feature": class_label(["a"])}):
        assert declared_names(feature) is None
    assert alignment(["b", "a"], ["a", "b"], "here") == [1, 0]


def hub_of(monkeypatch: pytest.MonkeyPatch, splits: dict[str, Any]) -> None:
    import datasets

    monkeypatch.setattr(datasets, "load_dataset", lambda *_, **__: datasets.DatasetDict(splits))


def test_declared_tags_of_the_hub_are_aligned(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    import datasets

    tags = datasets.List(datasets.ClassLabel(names=["B-X", "O"]))
    features = datasets.Features({"words": datasets.List(datasets.Value("string")), "ner": tags})
    table = datasets.Dataset.from_dict({"words": [["a", "b"]], "ner": [[0, 1]]}, features=features)
    hub_of(monkeypatch, {"train": table, "validation": table})
    changes = {"data_dir": None, "hub": "someone/some", "rename": {"words": "tokens", "ner": "tags"}}
    task = TaskConfig(**{**vars(task_of("token_classification", tmp_path / "x")), **changes})
    assert load_task(task).train[0]["label"] == [1, 0]


def test_types_of_the_hub(monkeypatch: pytest.MonkeyPatch) -> None:
    import datasets

    task = TaskConfig(name="h", text=["sentence"], labels=["no", "yes"], metrics=["accuracy"], hub="someone/some")
    task.selection = "none"
    for kind, values in {
        "bool": [True, False],
        "string": ["1", "0"],
        "decimal128(3, 1)": [Decimal(1), Decimal(0)],
    }.items():
        features = datasets.Features({"sentence": datasets.Value("string"), "label": datasets.Value(kind)})
        table = datasets.Dataset.from_dict({"sentence": ["a", "b"], "label": values}, features=features)
        hub_of(monkeypatch, {"train": table, "validation": table})
        assert [row["label"] for row in load_task(task).train] == [1, 0], kind


def test_a_hidden_split_in_another_order(tmp_path: Path) -> None:
    write_both(tmp_path, "jsonl", [{"sentence": "a", "label": "no"}])
    parquet_of(tmp_path, {"sentence": ["a"], "label": [-1]}, {"label": class_label(["yes", "no"])}, "hidden")
    assert load_hidden(task_for(tmp_path), "hidden").label_order == [1, 0]
    assert load_hidden(task_for(tmp_path, labels=["yes", "no"]), "hidden").label_order == []
    with pytest.raises(UnipetError, match=r"task\.labels.*\['bad', 'good'\].*\['yes', 'no'\]"):
        load_hidden(task_for(tmp_path, labels=["bad", "good"]), "hidden")
