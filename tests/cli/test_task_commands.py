"""`unipet describe task=...` and `unipet submit`: what a user sees of a task before and after training."""

from __future__ import annotations

import json
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from tests.support.checkout import ROOT
from tests.support.files import parquet_of
from tests.support.running import LOW_RANK, run_dir, write_model
from tests.support.tasks import config_of, task_of, tokenizer, write_arch
from tests.support.tokenizers import TOKENIZERS
from unipet.cli.main import main
from unipet.config import TaskConfig
from unipet.errors import UnipetError
from unipet.runs.run import run
from unipet.runs.submission import _answer, submit
from unipet.tasks import TaskData, check_task, encode, load_task
from unipet.tasks.summary import _line, bars, histogram, summary, text
from unipet.tasks.word_ids import word_ids


def described(kind: str, folder: Path, **changes: Any) -> dict[str, Any]:
    task = task_of(kind, folder, **changes)
    data = load_task(task)
    return summary(task, data, encode(data, tokenizer(), task), tokenizer())


def test_a_histogram_counts_everything_once() -> None:
    bins = histogram([3, 3, 4, 9, 40], bins=4)
    assert sum(count for _, _, count in bins) == 5 and bins[0][0] == 3 and bins[-1][1] >= 40
    assert all(b[0] == a[1] + 1 for a, b in pairwise(bins)) and len(bins) <= 4
    assert histogram([7]) == [(7, 7, 1)]
    lines = bars([(1, 5, 10), (6, 10, 5)])
    assert lines[0].count("#") == 2 * lines[1].count("#") == 40


@pytest.mark.parametrize(
    "kind", ["classification", "multiple_choice", "token_classification", "seq2seq", "causal_generation"]
)
def test_every_kind_is_described(kind: str, tmp_path: Path) -> None:
    found = described(kind, tmp_path / "d")
    shown = text(found)
    assert len(found["examples"]) == 3 and "example 3 (train-2)" in shown and "truncated: train 0.00%" in shown
    assert sum(count for _, _, count in found["lengths"]["train"]) == 24
    if kind in ("seq2seq", "causal_generation"):
        assert "target: " in shown and "tokens of targets, train:" in shown and "labels, " not in shown
    else:
        assert "labels, train: " in shown and "labels, evaluation: " in shown
        names = {"classification": "no", "multiple_choice": "first"}.get(kind, "['O', ")
        assert f"  label: {names}" in shown, "labels by name"
    json.dumps(found)


def test_the_share_that_is_cut_is_shown(tmp_path: Path) -> None:
    found = described("seq2seq", tmp_path / "d", max_target=4)
    share = found["truncated"]["train_targets"]
    assert 0 < share < 1
    assert f"train_targets {share:.2%}" in text(found) and "warning: " in text(found)


def test_a_small_share_is_not_called_nothing() -> None:
    from unipet.tasks import Encoded, EncodedRows

    rows = EncodedRows({"input_ids": [[1]], "labels": [[1]]}, None, 0.0, truncated_targets=0.0001)
    assert Encoded(rows, rows).warnings(8)[0].startswith("under 0.1% of the training targets")


