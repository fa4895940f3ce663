"""Hydra's own launchers keep working: they start the jobs themselves, and the table closes the sweep as always."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.support.misbehaving import FIXED, how, states, swept, unipet, write_study
from unipet.runs.sweep_files import read_jobs

pytest.importorskip("hydra_plugins.hydra_joblib_launcher", reason="needs hydra-joblib-launcher")


@pytest.mark.slow
def test_joblib_runs_the_jobs_in_processes_of_its_own(tmp_path: Path) -> None:
    here = write_study(tmp_path)
    flags = ["hydra/launcher=joblib", "hydra.launcher.n_jobs=2"]
    done = unipet(here, "train", "-m", *FIXED, *flags, how("fine", "raise", "sys.exit"))
    assert done.returncode == 1, done.stderr
    assert {word: state.status for word, state in states(here).items()} == {
        "fine": "ok",
        "raise": "failed",
        "sys.exit": "failed",
    }
    assert "3 jobs, 2 failed" in done.stdout and "RuntimeError: boom" in done.stdout
    assert "Traceback" not in done.stderr
    (ok,) = (job for job in read_jobs(swept(here)) if job.status == "ok")
    assert ok.run_dir is not None
    record = json.loads((swept(here) / ok.run_dir / "result.json").read_text())
    assert (record["status"], record["run_id"]) == ("ok", ok.run_id)
    assert "fine" in (swept(here) / "comparison.txt").read_text() or (swept(here) / "comparison.csv").is_file()
