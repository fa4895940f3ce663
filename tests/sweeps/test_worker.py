"""Which job a worker takes next: with few looks at directories, and never one that is over or another's."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.checkout import ROOT
from unipet.config import LauncherConfig
from unipet.runs.sweep_files import JobState, append_index
from unipet.sweeps import worker as worker_module
from unipet.sweeps.claims import Claim, release
from unipet.sweeps.directory import Sweep, write_sweep
from unipet.sweeps.job_files import Job
from unipet.sweeps.jobs import write_outcome
from unipet.sweeps.worker import Worker


@pytest.fixture()
def sweep(tmp_path: Path) -> Sweep:
    """Five jobs that nobody has begun."""
    made = Sweep(tmp_path / "sweep", ["-m"], [], ["seed"], 5, tmp_path, LauncherConfig())
    write_sweep(made, [Job(n, [f"seed={n}"], [f"seed={n}"], {"seed": n}, None) for n in range(5)], {})
    return made


def next_of(worker: Worker) -> Claim:
    held, wait_s = worker.next_claim()
    assert held is not None and wait_s is None
    return held


def end(sweep: Sweep, held: Claim) -> None:
    write_outcome(sweep.directory, JobState(held.job, "ok", run_dir="../run"))
    release(held)


def test_alone_it_takes_the_jobs_in_their_order_and_then_none(sweep: Sweep) -> None:
    worker, taken = Worker(sweep, "w"), []
    for _ in range(5):
        held = next_of(worker)
        taken.append(held.job)
        end(sweep, held)
    assert taken == [0, 1, 2, 3, 4] and worker.next_claim() == (None, None)


def test_while_there_are_free_jobs_the_outcomes_are_not_listed_again(
    sweep: Sweep, monkeypatch: pytest.MonkeyPatch
) -> None:
    worker, other = Worker(sweep, "w"), Worker(sweep, "other")

    def never(*_: object) -> set[int]:
        raise AssertionError("the outcomes were listed")

    monkeypatch.setattr(worker_module, "job_numbers", never)
    end(sweep, next_of(other))
    held = next_of(other)
    assert (held.job, next_of(worker).job) == (1, 2)


def test_an_outcome_whose_line_was_lost_is_not_run_again(sweep: Sweep) -> None:
    worker = Worker(sweep, "w")
    (sweep.directory / "jobs" / "0.json").write_text(json.dumps({"job": 0, "status": "ok"}))
    assert next_of(worker).job == 1 and worker.tried == {0}


def test_an_outcome_that_was_taken_back_is_run_again(sweep: Sweep) -> None:
    first = Worker(sweep, "first")
    for _ in range(5):
        end(sweep, next_of(first))
    (sweep.directory / "jobs" / "3.json").unlink()
    assert next_of(Worker(sweep, "new")).job == 3


def test_one_that_was_at_work_before_finds_it_by_its_last_look(sweep: Sweep) -> None:
    worker = Worker(sweep, "w")
    for _ in range(5):
        end(sweep, next_of(worker))
    (sweep.directory / "jobs" / "2.json").unlink()
    assert next_of(worker).job == 2


def test_a_half_written_line_is_read_when_it_is_whole(sweep: Sweep) -> None:
    worker = Worker(sweep, "w")
    line = json.dumps(JobState(0, "ok").to_dict()).encode()
    with open(sweep.directory / "index.jsonl", "ab") as file:
        file.write(line[:9])
        file.flush()
        assert worker.known_over() == set()
        file.write(line[9:] + b"\n")
    assert worker.known_over() == {0}
    append_index(sweep.directory, [JobState(1, "running"), JobState(2, "failed")])
    assert worker.known_over() == {0, 2}


@pytest.mark.parametrize("seed", [0, 1])
def test_on_a_slow_cluster_that_loses_workers_every_job_ends_once(tmp_path: Path, seed: int) -> None:
    """Raises where a job ends twice, never, or runs twice at once."""
    out = tmp_path / "figures.json"
    options = ["--jobs", "100", "--workers", "10", "--lost", "0.4", "--seed", str(seed), "--out", str(out)]
    command = [sys.executable, str(ROOT / "benchmarks" / "simulated_cluster.py"), *options]
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "PYTHONPATH": str(ROOT)})
    assert done.returncode == 0, done.stderr
    figures = json.loads(out.read_text())
    assert figures["every_job_ended_exactly_once"] and figures["begun_again_after_a_lost_worker"] > 0
    assert figures["waves"][0]["overhead_s_per_job"] < 3
