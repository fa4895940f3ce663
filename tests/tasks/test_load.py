"""Tasks: every way in, every mistake on the way, and what comes out."""

from __future__ import annotations

import json
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from tests.support.checkout import ROOT, SHARED
from tests.support.tasks import refused
from unipet.config import DecodingConfig, TaskConfig
from unipet.tasks import KINDS, check_task, load_task
from unipet.tasks.stories import GENERATORS

DATA = SHARED / "data"
FILES = sorted((ROOT / "conf" / "task").glob("*.yaml"))
SYNTHETIC = [path.stem for path in FILES if path.stem.startswith("synthetic_")]
REAL = [path.stem for path in FILES if not path.stem.startswith("synthetic_")]


def read(name: str, **changes: Any) -> TaskConfig:
    """The shipped task; its training set whole unless `changes` say what selects."""
    return made_of({"selection": "none", **composed(name), **changes})


def composed(name: str) -> dict[str, Any]:
    """What a shipped task says, with what it takes from another task."""
    values = yaml.safe_load((ROOT / "conf" / "task" / f"{name}.yaml").read_text(encoding="utf-8"))
    others = [other for other in values.pop("defaults", []) if other != "_self_"]
    return {key: value for other in others for key, value in composed(other).items()} | values


def made_of(values: dict[str, Any]) -> TaskConfig:
    if isinstance(values.get("decoding"), dict):
        values = {**values, "decoding": DecodingConfig(**values["decoding"])}
    return TaskConfig(**values)


def local(folder: Path, **changes: Any) -> TaskConfig:
    base = {
        "name": "mine",
        "text": ["sentence"],
        "labels": ["no", "yes"],
        "metrics": ["accuracy"],
        "data_dir": str(folder),
        "selection": "none",
    }
    return TaskConfig(**{**base, **changes})


def write(folder: Path, train: list[Any] | bytes, evaluation: list[Any] | None = None) -> Path:
    folder.mkdir(exist_ok=True)
    good = [{"sentence": "a b", "label": 0}, {"sentence": "c d", "label": 1}]
    for split, rows in (("train", train), ("validation", good if evaluation is None else evaluation)):
        content = rows if isinstance(rows, bytes) else "".join(json.dumps(row) + "\n" for row in rows).encode()
        (folder / f"{split}.jsonl").write_bytes(content)
    return folder


# --- the files in conf/task ---------------------------------------------------------------------------------------


def test_the_tasks_of_the_main_job_exist() -> None:
    assert {"sst2", "mrpc", "rte", "cola", "mnli", "qnli", "stsb"} <= set(REAL)
    assert len(SYNTHETIC) >= 3


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_a_task_file_is_valid_and_says_only_what_differs(path: Path) -> None:
    content = path.read_text(encoding="utf-8")
    assert content.startswith("# ") and f"unipet train task={path.stem}" in content.split("\nname:")[0]
    values = yaml.safe_load(content)
    assert values["name"] == path.stem
    check_task(made_of(composed(path.stem)))
    assert values.pop("defaults", [path.stem.rpartition("_")[0], "_self_"]) == [path.stem.rpartition("_")[0], "_self_"]
    defaults = TaskConfig()
    allowed = {field.name for field in fields(TaskConfig)}
    assert set(values) <= allowed
    assert not [key for key, value in values.items() if value == getattr(defaults, key)]


def test_the_tasks_that_papers_report_are_there_with_their_splits() -> None:
    glue = {"cola", "sst2", "mrpc", "qqp", "mnli", "qnli", "rte", "wnli", "stsb", "ax"}
    superglue = {"boolq", "cb", "copa", "wic"}
    few = {"mr", "cr", "subj", "mpqa", "trec", "ag_news", "imdb", "snli", "sst5"}
    text = {"e2e", "webnlg", "dart", "xsum", "cnn_dailymail", "samsum", "dialogsum", "wmt16_en_ro", "multi30k_en_de"}
    assert glue | superglue | few | text <= set(REAL)
    assert all(read(name).submission and read(name).revision for name in glue)
    assert all(read(name).evaluation_split == "test" for name in few | text)
    assert all(KINDS[read(name).kind].generates for name in text)


