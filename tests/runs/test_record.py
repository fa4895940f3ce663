"""A run's identity, and files that are whole or absent."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path
from typing import Any

import pytest

from tests.support.running import resolved, tiny_config
from unipet.calculus.yaml_reader import write_yaml
from unipet.errors import UnipetError
from unipet.runs.record import blank_record, model_label
from unipet.runs.record_files import read_config, read_record, record_files, write_json_atomic, write_jsonl_atomic
from unipet.runs.versions import git_commit


def test_model_label(tmp_path: Path) -> None:
    config = tiny_config(tmp_path)
    assert model_label(config.model) == "model"
    config.model.path = "someone/tiny"
    assert model_label(config.model) == "someone/tiny"
    config.model.name = "tiny"
    assert model_label(config.model) == "tiny"


def test_record_has_every_key_from_the_start(tmp_path: Path) -> None:
    record = blank_record(tiny_config(tmp_path), "tiny_low_rank", "0" * 16).to_dict()
    assert set(record) == {
        *("status", "run_id", "method", "task", "model", "budget", "seed", "score", "metric", "metrics", "params"),
        *("limits", "fitted", "reason", "phase", "identity", "files", "folder", "composition", "flags"),
        *("time", "memory", "insertions", "stopped_by", "error", "versions", "git_commit", "data", "started"),
        *("finished", "resumed", "precision"),
    }
    assert set(record["params"]) == {"base", "trainable", "head", "stored", "merged", "formula", "percent"}
    assert set(record["time"]) == {"total_s", "train_s", "step_ms", "steps", "tokens_per_s", "phases_s"}
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


def test_record_files_are_all_below_in_order(tmp_path: Path) -> None:
    for name in ("b/x", "a", "b/a/deep"):
        (tmp_path / name).mkdir(parents=True)
        write_json_atomic(tmp_path / name / "result.json", {"status": "ok", "run_id": name})
    assert [read_record(path).run_id for path in record_files(tmp_path)] == ["a", "b/a/deep", "b/x"]
    assert record_files(tmp_path / "nowhere") == []


@pytest.mark.parametrize("content", ["", "{", "[]", "{}", '{"status": "ok"}'])
def test_a_corrupt_record_is_named(tmp_path: Path, content: str) -> None:
    (tmp_path / "result.json").write_text(content)
    with pytest.raises(UnipetError, match=re.escape(str(tmp_path / "result.json"))):
        read_record(tmp_path / "result.json")


@pytest.mark.parametrize("content", ["", "[]", "seed: 0", "{", "optim: {nonsense: 1}", "optim: 3"])
def test_a_configuration_that_is_none_is_named(tmp_path: Path, content: str) -> None:
    (tmp_path / "config.yaml").write_text(content)
    with pytest.raises(UnipetError, match=re.escape(str(tmp_path / "config.yaml"))):
        read_config(tmp_path / "config.yaml")


def test_a_configuration_of_an_earlier_version_has_defaults_for_what_it_did_not_know(tmp_path: Path) -> None:
    config = tiny_config(tmp_path)
    content = resolved(config)
    for group, key in (("task", "bleu_tokenizer"), ("task", "drop"), ("budget", "memory_margin")):
        content[group].pop(key)
    content.pop("imports")
    (tmp_path / "config.yaml").write_text(write_yaml(content))
    again = read_config(tmp_path / "config.yaml")
    assert again.task == config.task and again.budget == config.budget and again.imports == []
