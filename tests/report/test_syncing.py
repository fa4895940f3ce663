"""`unipet dashboard DIR --sync`: which parts of offline runs wandb gets, and what is said of the others."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.reports import write_run
from unipet.cli.main import main
from unipet.config import TrackingConfig
from unipet.report import syncing
from unipet.report.collect import collect
from unipet.report.syncing import waiting
from unipet.runs.record_files import read_record
from unipet.runs.tracking import open_tracker

STAND_IN = """
import json, pathlib, sys
calls = pathlib.Path(__file__).with_suffix(".calls")
calls.open("a").write(json.dumps(sys.argv[1:]) + "\\n")
for text in sys.argv[1:]:
    part = pathlib.Path(text)
    if part.is_dir() and "bad" not in part.name:
        (file,) = part.glob("*.wandb")
        file.with_name(file.name + ".synced").touch()
sys.exit(any("bad" in text for text in sys.argv) and print("Error: no network", file=sys.stderr) is None)
"""


def part(root: Path, run_id: str, time: str) -> Path:
    made = root / "wandb" / f"offline-run-20260101_{time}-{run_id}"
    made.mkdir(parents=True)
    (made / f"run-{run_id}.wandb").touch()
    return made


@pytest.fixture()
def runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A run in one part, one in three, one that failed, and one of another directory."""
    script = tmp_path / "wandb_stand_in.py"
    script.write_text(STAND_IN)
    monkeypatch.setattr(syncing, "COMMAND", (sys.executable, str(script), "sync"))
    root = tmp_path / "runs"
    for run_id, changes in (("once", {}), ("resumed", {}), ("ended", {"status": "failed", "score": None})):
        write_run(root, run_id, record={"run_id": run_id, **changes})
    for run_id, times in (("once", ["1"]), ("resumed", ["1", "3", "2"]), ("ended", ["1"]), ("stranger", ["1"])):
        for time in times:
            part(root, run_id, f"00000{time}")
    return root


def calls(runs: Path) -> list[list[str]]:
    file = runs.parent / "wandb_stand_in.calls"
    return [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []


def test_the_last_part_of_each_run_with_a_result_is_uploaded_once(
    runs: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["dashboard", str(runs), "--sync", "--project", "p", "--entity", "e"]) == 0
    assert capsys.readouterr().out == "uploaded: 2; before: 0; without a result yet: 1\n"
    (said,) = calls(runs)
    assert said[:5] == ["sync", "--project", "p", "--entity", "e"]
    assert [Path(path).name for path in said[5:]] == [
        "offline-run-20260101_000001-once",
        "offline-run-20260101_000003-resumed",
    ]
    assert main(["dashboard", str(runs), "--sync"]) == 0
    assert capsys.readouterr().out == "uploaded: 0; before: 2; without a result yet: 1\n" and len(calls(runs)) == 1


def test_of_a_sweep_only_its_own_runs(runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    jobs = runs / "sweeps" / "s" / "jobs"
    jobs.mkdir(parents=True)
    (run,) = runs.glob("once-*")
    (jobs / "0.json").write_text(json.dumps({"job": 0, "status": "ok", "run_dir": f"../../{run.name}"}))
    assert main(["dashboard", str(jobs.parent), "--sync"]) == 0
    assert capsys.readouterr().out == "uploaded: 1; before: 0; without a result yet: 0\n"


def test_what_wandb_did_not_take_is_named_and_tried_again(runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_run(runs, "bad", record={"run_id": "bad"})
    part(runs, "bad", "000009")
    assert main(["dashboard", str(runs), "--sync"]) == 1
    out, err = capsys.readouterr()
    assert out == "uploaded: 2; before: 0; without a result yet: 1\n"
    assert "Error: no network" in err and "not uploaded: " in err and "000009-bad" in err
    assert [path.name for path in waiting(collect(runs), runs).parts] == ["offline-run-20260101_000009-bad"]


@pytest.mark.parametrize("more", [[], ["--push"], ["--dry-run"], ["--out", "x.json"]])
def test_one_thing_at_a_time(runs: Path, capsys: pytest.CaptureFixture[str], more: list[str]) -> None:
    code = main(["dashboard", str(runs), *(["--sync"] if more else []), *more])
    assert code == 2 and capsys.readouterr().err.startswith("error: unipet dashboard: ") and calls(runs) == []


@pytest.mark.slow
def test_wandb_itself_knows_the_parts_and_would_upload_them(tmp_path: Path) -> None:
    """What tracking leaves is what is looked for; asked without a network, wandb names the same run."""
    directory = write_run(tmp_path / "runs", "good", record={"run_id": "0123456789abcdef"})
    record = read_record(directory / "result.json")
    tracker = open_tracker(TrackingConfig(name="wandb"), record, {"runs_dir": str(tmp_path / "runs")})
    tracker.log({"loss": 1.0}, step=1)
    assert tracker.finish(record)
    (found,) = waiting(collect(tmp_path / "runs"), tmp_path / "runs").parts
    command = [sys.executable, "-m", "wandb", "sync", "--dry-run", str(found)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, timeout=120)
    assert done.returncode == 0 and "run-0123456789abcdef.wandb" in done.stdout + done.stderr