def test_describe_from_the_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    task_of("classification", tmp_path / "d")
    model = write_model(tmp_path / "model")
    words = [
        "task=sst2",
        f"task.data_dir={tmp_path / 'd'}",
        "task.labels=[no,yes]",
        "task.max_length=20",
        "task.selection=none",
    ]
    words += ["model=auto", f"model.path={model}", f"runs_dir={tmp_path / 'runs'}"]
    assert main(["describe", *words, "--png", str(tmp_path / "out" / "l.png")]) == 0
    shown = capsys.readouterr().out
    assert "task: sst2 (classification)" in shown and "labels, train: no 12 (50.0%), yes 12 (50.0%)" in shown
    assert str(tmp_path / "out" / "l.png") in shown
    assert (tmp_path / "out" / "l.png").read_bytes().startswith(b"\x89PNG")
    assert main(["describe", *words, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["data"]["train"] == 24
    assert main(["describe", "method=lora", *words, "--png", "x.png"]) == 2
    assert "--png" in capsys.readouterr().err


def hidden(folder: Path) -> None:
    rows = [{"sentence": "w1 w2"}, {"sentence": "w25", "label": -1}, {"sentence": "w3 w4 w5"}]
    (folder / "hidden.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


@pytest.mark.parametrize("names", [False, True])
def test_answers_to_a_hidden_test_set(names: bool, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    changes: dict[str, Any] = {"submission": {"MINE": "hidden"}, "submission_names": names}
    config = config_of("classification", tmp_path, write_arch(tmp_path / "m", "bert"), LOW_RANK, **changes)
    hidden(tmp_path / "data_classification")
    assert run(config)["status"] == "ok"
    assert main(["submit", str(run_dir(config))]) == 0
    path = run_dir(config) / "submission" / "MINE.tsv"
    assert capsys.readouterr().out.splitlines()[-1] == str(path)
    lines = path.read_text().splitlines()
    assert lines[0] == "index\tprediction" and [line.split("\t")[0] for line in lines[1:]] == ["0", "1", "2"]
    assert {line.split("\t")[1] for line in lines[1:]} <= ({"no", "yes"} if names else {"0", "1"})


def test_the_indices_of_a_submission_are_those_that_the_hidden_split_declares(tmp_path: Path) -> None:
    """The same rows, once without declared names and once with the two names in the other order."""
    changes: dict[str, Any] = {"submission": {"PLAIN": "plain", "DECLARED": "declared"}}
    config = config_of("classification", tmp_path, write_arch(tmp_path / "m", "bert"), LOW_RANK, **changes)
    texts = [f"w{i} w{i + 7}" for i in range(40)]
    features = {"label": {"names": ["yes", "no"], "_type": "ClassLabel"}}
    folder = tmp_path / "data_classification"
    parquet_of(folder, {"sentence": texts}, None, "plain")
    parquet_of(folder, {"sentence": texts, "label": [-1] * 40}, features, "declared")
    assert run(config)["status"] == "ok"
    plain, declared = (
        [int(line.split("\t")[1]) for line in path.read_text().splitlines()[1:]]
        for path in submit(run_dir(config), tmp_path / "out")
    )
    assert declared == [1 - index for index in plain] and len(declared) == 40


def test_a_task_without_hidden_answers(tmp_path: Path) -> None:
    config = config_of("classification", tmp_path, write_arch(tmp_path / "m", "bert"), LOW_RANK)
    run(config)
    with pytest.raises(UnipetError, match=r"no hidden test set.*task\.submission"):
        submit(run_dir(config), tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("name", ["../../x", "/x", "..", "a\\b", "C:x", "a\x07", "nul", ""])
def test_a_submissions_name_leads_nowhere_else(name: str, tmp_path: Path) -> None:
    config = config_of("classification", tmp_path, write_arch(tmp_path / "m", "bert"), LOW_RANK)
    hidden(tmp_path / "data_classification")
    assert run(config)["status"] == "ok"
    with pytest.raises(UnipetError, match=r"task\.submission: .* cannot be a file name"):
        check_task(replace(config.task, submission={name: "hidden"}))
    path = run_dir(config) / "config.yaml"
    content = yaml.safe_load(path.read_text())
    content["task"]["submission"] = {name: "hidden"}  # a stranger's run
    path.write_text(yaml.safe_dump(content))
    before = sorted(tmp_path.rglob("*"))
    assert main(["submit", str(run_dir(config)), "--out", str(tmp_path / "runs" / "a" / "b")]) == 2
    assert sorted(tmp_path.rglob("*")) == before, "nothing is written, inside or outside"


def test_names_and_splits_of_a_submission(tmp_path: Path) -> None:
    task = task_of("classification", tmp_path / "d")
    check_task(replace(task, submission={"A": "test", "B": "ax/test"}))
    for given, message in (
        ({"A": "test", "a": "dev"}, "two names differ only in upper and lower case"),
        ({"A": "../test"}, r"task\.submission\.A=.* cannot be a file name"),
        ({"A": "a\x00b"}, r"task\.submission\.A: .* cannot be a file name"),
    ):
        with pytest.raises(UnipetError, match=message):
            check_task(replace(task, submission=given))


@pytest.mark.parametrize(
    ("limits", "expected"), [([], ["7.25", "-3.5", "1e-06"]), ([0.0, 5.0], ["5.0", "0.0", "1e-06"])]
)
def test_numbers_are_clipped_where_the_task_says_so_alone(limits: list[float], expected: list[str]) -> None:
    task = TaskConfig(name="t", kind="regression", text=["a"], submission_range=limits)
    assert [_answer(task, np.array([value], np.float32)) for value in (7.25, -3.5, 1e-6)] == expected


def test_the_range_of_a_submission_is_the_tasks(tmp_path: Path) -> None:
    stsb = yaml.safe_load((ROOT / "conf" / "task" / "stsb.yaml").read_text())
    assert stsb["submission_range"] == [0, 5]
    check_task(TaskConfig(**stsb))
    for given in ([5, 0], [1], [0, float("nan")], ["a", "b"], [True, 5], [0, 1, 2]):
        with pytest.raises(UnipetError, match=r"task\.submission_range.*: .*\[lowest, highest\]"):
            check_task(TaskConfig(**{**stsb, "submission_range": given}))
    with pytest.raises(UnipetError, match=r"task\.submission_range: .*not numbers"):
        check_task(task_of("classification", tmp_path / "d", submission_range=[0.0, 5.0]))


@pytest.mark.parametrize("name", TOKENIZERS)
def test_what_is_shown_is_decoded_from_the_ids_of_training(name: str, tmp_path: Path) -> None:
    """Every kind: the shown text is that of the ids, special tokens and spaces included."""
    made = TOKENIZERS[name]()
    words = ["we", "saw", "John", "\u200b", "today"]
    row = {"id": "0", "text": words, "label": [0, 0, 1, 0, 0]}
    task = TaskConfig(
        name="t", kind="token_classification", text=["w"], labels=["O", "B-X"], metrics=["f1"], max_length=50
    )
    data = TaskData([row], [row], ["O", "B-X"], False, "here", False, "f")
    encoded = encode(data, made, task)
    found = summary(task, data, encoded, made)
    (shown,) = found["examples"]
    ids = encoded.train[0]["input_ids"]
    assert shown["input"] == made.decode(ids, skip_special_tokens=False, clean_up_tokenization_spaces=False)
    for special in {made.convert_ids_to_tokens(ids[0]), made.convert_ids_to_tokens(ids[-1])} & set(
        made.all_special_tokens
    ):
        assert special in shown["input"]
    assert "we saw " in shown["input"] and " today" in shown["input"]
    assert [token for token, _ in shown["tokens"]] == [made.decode([i]) for i in ids]
    assert (
        [tag for _, tag in shown["tokens"] if tag]
        == shown["label"]
        == ["O", "O", "B-X", "O", "O"][: len(shown["label"])]
    )
    tagged = [token.strip().lower() for token, tag in shown["tokens"] if tag == "B-X"]
    assert len(tagged) == 1 and tagged[0].startswith("j")
    line = next(line for line in text(found).splitlines() if line.startswith("  tokens: "))
    assert "/B-X" in line and "\u200b" not in line
    if name == "bert":
        assert shown["words without a label"] == ["\u200b"] and len(shown["label"]) == 4
        assert "  words without a label: ['\\u200b']" in text(found)


@pytest.mark.parametrize("name", [name for name in TOKENIZERS if name != "byt5"])
def test_prompts_targets_and_words_at_the_mask_are_decoded(name: str) -> None:
    made = TOKENIZERS[name]()
    row = {"id": "0", "text": ["we saw\nit"], "target": "John today", "references": ["John today"]}
    task = TaskConfig(
        name="t", kind="causal_generation", text=["a"], metrics=["bleu"], separator=" = ", max_source=40, max_target=20
    )
    data = TaskData([row], [row], [], False, "here", False, "f")
    encoded = encode(data, made, task)
    (shown,) = summary(task, data, encoded, made)["examples"]
    assert shown["input"] == made.decode(encoded.train[0]["input_ids"], clean_up_tokenization_spaces=False)
    labels = [label for label in encoded.train[0]["labels"] if label != -100]
    assert shown["target"] == made.decode(labels, clean_up_tokenization_spaces=False) and shown["target"].endswith(
        "</s>"
    )
    assert "\n" not in _line(shown["input"]).replace("\\n", "")
    if name == "bert":
        return
    row = {"id": "0", "text": ["we saw"], "label": 1}
    word = next(w for w in ("saw", "today", "we") if len(word_ids(made, [w])[0][0]) == 1)
    task = TaskConfig(
        name="t",
        kind="masked_prompt",
        text=["{a} it was {mask}"],
        labels=["no", "yes"],
        verbalizers=["it", word],
        metrics=["accuracy"],
    )
    if len(word_ids(made, ["it"])[0][0]) != 1:
        return
    data = TaskData([row], [row], ["no", "yes"], False, "here", False, "f")
    (shown,) = summary(task, data, encode(data, made, task), made)["examples"]
    assert "<mask>" in shown["input"] and shown["label"] == "yes" and shown["word at the mask"].strip() == word
