"""Results of peft's comparison as runs: what is read, how they are marked, and that no report mixes them with own runs."""

from __future__ import annotations

import copy
import csv
import io
import json
from pathlib import Path
from typing import Any

import pytest

from tests.support.reports import write_run
from unipet.cli.main import main
from unipet.report.aggregate import aggregate
from unipet.report.collect import collect

#: A result as the comparison writes it, with one of its twenty intermediate entries.
RESULT: dict[str, Any] = {
    "run_info": {
        "created_at": "2025-06-19T19:15:35+00:00",
        "total_time": 1993.5,
        "experiment_name": "lora/llama-3.2-3B-rank32",
        "peft_branch": "main",
        "train_config": {
            "model_id": "meta-llama/Llama-3.2-3B",
            "dtype": "bfloat16",
            "max_seq_length": 768,
            "batch_size": 4,
            "max_steps": 5000,
            "seed": 0,
            "grad_norm_clip": 1.0,
            "optimizer_type": "AdamW",
            "optimizer_kwargs": {"lr": 0.0001, "weight_decay": 0.1},
            "lr_scheduler": "cosine",
        },
        "peft_config": {"peft_type": "LORA", "r": 32, "lora_alpha": 64},
        "error_msg": "",
    },
    "train_info": {
        "accelerator_memory_max": 22273851392,
        "train_time": 1796.2,
        "num_trainable_params": 9175040,
        "num_total_params": 3221924864,
        "status": "success",
        "metrics": [
            {"step": 250, "valid accuracy": 0.34, "train loss": 0.98},
            {"step": 5000, "test accuracy": 0.48218347232752085, "forgetting": 0.05, "train loss": 0.6},
        ],
    },
    "meta_info": {
        "dataset_info": {"metamath": {"sha": "aa4f"}, "gsm8k": {"sha": "e53f"}},
        "package_info": {"transformers-version": "4.52.4", "torch-version": "2.7.1+cu126"},
        "system_info": {"accelerator": "NVIDIA L40S"},
    },
}


def changed(**changes: Any) -> dict[str, Any]:
    """A result with other values: `run_info__train_config__seed=1`."""
    made = copy.deepcopy(RESULT)
    for path, value in changes.items():
        *keys, last = path.split("__")
        at = made
        for key in keys:
            at = at[key]
        at[last] = value
    return made


@pytest.fixture()
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "results").mkdir()
    return tmp_path


def write(here: Path, name: str, content: Any) -> None:
    (here / "results" / f"{name}.json").write_text(json.dumps(content))


def imported(here: Path) -> dict[str, Any]:
    assert main(["import-results", "results", "--from", "peft"]) == 0
    return {entry.record.method or "": entry for entry in collect(here / "imported" / "peft")}


def test_a_result_is_a_run_with_what_was_measured(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write(here, "lora--rank32", RESULT)
    write(here, "adapter_config", {"peft_type": "LORA"})
    entry = imported(here)["peft:lora"]
    assert "imported 1 runs to imported/peft; 1 other JSON files were passed over" in capsys.readouterr().out
    record = entry.record
    assert (record.imported, record.status, record.task, record.model) == (
        "peft",
        "ok",
        "metamathqa",
        "meta-llama/Llama-3.2-3B",
    )
    assert (record.score, record.metric, record.seed) == (0.48218347232752085, "accuracy", 0)
    assert (record.params.trainable, record.params.base) == (9175040, 3221924864 - 9175040)
    assert record.params.percent == pytest.approx(0.2856, abs=1e-4) and record.time.steps == 5000
    assert record.memory.peak_gib == pytest.approx(20.74, abs=0.01) and record.time.train_s == 1796.2
    assert record.versions.machine.device == "NVIDIA L40S" and record.versions.unipet is None
    assert record.metrics == {"accuracy": 0.48218347232752085, "forgetting": 0.05}
    assert entry.setting("optim.lr") == 0.0001 and entry.setting("budget.max_steps") == 5000
    assert entry.directory is not None
    assert json.loads((entry.directory / "imported.json").read_text()) == RESULT, "the file is kept whole"


def test_older_and_full_and_failed_results_are_read(here: Path) -> None:
    older = changed(run_info__experiment_name="ia3/x")
    older["train_info"]["cuda_memory_max"] = older["train_info"].pop("accelerator_memory_max")
    write(here, "ia3", older)
    write(
        here,
        "full",
        changed(run_info__experiment_name="full-finetuning/x", train_info__num_trainable_params=3221924864),
    )
    write(
        here,
        "bad",
        changed(run_info__experiment_name="bad/x", train_info__status="failed", run_info__error_msg="no memory"),
    )
    runs = imported(here)
    assert runs["peft:ia3"].record.memory.peak_gib == pytest.approx(20.74, abs=0.01)
    assert runs["peft:full-finetuning"].record.params.percent == 100.0
    assert runs["peft:bad"].record.status == "failed" and runs["peft:bad"].record.error.message == "no memory"


def test_other_data_have_their_own_name_and_metric(here: Path) -> None:
    images = changed(
        meta_info__dataset_info={"sha": "37df", "created_at": "2026-03-09"}, train_info__metrics=[{"test dino": 0.7}]
    )
    images["run_info"]["train_config"]["dataset_id"] = "somebody/cats"
    write(here, "a", images)
    record = imported(here)["peft:lora"].record
    assert (record.task, record.metric, record.score) == ("cats", "dino", 0.7)


def test_again_is_the_same_and_other_rates_are_other_rows(here: Path) -> None:
    write(here, "a", RESULT)
    write(
        here,
        "b",
        changed(run_info__train_config__optimizer_kwargs={"lr": 0.001}, run_info__experiment_name="lora/fast"),
    )
    imported(here)
    before = sorted(path for path in (here / "imported").rglob("*"))
    imported(here)
    assert sorted(path for path in (here / "imported").rglob("*")) == before
    rows = aggregate(collect(here / "imported"))
    assert len(rows) == 2 and len({row.label for row in rows}) == 2 and {row.method for row in rows} == {"peft:lora"}


def test_a_report_shows_both_and_ranks_none_against_the_other(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write(here, "a", RESULT)
    imported(here)
    own = {"task": "metamathqa", "record": {"run_id": "own", "model": "meta-llama/Llama-3.2-3B"}}
    write_run(here / "imported" / "own", "lora", 0, 0.5, **own)
    capsys.readouterr()
    assert main(["report", "imported", "--rows", "rows.csv"]) == 0
    out = capsys.readouterr().out
    rows = list(csv.DictReader(io.StringIO((here / "rows.csv").read_text())))
    assert {row["method"] for row in rows} == {"peft:lora", "lora"}
    assert "best mean" not in out


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ({}, "no result of peft among its 1 JSON files"),
        ({name: {} for name in RESULT}, "a.json: a result of peft that lacks a part (KeyError"),
        (changed(train_info__num_trainable_params="many"), "a.json: a result of peft that lacks a part (ValueError"),
    ],
)
def test_a_mistake_is_one_error_and_writes_nothing(
    here: Path, capsys: pytest.CaptureFixture[str], content: Any, says: str
) -> None:
    write(here, "a", content)
    assert main(["import-results", "results", "--from", "peft"]) == 2
    err = capsys.readouterr().err
    assert says in err and "Traceback" not in err and not (here / "imported").exists()


def test_a_folder_that_is_not_there(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["import-results", "nowhere", "--from", "peft"]) == 2
    assert "nowhere: no such folder" in capsys.readouterr().err
