"""A run's directory: one result, whole, and until then the earlier one; one process at a time; found from anywhere."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.support.running import LOW_RANK, run_dir, tiny_config, write_model, write_task
from unipet.cli.main import main
from unipet.config import RunConfig
from unipet.errors import UnipetError
from unipet.runs import run_directory
from unipet.runs.record import Record
from unipet.runs.record_files import read_record, record_files
from unipet.runs.run import evaluate, run
from unipet.runs.run_directory import is_whole, locked, settle
from unipet.sweeps import jobs
from unipet.training import evaluation

QUICK = {"budget__max_steps": 2}


@pytest.fixture()
def finished(tmp_path: Path) -> Iterator[tuple[RunConfig, Path]]:
    config = tiny_config(tmp_path, **QUICK)
    assert run(config)["status"] == "ok"
    yield config, run_dir(config)


def contents(directory: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(directory)): path.read_bytes()
        for path in sorted(directory.rglob("*"))
        if path.is_file() and path.name != ".lock"
    }


def record_of(directory: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((directory / "result.json").read_text())
    return found


def failing(error: BaseException) -> Any:
    def score_split(*_: object) -> None:
        raise error

    return score_split


# -- the order of writing --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (RuntimeError("cannot decode"), "failed"),
        (torch.OutOfMemoryError("tried to allocate 9 GiB"), "exceeded"),
        (KeyboardInterrupt(), "interrupted"),
    ],
    ids=["error", "memory", "interrupt"],
)
def test_the_adapter_is_there_before_anything_is_scored(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: BaseException, status: str
) -> None:
    config = tiny_config(tmp_path, **QUICK)
    monkeypatch.setattr(evaluation, "score_split", failing(error))
    if isinstance(error, KeyboardInterrupt):
        with pytest.raises(KeyboardInterrupt):
            run(config)
    else:
        run(config)
    record = record_of(run_dir(config))
    assert (record["status"], record["phase"]) == (status, "evaluation")
    assert (run_dir(config) / "adapter" / "adapter.safetensors").is_file()
    if status == "exceeded":
        assert record["reason"].startswith("evaluation: out of memory")
    monkeypatch.undo()
    assert run(config)["status"] == "ok" and record_of(run_dir(config))["phase"] is None


@pytest.mark.parametrize("error", [RuntimeError("cannot decode"), torch.OutOfMemoryError("9 GiB"), KeyboardInterrupt()])
def test_the_earlier_result_stays_while_a_repetition_fails(
    finished: tuple[RunConfig, Path], monkeypatch: pytest.MonkeyPatch, error: BaseException
) -> None:
    config, directory = finished
    before = contents(directory)
    config.rerun = True
    monkeypatch.setattr(evaluation, "score_split", failing(error))
    if isinstance(error, KeyboardInterrupt):
        with pytest.raises(KeyboardInterrupt):
            run(config)
    else:
        run(config)
    after = contents(directory)
    assert {name: after[name] for name in before} == before
    assert record_of(directory / "attempt")["status"] != "ok"
    assert [read_record(path).status for path in record_files(directory.parent)] == ["ok"]
    monkeypatch.undo()
    assert evaluate(directory)["reproduced"]


def test_a_sweep_says_where_the_failed_repetition_is(
    finished: tuple[RunConfig, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    config, directory = finished
    config.rerun = True
    monkeypatch.setattr(evaluation, "score_split", failing(RuntimeError("cannot decode")))
    assert jobs.train(config).directory == directory / "attempt"
    monkeypatch.undo()
    assert jobs.train(config).directory == directory


def test_a_whole_repetition_takes_its_place(finished: tuple[RunConfig, Path]) -> None:
    config, directory = finished
    before = contents(directory)
    config.rerun = True
    run(config)
    after = contents(directory)
    assert after.keys() == before.keys() and after["result.json"] != before["result.json"]
    assert is_whole(directory, read_record(directory / "result.json"))


@pytest.mark.parametrize("moved", range(6))
def test_an_interrupted_change_of_place_is_completed(
    finished: tuple[RunConfig, Path], monkeypatch: pytest.MonkeyPatch, moved: int
) -> None:
    """Killed after any number of files: the next process finds the new result whole."""
    _, directory = finished
    whole = contents(directory)
    attempt = directory / "attempt"
    shutil.copytree(directory, attempt)
    new = {**record_of(attempt), "seed": 77}
    (attempt / "result.json").write_text(json.dumps(new))
    replace, count = os.replace, 0

    def stops(*args: Any) -> None:
        nonlocal count
        count += 1
        if count > moved:
            raise OSError("killed")
        replace(*args)

    monkeypatch.setattr(run_directory.os, "replace", stops)
    with pytest.raises(OSError, match="killed"):
        settle(directory)
    monkeypatch.undo()
    settle(directory)
    assert record_of(directory) == new and not attempt.exists()
    assert is_whole(directory, Record.from_dict(new)) and contents(directory).keys() == whole.keys()


def test_a_repetition_that_is_not_whole_stays_where_it_is(finished: tuple[RunConfig, Path]) -> None:
    _, directory = finished
    before = contents(directory)
    shutil.copytree(directory, directory / "attempt")
    record = record_of(directory)
    record["files"]["predictions.jsonl"] = "0" * 64  # of what it would have written
    (directory / "attempt" / "result.json").write_text(json.dumps(record))
    settle(directory)
    after = contents(directory)
    assert {name: after[name] for name in before} == before and (directory / "attempt").is_dir()


# -- finished means whole --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name", ["adapter/adapter.safetensors", "adapter/adapter.json", "predictions.jsonl", "metrics.jsonl", "config.yaml"]
)
@pytest.mark.parametrize("harm", ["deleted", "changed"])
def test_a_run_that_lacks_a_file_is_not_finished(
    finished: tuple[RunConfig, Path], name: str, harm: str, capsys: pytest.CaptureFixture[str]
) -> None:
    config, directory = finished
    assert run(config) and "finished before" in capsys.readouterr().out
    path = directory / name
    path.unlink() if harm == "deleted" else path.write_bytes(path.read_bytes()[:-1] + b"?")
    record = run(config)
    assert "finished before" not in capsys.readouterr().out
    assert record["status"] == "ok" and is_whole(directory, Record.from_dict(record))


# -- one process at a time -------------------------------------------------------------------------------------------


HOLDER = """
import sys, time
from pathlib import Path
from unipet.runs.run_directory import locked
with locked(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(600)
"""


def test_two_processes_never_do_one_run(tmp_path: Path) -> None:
    config = tiny_config(tmp_path, **QUICK)
    directory = run_dir(config)
    with subprocess.Popen([sys.executable, "-c", HOLDER, str(directory)], stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout is not None and holder.stdout.readline() == "held\n"
        with pytest.raises(UnipetError, match=rf"another process is working on this run \(process {holder.pid} on "):
            run(config)
        assert not (directory / "result.json").exists()
        holder.kill()  # whatever ends the process gives the run free
    assert run(config)["status"] == "ok"


def test_a_finished_run_is_read_while_it_is_repeated_elsewhere(finished: tuple[RunConfig, Path]) -> None:
    config, directory = finished
    with locked(directory):
        assert run(config)["status"] == "ok"


# -- from anywhere ---------------------------------------------------------------------------------------------------


@pytest.fixture()
def study(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A study in a folder of its own, all of its paths relative to it: `study/runs`, `study/data`, `study/model`."""
    root = tmp_path / "study"
    write_model(root / "model")
    write_task(root / "data")
    monkeypatch.chdir(root)
    config = tiny_config(root, LOW_RANK, **QUICK)
    config.task.data_dir, config.model.path, config.runs_dir = "data", "./model", "runs"
    run(config)
    return root


def only_run(root: Path) -> Path:
    return next(path.parent for path in root.rglob("result.json"))


def test_relative_paths_begin_where_the_run_was_started(study: Path, tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.chdir(tmp_path)
    assert evaluate(only_run(study))["reproduced"]
    moved = tmp_path / "elsewhere" / "study"
    moved.parent.mkdir()
    study.rename(moved)
    assert evaluate(only_run(moved))["reproduced"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["elsewhere"], "nothing was written where we stand"


def test_merge_and_export_need_the_run_and_its_base_model_alone(study: Path, tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.chdir(tmp_path)
    shutil.rmtree(study / "data")
    directory = only_run(study)
    assert main(["merge", str(directory), "merged"]) == 0
    assert main(["export", str(directory), "exported", "--to", "peft"]) == 0
    assert (tmp_path / "merged" / "model.safetensors").is_file()
    with pytest.raises(UnipetError, match=r"data_dir"):
        evaluate(directory)


@pytest.mark.parametrize(
    "command", [["evaluate"], ["merge", "OUT"], ["export", "OUT", "--to", "peft"]], ids=lambda one: one[0]
)
@pytest.mark.parametrize("name", ["tokenizer.json", "config.json"])
def test_a_run_is_used_with_its_own_tokenizer_and_settings_or_not_at_all(
    study: Path, name: str, command: list[str], monkeypatch: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    directory = only_run(study)
    path = study / "model" / name
    before = path.read_text()
    changed = json.loads(before)
    if name == "config.json":
        changed["layer_norm_eps"] = 0.1
    else:
        words = changed["model"]["vocab"]
        words["w1"], words["w11"] = words["w11"], words["w1"]
    path.write_text(json.dumps(changed))
    monkeypatch.chdir(study)
    asked = [command[0], str(directory), *command[1:]]
    assert main(asked) == 2
    assert re.search(rf"not the base model of this run: {name} has changed", capsys.readouterr().err)
    assert not (study / "OUT").exists()
    path.write_text(before)
    (path.parent / "notes.json").write_text("{}")  # a file that the run did not have
    assert main(asked) == 0


def test_no_path_of_the_machine_is_written(study: Path) -> None:
    for path in only_run(study).rglob("*"):
        if path.is_file() and path.name != ".lock":
            assert str(study).encode() not in path.read_bytes(), path.name
