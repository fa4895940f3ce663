"""`unipet.sweep`: what a mapping means, and a sweep that runs in this process."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

import unipet
from tests.support.running import LOW_RANK, TINY_TASK, write_world
from unipet.errors import UnipetError
from unipet.sweeps.from_python import _launching, _overrides


@pytest.mark.parametrize(
    ("choices", "texts"),
    [
        ({"method": "mam", "seed": [0, 1]}, ["method=mam", "seed=0,1"]),
        ({"optim.lr": 1e-3, "task.max_train": None}, ["optim.lr=0.001", "task.max_train=null"]),
        ({"task.text": [["a", "b"]]}, ["task.text=[a,b]"]),
        ({"method.name": "a, b"}, ["method.name='a, b'"]),
        ({"rerun": True, "seed": (3,)}, ["rerun=true", "seed=3"]),
    ],
)
def test_a_mapping_is_a_command_line(choices: dict[str, Any], texts: list[str]) -> None:
    assert _overrides(choices) == texts


def test_a_launcher_is_a_name_or_its_options() -> None:
    assert _launching(None) == ["launcher.isolate=false"]
    assert _launching("slots") == ["launcher=slots"]
    assert _launching({"name": "slots", "workers": 2}) == ["launcher=slots", "launcher.workers=2"]


@pytest.mark.parametrize(
    ("choices", "said"),
    [
        ({"seed": []}, "seed: an empty list"),
        (["seed"], "a mapping"),
        ({"sead": 1}, "seed"),
        ({"seed": ["x", 1]}, "seed"),
    ],
)
def test_a_mistake_is_one_error_before_anything_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, choices: Any, said: str
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UnipetError, match=said):
        unipet.sweep(choices)
    assert os.listdir(tmp_path) == []


def test_it_runs_in_this_process_and_returns_the_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    world = write_world(tmp_path / "world", {"task/tiny": TINY_TASK, "method/mine": {**LOW_RANK, "name": "mine"}})
    monkeypatch.chdir(tmp_path)
    choices = {
        "method": "mine",
        "seed": [0, 1],
        "optim.lr": [1e-3, 1e-2],
        "task": "tiny",
        "task.data_dir": str(world / "data"),
        "model": str(world / "model"),
        "optim.batch_size": 8,
        "budget.max_steps": 2,
    }
    before = dict(os.environ)
    frame = unipet.sweep(choices, runs_dir="here", config_dir=world / "mine")
    assert list(zip(frame.seed, frame["optim.lr"], strict=True)) == [(0, 1e-3), (0, 1e-2), (1, 1e-3), (1, 1e-2)]
    assert set(frame.status) == {"ok"} and frame.score.notna().all() and dict(os.environ) == before
    directory = Path(frame.attrs["directory"])
    assert directory.parent == Path("here") / "sweeps" and (directory / "sweep.yaml").is_file()
    assert len(list(directory.glob("workers/*.log"))) == 0  # no process beside this one
    capsys.readouterr()
    again = unipet.sweep(choices, runs_dir="here", config_dir=world / "mine")
    assert "begun before" in capsys.readouterr().err and list(again.finished) == list(frame.finished)
