"""`unipet train resume=RUN`, and a run that a signal ends, from the command line."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from tests.support.running import TINY_TASK, write_task, write_world
from unipet.cli.main import main
from unipet.report.aggregate import unscored
from unipet.report.collect import collect

METHOD = {
    "name": "mine",
    "insertions": {"q": {"function": {"name": "low_rank", "size": 2}, "position": {"site": "attn.q"}}},
}


@pytest.fixture()
def interrupted(tmp_path: Path) -> Path:
    """A run that SIGTERM ended, begun in the folder `study` with relative paths."""
    write_world(tmp_path / "study", {"task/tiny": {**TINY_TASK, "selection": "none"}, "method/mine": METHOD})
    command = [
        sys.executable,
        "-m",
        "unipet",
        "train",
        "--config-dir=mine",
        "method=mine",
        "task=tiny",
        "model=./model",
    ]
    command += ["task.data_dir=data", "optim.batch_size=8", "optim.epochs=100"]
    process = subprocess.Popen(command, cwd=tmp_path / "study", stderr=subprocess.PIPE, text=True)
    until = time.monotonic() + 120
    while not any(path.stat().st_size for path in tmp_path.glob("study/runs/*/metrics.jsonl")):
        assert process.poll() is None and time.monotonic() < until, process.communicate()[1]
        time.sleep(0.02)
    process.send_signal(signal.SIGTERM)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 143, said
    (directory,) = tmp_path.glob("study/runs/mine-*")
    assert f"to go on: unipet train resume=runs/{directory.name}" in said
    return directory


def call(capsys: pytest.CaptureFixture[str], *argv: str) -> tuple[int, str, str]:
    capsys.readouterr()
    code = main(list(argv))
    return code, *capsys.readouterr()


def record_in(directory: Path) -> Any:
    return json.loads((directory / "result.json").read_text())


def test_a_run_goes_on_from_another_folder(
    interrupted: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    before, record = (interrupted / "config.yaml").read_bytes(), record_in(interrupted)
    assert record["status"] == "interrupted"
    (missing,) = unscored(collect(Path("study/runs")))
    assert missing.status == "interrupted"
    assert missing.error.endswith(f"; to go on: unipet train resume=study/runs/{interrupted.name}")

    given = f"resume=study/runs/{interrupted.name}"
    code, out, err = call(capsys, "train", given, "checkpoint.every=50 steps")
    step = int(record["reason"].split("after step ")[1].split()[0])
    assert code == 0 and f"resumed    once, after step {step}\n" in out, err
    assert f"directory  study/runs/{interrupted.name}\n" in out
    done = record_in(interrupted)
    assert (done["status"], done["resumed"], done["run_id"]) == ("ok", [step], record["run_id"])
    assert done["folder"] == record["folder"] == "../.."
    assert (interrupted / "config.yaml").read_bytes() == before.replace(b"every: 2 minutes", b"every: 50 steps")
    assert {path.name for path in interrupted.iterdir()} == {
        *("adapter", "config.yaml", "metrics.jsonl", "predictions.jsonl", "result.json", ".lock"),
        *(["libraries.log"] if (interrupted / "libraries.log").exists() else []),
    }
    stamp = (interrupted / "result.json").stat().st_mtime_ns
    code, out, _ = call(capsys, "train", given)
    assert code == 0 and "finished before, not run again" in out
    assert (interrupted / "result.json").stat().st_mtime_ns == stamp

    monkeypatch.chdir(tmp_path / "study")  # the command that began it finds it finished, too
    code, out, _ = call(
        capsys,
        *("train", "--config-dir=mine", "method=mine", "task=tiny", "model=./model"),
        *("task.data_dir=data", "optim.batch_size=8", "optim.epochs=100"),
    )
    assert code == 0 and "finished before, not run again" in out


def test_mistakes(
    interrupted: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    run = f"resume={os.path.relpath(interrupted)}"
    for argv, words in [
        (
            [run, "optim.lr=1"],
            "optim.lr=1: resume=RUN goes on with a run exactly as it began; beside it only tracking, ",
        ),
        ([run, "seed=1"], "seed=1: resume=RUN"),
        ([run, "-m"], "goes on with one run. Leave out -m"),
        ([run, run], "every further resume="),
        ([run, "checkpoint.every=often"], "checkpoint.every: 'often' given; allowed: a number and its unit"),
        ([run, "tracking.name=wand"], "tracking.name: unknown 'wand'"),
        (["resume=study/data"], "resume=study/data: no result.json there, so it is not a run's directory"),
        (["resume="], "resume: no run is named. Write resume=RUN"),
    ]:
        code, _, err = call(capsys, "train", *argv)
        assert code == 2 and words in err, err
    other = interrupted.with_name("other")
    shutil.copytree(interrupted, other)
    code, _, err = call(capsys, "train", "resume=study/runs/other")
    assert code == 2 and f"now means the run study/runs/{interrupted.name}. Nothing was done." in err
    write_task(tmp_path / "study" / "data", train=40)
    code, _, err = call(capsys, "train", run)
    assert code == 2 and "has changed: its data, its base model, or its directory's name" in err
    assert record_in(interrupted)["status"] == "interrupted"

    config = interrupted / "config.yaml"
    config.write_text(config.read_text().replace("imports: []", "imports: [my_module]"))
    code, _, err = call(capsys, "train", run)
    assert code == 2 and f"Name them again: unipet train {run} 'imports=[my_module]'" in err
