"""Which GPUs each worker of a machine sees."""

from __future__ import annotations

from pathlib import Path

import pytest

from unipet.config import LauncherConfig
from unipet.sweeps import launchers
from unipet.sweeps.directory import Sweep, write_sweep
from unipet.sweeps.job_files import Job
from unipet.sweeps.machine import places


@pytest.mark.parametrize(
    ("visible", "workers", "each", "expected"),
    [
        ("0,1,2", None, 1, ["0", "1", "2"]),
        ("0,1,2", 4, 1, ["0", "1", "2", "0"]),
        ("0,1,2,3", None, 2, ["0,1", "2,3"]),
        ("4,5,6", None, 2, ["4,5"]),  # a job that needs two cannot use the third
        ("0,1,2,3", 3, 2, ["0,1", "2,3", "0,1"]),
        ("0,1", None, 4, ["0,1"]),  # too few: the job says so
    ],
)
def test_workers_share_the_gpus(
    monkeypatch: pytest.MonkeyPatch, visible: str, workers: int | None, each: int, expected: list[str]
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    assert places(workers, each) == [{"CUDA_VISIBLE_DEVICES": names} for names in expected]


def test_a_worker_gets_as_many_gpus_as_the_largest_job_needs(tmp_path: Path) -> None:
    numbers = [1, 2, 4, 3]
    jobs = [
        Job(n, [f"budget.gpus={gpus}"], [], {"budget": {"gpus": gpus}}, "a mistake" if gpus == 4 else None)
        for n, gpus in enumerate(numbers)
    ]
    sweep = Sweep(tmp_path / "sweep", ["-m"], [], ["budget.gpus"], len(jobs), tmp_path, LauncherConfig())
    write_sweep(sweep, jobs, {})
    assert launchers.most_gpus(sweep) == 3
