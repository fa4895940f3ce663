"""Several evaluation sets: one is said to be the score, all are recorded, and each is part of the run's identity."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.support.planted import planted
from tests.support.running import LOW_RANK, run_dir, run_id, tiny_config, write_task
from unipet.config import RunConfig, TaskConfig
from unipet.errors import UnipetError
from unipet.report.comparing import compare
from unipet.runs.comparable import comparable
from unipet.runs.record_files import read_record
from unipet.runs.run import evaluate, prepare, run
from unipet.sweeps.closing import summary
from unipet.tasks import check_task, load_task

SETS = {"task__evaluation_sets": {"easy": "validation", "hard": "other"}, "task__reported_set": "easy"}


def config_in(root: Path, method: dict[str, Any] = LOW_RANK, **changes: Any) -> RunConfig:
    """A tiny run whose data have another split: half of the validation rows, with the other label."""
    config: RunConfig = tiny_config(root, method, **changes)
    other = root / "data" / "other.jsonl"
    if not other.exists():
        rows = [json.loads(line) for line in (root / "data" / "validation.jsonl").read_text().splitlines()][:10]
        other.write_text("".join(json.dumps({**row, "label": 1 - row["label"]}) + "\n" for row in rows))
    return config


def test_the_reported_set_is_the_score_and_every_set_is_recorded(tmp_path: Path) -> None:
    alone = run(config_in(tmp_path))
    config = config_in(tmp_path, **SETS)
    record = run(config)
    assert record["status"] == "ok", record["error"]
    assert record["score"] == alone["score"] and "evaluation_sets" not in alone
    easy, hard = record["evaluation_sets"]["easy"], record["evaluation_sets"]["hard"]
    assert (easy["split"], easy["examples"], easy["reported"], easy["score"]) == (
        "validation",
        20,
        True,
        alone["score"],
    )
    assert (hard["split"], hard["examples"], hard["reported"]) == ("other", 10, False)
    directory = run_dir(config)
    lines = {
        name: [json.loads(line) for line in (directory / each["predictions"]).read_text().splitlines()]
        for name, each in record["evaluation_sets"].items()
    }
    assert hard["score"] == sum(line["score"] for line in lines["hard"]) / 10
    wrong = {line["id"]: line["prediction"] for line in lines["easy"]}
    assert all(line["prediction"] == wrong[line["id"]] and line["label"] in (0, 1) for line in lines["hard"])
    assert hard["predictions"] in record["files"], "the record vouches for it"
    assert record["data"]["splits"] == {
        "train": "train", "evaluation": "validation", "evaluation.hard": "other",
    }  # fmt: skip
    told = summary(read_record(directory / "result.json"), directory)
    assert "(reported)" in told and "hard" in told


def test_the_other_choice_reports_the_other_score_and_is_another_run(tmp_path: Path) -> None:
    config = config_in(tmp_path, **SETS)
    turned = config_in(tmp_path, **{**SETS, "task__reported_set": "hard"})
    first, second = run(config), run(turned)
    assert second["score"] == first["evaluation_sets"]["hard"]["score"]
    assert second["evaluation_sets"]["easy"]["score"] == first["score"]
    assert first["run_id"] != second["run_id"]


def test_a_changed_row_of_any_set_is_another_run(tmp_path: Path) -> None:
    config = config_in(tmp_path, **SETS)
    before, alone = run_id(config), run_id(config_in(tmp_path))
    other = tmp_path / "data" / "other.jsonl"
    other.write_text(other.read_text().replace('"w1', '"w2', 1).replace(" w1", " w2", 1))
    assert run_id(config) != before and run_id(config_in(tmp_path)) == alone


def test_all_sets_are_evaluated_again(tmp_path: Path) -> None:
    config = config_in(tmp_path, **SETS)
    record = run(config)
    again = evaluate(run_dir(config))
    assert again["reproduced"]
    assert {name: each["score"] for name, each in again["evaluation_sets"].items()} == {
        name: each["score"] for name, each in record["evaluation_sets"].items()
    }
    path = run_dir(config) / "result.json"
    content = json.loads(path.read_text())
    content["evaluation_sets"]["hard"]["score"] += 0.1
    path.write_text(json.dumps(content))
    assert not evaluate(run_dir(config))["reproduced"]


def test_a_trial_is_scored_on_none_of_them(tmp_path: Path) -> None:
    config = config_in(tmp_path, task__selection="train_holdout", task__selection_size=8, **SETS)
    record = run(replace(config, trial=replace(config.trial, scored_on="selection", role="trial")))
    assert record["status"] == "ok", record["error"]
    assert "evaluation_sets" not in record and not list(run_dir(config).parent.glob("*/predictions.hard.jsonl"))


def test_a_repeated_run_replaces_the_files_of_all_sets(tmp_path: Path) -> None:
    config = config_in(tmp_path, **SETS)
    run(config)
    file = run_dir(config) / "predictions.hard.jsonl"
    kept = file.read_bytes()
    file.write_text("spoiled\n")  # so the run is not whole
    assert run(config)["status"] == "ok" and file.read_bytes() == kept


def of(**changes: Any) -> TaskConfig:
    values = {"name": "t", "text": ["s"], "labels": ["a", "b"], "metrics": ["accuracy"], "data_dir": "d"}
    return TaskConfig(**{**values, "evaluation_sets": {"m": "one", "mm": "two"}, "reported_set": "m", **changes})


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"reported_set": None}, "not which of them is the reported score. Say it: task.reported_set=m"),
        ({"reported_set": "mmm"}, "Did you mean 'mm'"),
        ({"evaluation_sets": {}}, "given without sets"),
        ({"evaluation_sets": {"m": "one", "mm": "one"}}, "the split 'one' is two sets"),
        ({"evaluation_sets": {"m": "one", "M": "two"}}, "upper and lower case"),
        ({"evaluation_sets": {"m": "one", "../mm": "two"}}, "task.evaluation_sets"),
        ({"evaluation_sets": {"m": "one", "mm": "../two"}}, "task.evaluation_sets.mm"),
        ({"evaluation_split": "test"}, "Leave task.evaluation_split out"),
        ({"selection": "validation", "selection_split": "two"}, "selected by a score that is reported"),
        ({"selection": "validation", "selection_split": "one"}, "selected by a score that is reported"),
    ],
)
def test_sets_that_cannot_be_meant(changes: dict[str, Any], said: str) -> None:
    check_task(of())
    check_task(of(evaluation_split="one"))
    with pytest.raises(UnipetError) as error:
        check_task(of(**changes))
    assert said in str(error.value)


def test_a_missing_set_names_its_file(tmp_path: Path) -> None:
    write_task(tmp_path / "data")
    with pytest.raises(UnipetError, match=r"no file two\.jsonl"):
        load_task(
            of(text=["sentence"], data_dir=str(tmp_path / "data"), evaluation_sets={"m": "validation", "mm": "two"})
        )


def test_runs_on_other_sets_are_not_ranked(tmp_path: Path) -> None:
    entries = []
    for name, sets in (("a", {"m": "one", "mm": "two"}), ("b", {"m": "one"})):
        for seed in (0, 1):
            config = {"name": "t", "evaluation_sets": sets, "reported_set": "m"}
            entry = planted(0.5, name, seed, config=config)
            entry.record.comparable = comparable(entry.config, entry.record)
            entries.append(entry)
    (group,) = compare(entries)
    assert not group.ranked and "splits" in {each.part for each in group.diff}


def test_each_set_is_cut_by_itself(tmp_path: Path) -> None:
    data = prepare(config_in(tmp_path, task__max_evaluation=7, **SETS)).data
    assert (len(data.evaluation), len(data.others["hard"])) == (7, 7)
    shutil.rmtree(tmp_path / "data")
