"""A run's identity, and files that are whole or absent."""

from __future__ import annotations

import copy
import json
import os
import re
from pathlib import Path
from typing import Any

import pytest
from run_room import LOW_RANK, tiny_config, write_model

from unipet.errors import UnipetError
from unipet.library import load_method
from unipet.record import (
    blank_record,
    git_commit,
    model_label,
    read_config,
    read_records,
    run_dir,
    run_id,
    write_json_atomic,
    write_jsonl_atomic,
)


def test_identity_is_sixteen_hex_digits_and_names_the_directory(tmp_path: Path) -> None:
    config = tiny_config(tmp_path)
    assert re.fullmatch(r"[0-9a-f]{16}", run_id(config))
    assert run_dir(config) == tmp_path / "runs" / f"tiny_low_rank-tiny-s0-{run_id(config)[:8]}"


@pytest.mark.parametrize(
    "change",
    [
        {"runs_dir": "elsewhere"},
        {"rerun": True},
        {"tracking__name": "wandb"},
        {"tracking__group": "sweep"},
        {"task__data_dir": "elsewhere"},
    ],
)
def test_where_and_how_a_run_is_watched_is_not_its_identity(tmp_path: Path, change: dict[str, Any]) -> None:
    assert run_id(tiny_config(tmp_path, **change)) == run_id(tiny_config(tmp_path))


@pytest.mark.parametrize(
    "change",
    [
        {"optim__lr": 0.02},
        {"seed": 1},
        {"precision": "bf16"},
        {"budget__max_steps": 5},
        {"task__max_train": 8},
        {"task__name": "other"},
        {"model__revision": "main"},
    ],
)
def test_what_decides_the_result_is_its_identity(tmp_path: Path, change: dict[str, Any]) -> None:
    assert run_id(tiny_config(tmp_path, **change)) != run_id(tiny_config(tmp_path))


def test_method_options_count_and_spelling_does_not(tmp_path: Path) -> None:
    short = tiny_config(tmp_path)
    spelled = tiny_config(tmp_path, load_method(LOW_RANK).to_dict())
    changed = copy.deepcopy(LOW_RANK)
    changed["insertions"]["attention"]["function"]["size"] = 5
    assert run_id(short) == run_id(spelled)
    assert run_id(short) != run_id(tiny_config(tmp_path, changed))


def test_order_of_insertions_counts(tmp_path: Path) -> None:
    insertion = LOW_RANK["insertions"]["attention"]
    one = {"name": "two", "insertions": {"a": insertion, "b": insertion}}
    two = {"name": "two", "insertions": {"b": insertion, "a": insertion}}
    assert run_id(tiny_config(tmp_path, one)) != run_id(tiny_config(tmp_path, two))


def test_a_local_base_model_counts_by_content_not_by_path(tmp_path: Path) -> None:
    config = tiny_config(tmp_path)
    moved = tiny_config(tmp_path, model__path=str(write_model(tmp_path / "moved")))
    assert run_id(moved) == run_id(config)
    content = json.loads((tmp_path / "moved" / "config.json").read_text())
    (tmp_path / "moved" / "config.json").write_text(json.dumps({**content, "num_hidden_layers": 1}))
    assert run_id(moved) != run_id(config)


def test_model_label(tmp_path: Path) -> None:
    config = tiny_config(tmp_path)
    assert model_label(config.model) == "model"
    config.model.path = "someone/tiny"
    assert model_label(config.model) == "someone/tiny"
    config.model.name = "tiny"
    assert model_label(config.model) == "tiny"


def test_record_has_every_key_from_the_start(tmp_path: Path) -> None:
    record = blank_record(tiny_config(tmp_path), "tiny_low_rank", "0" * 16)
    assert set(record) == {
        *("status", "run_id", "method", "task", "model", "budget", "seed", "score", "metric", "metrics", "params"),
        *("limits", "composition", "fitted", "flags", "reason"),
        *("time", "memory", "insertions", "stopped_by", "error", "versions", "git_commit", "data", "started"),
        "finished",
    }
    assert set(record["params"]) == {"base", "trainable", "head", "stored", "merged", "formula", "percent"}
    assert set(record["time"]) == {"total_s", "train_s", "step_ms", "steps", "tokens_per_s"}
    assert set(record["memory"]) == {"peak_gib", "predicted_gib", "measured_by", "allocated_gib", "context_gib"}
    assert set(record["data"]) == {"source", "fingerprint", "train", "evaluation"}
    assert set(record["versions"]) == {"python", "torch", "transformers", "hydra", "unipet", "machine"}
    assert record["status"] == "running"
    json.dumps(record, allow_nan=False)


def test_git_commit_is_a_commit_or_nothing() -> None:
    commit = git_commit()
    assert commit is None or re.fullmatch(r"[0-9a-f]{40}", commit)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), object()])
def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path: Path, value: Any) -> None:
    path = tmp_path / "result.json"
    write_json_atomic(path, {"a": 1})
    with pytest.raises((ValueError, TypeError)):
        write_json_atomic(path, {"a": value})
    with pytest.raises((ValueError, TypeError)):
        write_jsonl_atomic(path, [{"a": 1}, {"a": value}])
    assert json.loads(path.read_text()) == {"a": 1}
    assert list(tmp_path.iterdir()) == [path]


def test_a_failed_replace_leaves_no_temporary_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise OSError("disk full")

    monkeypatch.setattr(os, "replace", refuse)
    with pytest.raises(OSError, match="disk full"):
        write_json_atomic(tmp_path / "result.json", {"a": 1})
    assert list(tmp_path.iterdir()) == []


def test_read_records_finds_all_below_in_order(tmp_path: Path) -> None:
    for name in ("b/x", "a", "b/a/deep"):
        (tmp_path / name).mkdir(parents=True)
        write_json_atomic(tmp_path / name / "result.json", {"status": "ok", "run_id": name})
    assert [record["run_id"] for record in read_records(tmp_path)] == ["a", "b/a/deep", "b/x"]
    assert read_records(tmp_path / "nowhere") == []


@pytest.mark.parametrize("content", ["", "{", "[]", "{}", '{"status": "ok"}'])
def test_a_corrupt_record_is_named(tmp_path: Path, content: str) -> None:
    (tmp_path / "result.json").write_text(content)
    with pytest.raises(UnipetError, match=re.escape(str(tmp_path / "result.json"))):
        read_records(tmp_path)


@pytest.mark.parametrize("content", ["", "[]", "seed: 0", "{", "optim: {nonsense: 1}", "optim: 3"])
def test_a_configuration_that_is_none_is_named(tmp_path: Path, content: str) -> None:
    (tmp_path / "config.yaml").write_text(content)
    with pytest.raises(UnipetError, match=re.escape(str(tmp_path / "config.yaml"))):
        read_config(tmp_path / "config.yaml")
