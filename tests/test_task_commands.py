"""`unipet describe task=...` and `unipet submit`: what a user sees of a task before and after training."""

from __future__ import annotations

import json
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from file_room import parquet_of
from run_room import LOW_RANK, write_model
from task_room import config_of, task_of, tokenizer, write_arch

from unipet.cli import main
from unipet.errors import UnipetError
from unipet.record import run_dir
from unipet.run import run
from unipet.submission import submit
from unipet.tasks import encode, load_task
from unipet.tasks.summary import bars, histogram, summary, text


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
