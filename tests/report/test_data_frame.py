"""Runs as a DataFrame."""

from __future__ import annotations

import builtins
from pathlib import Path
from typing import Any

import pytest

import unipet
from tests.support.reports import write_run
from unipet.errors import UnipetError


def test_every_run_is_a_row_with_flat_columns(tmp_path: Path) -> None:
    for seed in range(2):
        write_run(tmp_path, "good", seed)
    write_run(
        tmp_path, "bad", config={"max_train": 8}, record={"status": "failed", "score": None, "reason": "no memory"}
    )
    frame = unipet.results(tmp_path)
    assert len(frame) == 3 and list(frame.columns[:9]) == [
        *("run", "method", "task", "model", "budget", "seed", "status", "score", "metric")
    ]
    failed = frame[frame.status == "failed"].iloc[0]
    assert (failed.method, failed["task.max_train"], failed.reason) == (
        "bad",
        8,
        "no memory",
    ) and failed.score != failed.score
    assert set(frame[frame.method == "good"]["params.trainable"]) == {400} and frame["time.train_s"].sum() == 3.0
    assert frame[frame.method == "good"].score.mean() == pytest.approx(0.8, abs=0.05)
    assert "optim.lr" not in frame and Path(frame.directory[0]).is_dir()


def test_without_pandas_or_runs_it_says_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UnipetError, match="nothing to report"):
        unipet.results(tmp_path)
    real = builtins.__import__

    def without(name: str, *arguments: Any, **more: Any) -> Any:
        if name == "pandas":
            raise ImportError(name)
        return real(name, *arguments, **more)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(UnipetError, match=r"unipet\[notebook\]"):
        unipet.results(tmp_path)
    with pytest.raises(UnipetError, match=r"unipet\[notebook\]"):
        unipet.sweep({"seed": [0, 1]})
