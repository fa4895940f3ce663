"""How long a sweep will take still: by what was planned and what was measured, or at the pace so far."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from unipet.config import LauncherConfig
from unipet.runs.sweep_files import JobState, append_index
from unipet.sweeps.directory import Sweep, sweep_name, write_sweep
from unipet.sweeps.job_files import Job
from unipet.sweeps.planned import keep, left_s, predicted
from unipet.sweeps.progress import Progress

PLAN = {0: 60.0, 1: 60.0, 2: 60.0, 3: 600.0}


def test_the_plan_is_scaled_by_what_was_measured() -> None:
    assert left_s(PLAN, [], {}, [0, 1, 2, 3]) == 780, "nothing measured yet"
    assert left_s(PLAN, [(0, 30.0), (1, 30.0)], {}, [2, 3]) == 330, "this machine is twice as fast"
    assert left_s(PLAN, [(0, 30.0), (1, 0.1)], {}, [2, 3]) == 330, "a job that was found finished says nothing"


def test_running_jobs_count_for_what_is_left_of_them_and_go_on_side_by_side() -> None:
    assert left_s(PLAN, [(0, 60.0)], {1: 20.0, 2: 40.0}, [3]) == (40 + 20 + 600) / 2
    assert left_s(PLAN, [], {2: 50.0, 3: 100.0}, []) == 500, "the longest one is the end"
    assert left_s(PLAN, [], {2: 90.0}, []) == 0, "longer than planned"


def test_a_job_that_was_not_planned_leaves_no_answer() -> None:
    assert left_s(PLAN, [], {}, [3, 4]) is None and left_s({}, [(0, 1.0)], {1: 1.0}, []) is None


@pytest.fixture()
def sweep(tmp_path: Path) -> Sweep:
    jobs = [Job(n, [f"seed={n}"], [f"seed={n}"], {"seed": n}, None) for n in range(4)]
    name = sweep_name(jobs, ["seed"])
    made = Sweep(
        tmp_path / "runs/sweeps" / name, ["-m"], [], ["seed"], 4, tmp_path, LauncherConfig(), name, runs="../.."
    )
    write_sweep(made, jobs, {})
    return made


def ended(sweep: Sweep, shown: Progress, job: int, seconds: float) -> None:
    append_index(sweep.directory, [JobState(job, "running"), JobState(job, "failed", reason="x", seconds=seconds)])
    shown.look()


def test_the_live_line_says_what_the_plan_says(
    sweep: Sweep, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("UNIPET_CACHE", raising=False)
    assert predicted(sweep) == {}
    keep(str(tmp_path / "runs"), [Job(n, [], [], {"seed": n, "runs_dir": "x"}, None) for n in range(4)], ["seed"], PLAN)
    assert predicted(sweep) == PLAN, "where the runs go is no part of what a sweep computes"
    shown = Progress(sweep)
    assert shown.line().endswith("4 left; about 13 min left by the plan"), shown.line()
    shown.began -= 120
    ended(sweep, shown, 0, 120.0)
    assert shown.line().endswith("1 failed, 3 left; 30 jobs per hour, about 24 min left by the plan"), shown.line()


def test_without_a_plan_it_is_the_pace_so_far(
    sweep: Sweep, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    shown = Progress(sweep)
    assert shown.line().endswith("4 left")
    shown.began = time.monotonic() - 120
    ended(sweep, shown, 0, 120.0)
    assert shown.line().endswith("30 jobs per hour, about 6 min left"), shown.line()
