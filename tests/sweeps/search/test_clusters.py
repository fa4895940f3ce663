"""A search whose jobs run elsewhere: workers of a cluster take it from stage to stage."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.misbehaving import FIXED, processes_of, swept, unipet, wait_for, write_study
from tests.support.slurm import Slurm
from unipet.runs.record_files import RESULT, read_record
from unipet.runs.sweep_files import read_jobs
from unipet.sweeps.claims import attempts

LONG = 300.0
GRID = [
    *(text for text in FIXED if not text.startswith("task.selection")),
    *("task.selection=train_holdout", "task.selection_size=8", "optim.lr=choice(1e-3,1e-2)"),
    *("search=grid", "search.seeds=[0]", "search.final_seeds=[1,2]"),
]


@pytest.fixture()
def here(tmp_path: Path) -> Path:
    return write_study(tmp_path)


@pytest.fixture()
def slurm(tmp_path: Path) -> Iterator[Slurm]:
    cluster = Slurm(tmp_path / "slurm")
    yield cluster
    cluster.end()


def searched(sweep: Path) -> None:
    """Two trials on the selection split, then the chosen one with both final seeds, each once; and the table of those."""
    jobs = read_jobs(sweep)
    assert [job.status for job in jobs] == ["ok"] * 4, [job.reason for job in jobs]
    trials = [read_record(sweep / str(job.run_dir) / RESULT).trial for job in jobs]
    assert [trial.role for trial in trials] == ["trial", "trial", "final", "final"]
    assert (sweep / "comparison.txt").is_file() and not attempts(sweep)


@pytest.mark.slow
def test_an_array_of_slurm_goes_on_to_the_final_runs(here: Path, slurm: Slurm) -> None:
    done = unipet(here, "train", "-m", *GRID, "launcher=slurm", "launcher.workers=2", env=slurm.environment)
    assert done.returncode == 0, done.stderr
    sweep = swept(here)
    wait_for(lambda: slurm.done("101"), LONG)
    searched(sweep)
    status = unipet(here, "sweep", "status", str(sweep), env=slurm.environment)
    assert status.returncode == 0 and "4 jobs: 4 ok" in status.stdout, status.stdout


@pytest.mark.slow
def test_submitits_local_executor_goes_on_to_the_final_runs(here: Path) -> None:
    pytest.importorskip("submitit", reason="launcher=slurm submits through submitit: pip install unipet[slurm]")
    with open(here / "said", "w") as said:
        line = ["train", "-m", *GRID, "launcher=slurm", "launcher.workers=2", "launcher.cluster=local"]
        assert unipet(here, *line, stdout=said, stderr=said).returncode == 0, (here / "said").read_text()
    wait_for((swept(here) / "comparison.txt").is_file, LONG)
    searched(swept(here))
    wait_for(lambda: not processes_of(swept(here)))


@pytest.mark.slow
def test_actors_of_ray_go_on_to_the_final_runs(here: Path) -> None:
    pytest.importorskip("ray", reason="launcher=ray needs Ray: pip install unipet[ray]")
    done = unipet(here, "train", "-m", *GRID, "launcher=ray", "launcher.workers=2")
    assert done.returncode == 0, done.stderr
    searched(swept(here))
    assert "Traceback" not in done.stderr and not processes_of(swept(here))