def test_generation_tasks_decode_as_the_papers_do() -> None:
    """He et al. 2022 (reference/unified_view.md section 4) and AdaMix's scripts (reference/adamix_unipelt.md 2.2)."""
    xsum, en_ro, e2e = (read(name) for name in ("xsum", "wmt16_en_ro", "e2e"))
    assert (xsum.max_source, xsum.max_target) == (512, 128)
    assert xsum.decoding == DecodingConfig(6, 1.0, 10, 60, 3)
    assert (en_ro.max_source, en_ro.max_target, en_ro.decoding) == (150, 150, DecodingConfig(5, 1.0, 1, 150, 0))
    assert e2e.decoding == DecodingConfig(10, 0.8, 0, 64, 4)


FEW_SHOT = sorted(DATA.glob("*/fewshot/k16_seed13_train.jsonl"))


@pytest.mark.parametrize("path", FEW_SHOT, ids=lambda path: path.parts[-3])
def test_few_shot_splits_run_from_the_same_directory(path: Path) -> None:
    name = path.parts[-3]
    changes = {"train_split": "fewshot/k16_seed13_train", "selection_split": "fewshot/k16_seed13_dev"}
    evaluation = "validation" if (DATA / name / "validation.jsonl").is_file() else "test"
    task = read(name, data_dir=str(DATA / name), selection="validation", evaluation_split=evaluation, **changes)
    data = load_task(task)
    assert len(data.selection) > 0 and len(data.train) < 100
    assert data.record()["selection"] == {"by": "validation", "examples": len(data.selection)}


@pytest.mark.parametrize("name", REAL)
def test_a_real_task_reads_its_local_files(name: str) -> None:
    if not (DATA / name).is_dir():
        pytest.skip(f"no local data for {name}")
    meta = json.loads((DATA / name / "meta.json").read_text(encoding="utf-8"))
    task = read(name, data_dir=str(DATA / name))
    data = load_task(task)
    assert data.source == f"files:{DATA / name}" and not data.synthetic
    lines = {
        split: (DATA / name / f"{split}.jsonl").read_bytes().count(b"\n") for split in ("train", task.evaluation_split)
    }
    assert len(data.train) == lines["train"] and len(data.evaluation) == lines[task.evaluation_split]
    assert all(len(row["text"]) == len(task.text) for row in data.train)
    if KINDS[task.kind].generates:
        assert all(row["target"] for row in data.train) and all(row["references"] for row in data.evaluation)
    elif not data.regression:
        assert data.labels == (meta.get("labels") or meta.get("label_names"))
        assert {row["label"] for row in data.train} == set(range(len(data.labels)))


# --- synthetic tasks ----------------------------------------------------------------------------------------------


@pytest.fixture(scope="module", params=SYNTHETIC)
def made(request: pytest.FixtureRequest) -> Any:
    task = read(request.param)
    return task, load_task(task)


def test_synthetic_data_says_so_and_has_the_sizes_asked_for(made: Any) -> None:
    task, data = made
    record = data.record()
    assert record["synthetic"] is True and record["source"] == f"synthetic:{task.generator} seed 0"
    assert (record["train"], record["evaluation"]) == (task.generated_train, task.generated_evaluation)
    json.dumps(record)


def test_synthetic_data_is_balanced_distinct_and_held_out(made: Any) -> None:
    _, data = made
    train, evaluation = ({tuple(row["text"]) for row in rows} for rows in (data.train, data.evaluation))
    assert len(train) == len(data.train) and len(evaluation) == len(data.evaluation)
    assert not train & evaluation
    bags = [{bag(row) for row in rows} for rows in (data.train, data.evaluation)]
    assert not bags[0] & bags[1], "a combination of words occurs in both splits"
    labels = [row["label"] for row in asked(data, data.train)]
    if data.regression:
        assert np.mean(labels) == 2.5 and min(labels) == 0 and max(labels) == 5
    else:
        assert labels.count(0) == labels.count(1)


