"""A run's identity: equal contents are one run wherever they lie, and whatever can change a result is another run."""

from __future__ import annotations

import copy
import json
import os
import re
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file, save_file

from tests.support.running import LOW_RANK, TINY_TASK, resolved, run_dir, run_id, tiny_config, write_task
from unipet.calculus.library import load_method
from unipet.config import RunConfig
from unipet.runs import identity
from unipet.runs.checksums import checksum
from unipet.runs.run import prepare, run


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
        {"optim__name": "another name of the same"},
        {"budget__name": "another name of the same"},
        {"model__revision": "main"},
        {"task__max_train": 10_000},
    ],
)
def test_what_computes_the_same_is_the_same_run(tmp_path: Path, change: dict[str, Any]) -> None:
    assert run_id(tiny_config(tmp_path, **change)) == run_id(tiny_config(tmp_path))


@pytest.mark.parametrize(
    "change",
    [
        {"optim__lr": 0.02},
        {"seed": 1},
        {"precision": "bf16"},
        {"budget__max_steps": 5},
        {"task__max_train": 8},
        {"task__max_length": 8},
        {"task__name": "other"},
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


def test_the_numerics_of_the_package_count(tmp_path: Path) -> None:
    config = tiny_config(tmp_path)
    later = replace(prepare(config).content, numerics=identity.NUMERICS + 1)
    assert identity.run_id(resolved(config), later) != run_id(config)


# -- the base model --------------------------------------------------------------------------------------------------


def one_weight(model: Path) -> None:
    """One value among all is another one: same names, same shapes, same size of the file."""
    tensors = load_file(model / "model.safetensors")
    name = next(name for name in sorted(tensors) if name.endswith("query.weight"))
    tensors[name][3, 5] += 1e-3
    save_file(tensors, model / "model.safetensors", metadata={"format": "pt"})


def one_setting(model: Path) -> None:
    content = json.loads((model / "config.json").read_text())
    (model / "config.json").write_text(json.dumps({**content, "layer_norm_eps": 0.1}))


def two_words(model: Path) -> None:
    """The vocabulary with two words exchanged: another tokenizer of the same size."""
    path = model / "tokenizer.json"
    content = json.loads(path.read_text())
    vocabulary = content["model"]["vocab"]
    vocabulary["w1"], vocabulary["w2"] = vocabulary["w2"], vocabulary["w1"]
    path.write_text(json.dumps(content))


def test_a_base_model_counts_by_content_not_by_place(tmp_path: Path) -> None:
    config = tiny_config(tmp_path)
    before = run_id(config)
    shutil.copytree(tmp_path / "model", tmp_path / "moved")
    assert run_id(tiny_config(tmp_path, model__path=str(tmp_path / "moved"))) == before


@pytest.mark.parametrize("change", [one_weight, one_setting, two_words])
def test_what_is_replaced_in_place_is_another_base_model(tmp_path: Path, change: Any) -> None:
    config = tiny_config(tmp_path)
    before = run_id(config)
    times = {path: path.stat() for path in (tmp_path / "model").iterdir()}
    change(tmp_path / "model")
    for path, stat in times.items():  # as `cp -p` or rsync would leave them
        os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    assert run_id(config) != before


def test_a_large_file_is_read_again_after_a_change_and_not_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from unipet.runs import checksums

    read: list[Path] = []
    whole = checksums._read
    monkeypatch.setattr(checksums, "_read", lambda path: read.append(path) or whole(path))
    monkeypatch.setattr(checksums, "_SMALL", 0)
    path, kept = tmp_path / "large", tmp_path / "kept"
    path.write_bytes(b"one")
    first = checksum(path, kept)
    assert checksum(path, kept) == first and len(read) == 1
    checksums._KNOWN.clear()  # another process
    assert checksum(path, kept) == first and len(read) == 1
    stat = path.stat()
    path.write_bytes(b"two")
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    assert checksum(path, kept) != first and len(read) == 2


# -- the data --------------------------------------------------------------------------------------------------------


def test_data_count_by_content_not_by_place(tmp_path: Path) -> None:
    config = tiny_config(tmp_path)
    shutil.copytree(tmp_path / "data", tmp_path / "copy")
    assert run_id(tiny_config(tmp_path, task__data_dir=str(tmp_path / "copy"))) == run_id(config)
    other = write_task(tmp_path / "other", train=40)
    assert run_id(tiny_config(tmp_path, task__data_dir=str(other))) != run_id(config)


def test_two_data_sets_never_share_a_directory(tmp_path: Path) -> None:
    first = tiny_config(tmp_path, budget__max_steps=2)
    second = tiny_config(tmp_path, budget__max_steps=2, task__data_dir=str(write_task(tmp_path / "other", train=40)))
    scores = [run(config)["run_id"] for config in (first, second)]
    records = [json.loads((run_dir(config) / "result.json").read_text()) for config in (first, second)]
    assert [record["run_id"] for record in records] == scores and len(set(scores)) == 2
    assert [record["data"]["train"] for record in records] == [48, 40]


def test_two_runs_whose_identities_begin_alike_do_not_share_a_directory(tmp_path: Path) -> None:
    config = tiny_config(tmp_path)
    short = run_dir(config)
    short.mkdir(parents=True)
    (short / "result.json").write_text(json.dumps({"status": "ok", "run_id": "another"}))
    assert prepare(config).directory == short.with_name(short.name.removesuffix(run_id(config)[:8]) + run_id(config))
    (short / "result.json").write_text(json.dumps({"status": "ok", "run_id": run_id(config)}))
    assert prepare(config).directory == short


def test_the_record_says_what_its_identity_covers(tmp_path: Path) -> None:
    config = tiny_config(tmp_path, budget__max_steps=1)
    record = run(config)
    said = record["identity"]
    assert said["data"] == record["data"]["fingerprint"] and said["numerics"] == identity.NUMERICS
    assert said["base_model"]["model.safetensors"] == checksum(tmp_path / "model" / "model.safetensors")
    assert {"config.json", "tokenizer.json"} <= said["base_model"].keys()


def test_a_record_of_an_earlier_version_is_never_reused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """It does not say which base model it is of, and lists no files."""
    config = tiny_config(tmp_path, budget__max_steps=1)
    run(config)
    path = run_dir(config) / "result.json"
    record = json.loads(path.read_text())
    old = {key: value for key, value in record.items() if key not in ("identity", "files", "phase", "folder")}
    path.write_text(json.dumps({**old, "score": 2.0}))
    capsys.readouterr()
    assert run(config)["score"] == record["score"]
    assert "finished before" not in capsys.readouterr().out


def test_equal_tasks_spelled_differently_are_one_run(tmp_path: Path) -> None:
    config = tiny_config(tmp_path)
    assert TINY_TASK["labels"] == config.task.labels
    again: RunConfig = copy.deepcopy(config)
    again.task.data_dir = os.path.relpath(str(config.task.data_dir))
    again.model.path = os.path.relpath(config.model.path)
    assert run_id(again) == run_id(config)