def asked(data: Any, rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Rows with one answer each: of a set of labels, one for each thing that the text judges."""
    if not data.several:
        return rows
    return [
        {"text": [*row["text"], name], "label": int(index in row["label"])}
        for row in rows
        for index, name in enumerate(data.labels)
        if name in row["text"][0].split()
    ]


def bag(row: dict[str, Any]) -> tuple[tuple[str, ...], ...]:
    return tuple(tuple(sorted(text.split())) for text in row["text"])


def test_synthetic_answers_do_not_depend_on_the_words(made: Any) -> None:
    """For every example of the evaluation split its twin is there: the same words, per text, with the opposite answer."""
    _, data = made
    answers: dict[Any, list[float]] = {}
    for row in asked(data, data.evaluation):
        answers.setdefault(bag(row), []).append(row["label"])
    middle = 2.5 if data.regression else 0.5
    assert all(np.mean(labels) == middle for labels in answers.values())


def test_a_bag_of_words_learns_nothing_from_synthetic_data(made: Any) -> None:
    """Ridge regression on word counts, each text of a pair counted on its own."""
    _, data = made
    train, evaluation = asked(data, data.train), asked(data, data.evaluation)
    words = sorted({(k, word) for row in train for k, text in enumerate(row["text"]) for word in text.split()})
    vocabulary = {word: i for i, word in enumerate(words)}

    def counts(rows: list[dict[str, Any]]) -> np.ndarray:
        matrix = np.zeros((len(rows), len(vocabulary)))
        for i, row in enumerate(rows):
            for k, text in enumerate(row["text"]):
                for word in text.split():
                    if (k, word) in vocabulary:
                        matrix[i, vocabulary[k, word]] += 1
        return matrix

    x, y = counts(train), np.array([row["label"] for row in train], dtype=float)
    weights = np.linalg.solve(x.T @ x + np.eye(x.shape[1]), x.T @ (y - y.mean()))
    guess, truth = counts(evaluation) @ weights, np.array([row["label"] for row in evaluation])
    if data.regression:
        assert abs(np.cov(guess, truth)[0, 1]) / max(guess.std() * truth.std(), 1e-9) < 0.1
    else:
        assert abs(np.mean((guess > 0) == (truth == 1)) - 0.5) <= 0.05


@pytest.mark.parametrize("name", SYNTHETIC)
def test_synthetic_data_is_decided_by_its_seed_alone(name: str) -> None:
    import random

    small = read(name, generated_train=60, generated_evaluation=20)
    random.seed(1)
    first = load_task(small)
    state = random.getstate()
    second = load_task(small)
    assert random.getstate() == state, "the global random state must stay untouched"
    assert first == second
    other = load_task(replace(small, generator_seed=1))
    assert other.fingerprint != first.fingerprint and other.train != first.train


def test_more_synthetic_rows_than_there_are() -> None:
    refused(read("synthetic_stars", generated_train=10**6), "task.generated_train", "1000000", "different")


def test_json_lines_take_the_place_of_a_generator(tmp_path: Path) -> None:
    folder = write(tmp_path / "d", [{"sentence": "a", "label": "positive"}], [{"sentence": "b", "label": "negative"}])
    data = load_task(read("synthetic_verdicts", data_dir=str(folder)))
    assert not data.synthetic and data.source.startswith("files:")


# --- JSON lines ---------------------------------------------------------------------------------------------------


def test_labels_by_index_or_by_name_and_ids(tmp_path: Path) -> None:
    folder = write(
        tmp_path / "d",
        [{"id": 7, "sentence": "a", "label": "yes"}, {"id": "x", "sentence": " b ", "label": "no"}],
        [{"sentence": "c\u2028d", "label": 1}],
    )
    data = load_task(local(folder))
    assert data.train == [{"id": "7", "text": ["a"], "label": 1}, {"id": "x", "text": [" b "], "label": 0}]
    assert data.evaluation == [{"id": "validation-0", "text": ["c\u2028d"], "label": 1}]
    assert data.record()["train_labels"] == {"no": 1, "yes": 1}


def test_a_byte_order_mark_windows_line_ends_and_blank_lines_are_no_mistake(tmp_path: Path) -> None:
    folder = write(tmp_path / "d", b'\xef\xbb\xbf{"sentence": "a", "label": 0}\r\n\r\n{"sentence": "b", "label": 1}')
    assert [row["text"] for row in load_task(local(folder)).train] == [["a"], ["b"]]


GOOD_ROW = {"sentence": "fine", "label": 0}
BAD_ROWS: dict[str, tuple[list[Any] | bytes, list[str]]] = {
    "truncated": (
        b'{"sentence": "a", "label": 0}\n{"sentence": "b", "la',
        ["line 2, field 'sentence'", "malformed or truncated JSON"],
    ),
    "malformed": (b"sentence\tlabel\n", ["line 1", "malformed"]),
    "endless nesting": (b"[" * 100000, ["line 1", "malformed"]),
    "endless number": (b'{"sentence": "a", "label": ' + b"1" * 5000 + b"}", ["line 1", "malformed"]),
    "not an object": ([GOOD_ROW, ["a", 0]], ["line 2", "object", "list"]),
    "missing column": (
        [GOOD_ROW, {"sentense": "b", "label": 0}],
        ["line 2", "'sentence'", "sentense, label", "Did you mean"],
    ),
    "missing label": ([{"sentence": "b", "Label": 0}], ["line 1", "'label'", "task.label", "Did you mean 'Label'"]),
    "empty text": ([GOOD_ROW, {"sentence": "  ", "label": 0}], ["line 2", "'sentence'", "empty text"]),
    "text is a number": ([{"sentence": 3, "label": 0}], ["line 1", "'sentence'", "string"]),
    "text is null": ([{"sentence": None, "label": 0}], ["line 1", "'sentence'", "None"]),
    "half a character": (b'{"sentence": "a\\ud800", "label": 0}', ["line 1", "'sentence'", "surrogate"]),
    "label too large": ([GOOD_ROW, {"sentence": "b", "label": 2}], ["line 2", "'label'", "2 is outside", "1 = yes"]),
    "label negative": ([{"sentence": "b", "label": -2}], ["line 1", "'label'", "-2 is outside"]),
    "hidden label": ([{"sentence": "b", "label": -1}], ["line 1", "'label'", "hidden"]),
    "unknown name": (
        [{"sentence": "b", "label": "yess"}],
        ["line 1", "'label'", "unknown label 'yess'", "Did you mean 'yes'"],
    ),
    "mixed labels": ([{"sentence": "a", "label": "yes"}, GOOD_ROW], ["line 2", "line 1", "not both"]),
    "a list for a label": ([{"sentence": "a", "label": [1]}], ["line 1", "'label'", "[1]", "1 = yes"]),
    "half a label": ([{"sentence": "a", "label": 0.5}], ["line 1", "'label'", "0.5", "whole"]),
    "null label": ([{"sentence": "a", "label": None}], ["line 1", "'label'", "None"]),
    "same id": ([{**GOOD_ROW, "id": 1}, {**GOOD_ROW, "id": "1"}], ["line 2", "'id'", "line 1", "distinct"]),
    "bad id": ([{**GOOD_ROW, "id": [1]}], ["line 1", "'id'"]),
    "latin-1": (b'{"label": 0, "sentence": "caf\xe9"}\n', ["line 1, field 'sentence'", "UTF-8"]),
    "a field twice": (b'{"sentence": "a", "label": 0, "label": 1}', ["line 1", "'label'", "twice"]),
    "utf-16": ('{"sentence": "a", "label": 0}'.encode("utf-16"), ["line 1", "UTF-8"]),
    "empty split": (b"", ["empty", "'train'"]),
    "blank split": (b"\n \n", ["empty", "'train'"]),
}


@pytest.mark.parametrize("case", BAD_ROWS)
def test_a_bad_row_is_one_error_with_file_line_and_field(case: str, tmp_path: Path) -> None:
    rows, parts = BAD_ROWS[case]
    refused(local(write(tmp_path / "d", rows)), "train.jsonl", *parts)


def test_a_bad_row_of_the_evaluation_split(tmp_path: Path) -> None:
    refused(
        local(write(tmp_path / "d", [GOOD_ROW], [GOOD_ROW, {"sentence": "", "label": 0}])), "validation.jsonl, line 2"
    )


@pytest.mark.parametrize("score", ["NaN", "Infinity", "-Infinity", '"high"', '"3.0"', "true", "null", "1" + "0" * 400])
def test_a_bad_regression_score(score: str, tmp_path: Path) -> None:
    folder = write(tmp_path / "d", b'{"sentence": "a", "label": 1}\n{"sentence": "b", "label": %s}\n' % score.encode())
    task = local(folder, kind="regression", labels=[], metrics=["pearson"])
    refused(task, "train.jsonl, line 2", "'label'", "finite number")


def test_regression_scores_become_floats(tmp_path: Path) -> None:
    data = load_task(local(write(tmp_path / "d", [GOOD_ROW]), kind="regression", labels=[], metrics=["pearson"]))
    assert data.regression and data.labels == [] and isinstance(data.train[0]["label"], float)


def test_missing_files_and_directories(tmp_path: Path) -> None:
    folder = write(tmp_path / "movies", [GOOD_ROW])
    refused(local(tmp_path / "movie"), "task.data_dir", "no directory", "Did you mean 'movies'")
    refused(local(tmp_path / "a" / "b"), "task.data_dir", "no directory")
    refused(local(folder / "train.jsonl"), "is a file")
    refused(
        local(folder, evaluation_split="test"), "test.jsonl", "train.jsonl, validation.jsonl", "task.evaluation_split"
    )
    refused(local(folder, train_split="trian"), "trian.jsonl", "Did you mean 'train.jsonl'")


def test_no_source_at_all() -> None:
    refused(read("mr"), "task.data_dir", "train.jsonl", "test.jsonl", "sentence, label")


# --- subsets ------------------------------------------------------------------------------------------------------


def test_a_subset_is_fixed_nested_and_recorded() -> None:
    task = read("synthetic_events", generated_train=200, generated_evaluation=40)
    whole, small, large = (load_task(replace(task, max_train=n, max_evaluation=n and 10)) for n in (None, 20, 50))
    ids = [[row["id"] for row in data.train] for data in (whole, small, large)]
    assert ids[2][:20] == ids[1] and set(ids[2]) < set(ids[0]) and ids[1] != ids[0][:20]
    record = small.record()
    assert (record["train"], record["train_available"]) == (20, 200)
    assert (record["evaluation"], record["evaluation_available"]) == (10, 40)
    assert load_task(replace(task, max_train=20, max_evaluation=10)) == small
    assert len({whole.fingerprint, small.fingerprint, large.fingerprint}) == 3


def test_a_subset_larger_than_the_data_is_the_data() -> None:
    task = read("synthetic_events", generated_train=20, generated_evaluation=10)
    data = load_task(replace(task, max_train=21))
    assert data == load_task(task) and data.record()["train"] == 20


# --- the hub ------------------------------------------------------------------------------------------------------


def fake_hub(
    monkeypatch: pytest.MonkeyPatch, labels: Any, splits: tuple[str, ...] = ("train", "validation"), **extra: Any
) -> list[Any]:
    import datasets

    asked: list[Any] = []

    def load(*args: Any, **options: Any) -> Any:
        asked.append((args, options))
        features = {"text": datasets.Value("string"), "y": labels}
        rows = {"text": ["a", "b", "c"], "y": extra.get("y", [0, 1, 0])}
        table = datasets.Dataset.from_dict(rows, features=datasets.Features(features))
        return datasets.DatasetDict(dict.fromkeys(splits, table))

    monkeypatch.setattr(datasets, "load_dataset", load)
    return asked


def hub(**changes: Any) -> TaskConfig:
    base = {"name": "h", "text": ["sentence"], "labels": ["no", "yes"], "metrics": ["accuracy"], "hub": "someone/some"}
    return TaskConfig(**{**base, "rename": {"text": "sentence", "y": "label"}, "selection": "none", **changes})


def test_hub_rows_and_label_order(monkeypatch: pytest.MonkeyPatch) -> None:
    import datasets

    asked = fake_hub(monkeypatch, datasets.ClassLabel(names=["yes", "no"]))
    data = load_task(hub(subset="part", revision="abc"))
    assert asked == [(("someone/some", "part"), {"revision": "abc"})], "one call, and no remote code"
    assert data.source == "hub:someone/some/part@abc" and not data.synthetic
    assert [row["label"] for row in data.train] == [1, 0, 1], "by name: the hub's order differs from ours"


def test_hub_regression_and_the_matched_split(monkeypatch: pytest.MonkeyPatch) -> None:
    import datasets

    fake_hub(monkeypatch, datasets.Value("float32"), ("train", "validation_matched"), y=[0.0, 2.5, 5.0])
    data = load_task(hub(kind="regression", labels=[], metrics=["pearson"]))
    assert [row["label"] for row in data.evaluation] == [0.0, 2.5, 5.0]
    assert data.source == "hub:someone/some@main"


def test_hub_texts_reach_into_columns_and_gather_references(monkeypatch: pytest.MonkeyPatch) -> None:
    import datasets

    pairs = [{"en": "a", "ro": "x"}, {"en": "a", "ro": "y"}, {"en": "b", "ro": "z"}]
    table = datasets.Dataset.from_dict({"translation": pairs})
    asked: list[Any] = []

    def load(*args: Any, **options: Any) -> Any:
        asked.append(options)
        return datasets.DatasetDict({"train": table, "test": table})

    monkeypatch.setattr(datasets, "load_dataset", load)
    data = load_task(read("wmt16_en_ro"))
    assert data.train[1] == {"id": "train-1", "text": ["a"], "target": "y"}
    assert [row["references"] for row in data.evaluation] == [["x"], ["y"], ["z"]]
    grouped = load_task(read("wmt16_en_ro", group_references=True))
    assert [row["references"] for row in grouped.evaluation] == [["x", "y"], ["z"]] and len(grouped.train) == 3
    assert all("trust_remote_code" not in options for options in asked)
    refused(read("wmt16_en_ro", rename={"translation.en": "en"}), "task.rename", "no column 'ro'", "translation.ro")


def test_hub_mistakes(monkeypatch: pytest.MonkeyPatch) -> None:
    import datasets

    names = datasets.ClassLabel(names=["no", "yes"])
    fake_hub(monkeypatch, names, y=[0, -1, 1])
    refused(hub(), "someone/some", "'train'", "row 1", "hidden")
    fake_hub(monkeypatch, names, ("train", "test"))
    refused(hub(), "task.evaluation_split", "test, train")
    fake_hub(monkeypatch, names)
    refused(hub(rename={"text": "sentence"}), "no column 'label'", "text, y")
    refused(hub(labels=["bad", "good"]), "task.labels", "['no', 'yes']")


def test_the_hub_out_of_reach_names_the_local_way(monkeypatch: pytest.MonkeyPatch) -> None:
    import datasets

    def offline(*args: Any, **options: Any) -> Any:
        raise ConnectionError("Couldn't reach\n 'someone/some' on the Hub")

    monkeypatch.setattr(datasets, "load_dataset", offline)
    refused(
        hub(), "task.hub", "someone/some", "task.data_dir=DIR", "train.jsonl", "validation.jsonl", "sentence, label"
    )


# --- check_task ---------------------------------------------------------------------------------------------------

BAD_TASKS: dict[str, tuple[dict[str, Any], list[str]]] = {
    "no name": ({"name": "???"}, ["task.name"]),
    "kind": (
        {"kind": "clasification"},
        ["task.kind", "classification, masked_prompt", "Did you mean 'classification'"],
    ),
    "no text": ({"text": []}, ["task.text", "0 columns"]),
    "three texts": ({"text": ["a", "b", "c"]}, ["task.text", "3 columns"]),
    "same text twice": ({"text": ["a", "a"]}, ["task.text", "twice"]),
    "bare text": ({"text": "sentence"}, ["task.text", "[sentence]"]),
    "text a number": ({"text": [1]}, ["task.text[0]: 1 given; allowed: a text", "quotes"]),
    "label is text": ({"label": "sentence"}, ["task.label"]),
    "one label": ({"labels": ["a"]}, ["task.labels", "at least two"]),
    "numeric labels": ({"labels": [0, 1]}, ["task.labels", "quotes"]),
    "regression with labels": ({"kind": "regression", "metrics": ["pearson"]}, ["task.labels"]),
    "no metric": ({"metrics": []}, ["task.metrics", "accuracy"]),
    "metric": ({"metrics": ["acuracy"]}, ["task.metrics", "Did you mean 'accuracy'"]),
    "metric of the other kind": ({"metrics": ["pearson"]}, ["task.metrics", "task.kind=classification"]),
    "f1 of three": ({"labels": ["a", "b", "c"], "metrics": ["f1"]}, ["task.metrics", "f1"]),
    "negative size": ({"max_train": -1}, ["task.max_train", "-1"]),
    "zero size": ({"max_evaluation": 0}, ["task.max_evaluation", "null"]),
    "a word for a size": ({"max_length": "long"}, ["task.max_length", "'long'"]),
    "a boolean for a size": ({"max_train": True}, ["task.max_train", "True"]),
    "no length": ({"max_length": None}, ["task.max_length"]),
    "a path for a split": ({"train_split": "../train"}, ["task.train_split"]),
    "rename": ({"rename": {"x": "lable"}}, ["task.rename", "Did you mean 'label'"]),
    "generator": ({"generator": "story", "name": "synthetic_x"}, ["task.generator", "stars"]),
    "generator and hub": ({"generator": "stars", "hub": "x"}, ["task.hub", "task.generator"]),
    "unmarked generator": ({"generator": "events"}, ["task.name", "synthetic_"]),
    "generator of another kind": ({"generator": "stars", "name": "synthetic_x"}, ["task.kind", "task.generator=stars"]),
    "generator with other labels": ({"generator": "events", "name": "synthetic_x"}, ["task.labels", "absurd"]),
    "seed": ({"generator_seed": 1.5}, ["task.generator_seed"]),
}


@pytest.mark.parametrize("case", BAD_TASKS)
def test_a_bad_task_is_one_error_with_its_key(case: str, tmp_path: Path) -> None:
    changes, parts = BAD_TASKS[case]
    refused(local(write(tmp_path / "d", [GOOD_ROW]), **changes), *parts)


def test_every_generator_has_a_task_file() -> None:
    assert {read(name).generator for name in SYNTHETIC} == set(GENERATORS)


def test_a_configuration_that_hydra_made_is_as_good_as_a_plain_one() -> None:
    import omegaconf

    plain = read("synthetic_events", generated_train=20, generated_evaluation=10)
    assert load_task(omegaconf.OmegaConf.structured(plain)).fingerprint == load_task(plain).fingerprint
    check_task(omegaconf.OmegaConf.structured(read("stsb")))
