"""A directory in which something is damaged: it is named, left out, and the rest is reported."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.reports import write_run
from unipet.cli.main import main
from unipet.report.collect import UNREADABLE, collect
from unipet.runs.sweep_files import JobState
from unipet.sweeps.jobs import write_outcome
from unipet.sweeps.launch import close

DAMAGE = {
    "a record that is no JSON": ("result.json", "{", "not a readable record"),
    "a record that is a list": ("result.json", "[]", "not the record of a run"),
    "a score that is a text": ("result.json", '{"status": "ok", "run_id": "x", "score": "0.9"}', "score is"),
    "a record nested deep": ("result.json", "[" * 100_000, "not a readable record"),
    "a configuration with a tag": ("config.yaml", "method: !!python/name:os.system x\n", "is not read"),
}


@pytest.fixture()
def runs(tmp_path: Path) -> Path:
    for method in ("good", "bad"):
        for seed in range(2):
            write_run(tmp_path / "runs", method, seed)
    return tmp_path / "runs"


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_run_is_named_and_the_others_are_reported(
    damage: str, runs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    name, content, words = DAMAGE[damage]
    (runs / "good-t-0-none" / name).write_text(content)
    written = [word for kind in ("html", "markdown", "rows") for word in (f"--{kind}", str(tmp_path / kind))]
    assert main(["report", str(runs), *written]) == 0
    shown = capsys.readouterr().out
    assert "good" in shown and "bad" in shown
    assert f"{UNREADABLE}: {runs / 'good-t-0-none'}" in shown and words in shown and name in shown
    assert name in (tmp_path / "html").read_text() and UNREADABLE in (tmp_path / "html").read_text()
    rows = (tmp_path / "rows").read_text().splitlines()
    assert [line.split(",")[0] for line in rows] == ["method", "good", "bad"], "a run of no known method is no row"


def test_where_nothing_can_be_read_there_is_nothing_to_report(runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for directory in runs.iterdir():
        (directory / "result.json").write_text("{")
    assert main(["report", str(runs)]) == 2
    assert "not a readable record" in capsys.readouterr().err


@pytest.mark.parametrize("text", ["{", "[" * 100_000, '{"id": 1}\n', '{"id": "0", "score": "x"}\n', "\xff", ""])
def test_damaged_predictions_leave_the_scores(text: str, runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (runs / "good-t-0-none" / "predictions.jsonl").write_text(text, encoding="latin-1")
    assert main(["report", str(runs)]) == 0
    shown = capsys.readouterr().out
    assert "examples are not compared in 1 of 2 runs" in shown and "predictions.jsonl" in shown


@pytest.mark.parametrize("text", ['{"step": 1, "loss": 1' + "0" * 400 + "}\n", "[" * 100_000, '{"step": [1]}\n'])
def test_damaged_metrics_are_no_curve(text: str, runs: Path, tmp_path: Path) -> None:
    (runs / "good-t-0-none" / "metrics.jsonl").write_text(text)
    assert main(["report", str(runs), "--html", str(tmp_path / "page.html")]) == 0


def test_in_a_sweep_its_job_has_not_succeeded(runs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    sweep = tmp_path / "sweep"
    (sweep / "jobs").mkdir(parents=True)
    for job, run in enumerate(sorted(runs.iterdir())):
        (sweep / f"jobs/{job}.yaml").touch()
        write_outcome(sweep, JobState(job, "ok", run_dir=f"../runs/{run.name}", overrides=[f"method={run.name}"]))
    (runs / "good-t-0-none" / "config.yaml").write_text("a: [")
    assert [entry.record.status for entry in collect(sweep)].count(UNREADABLE) == 1
    assert close(sweep, 4) == 1
    assert "1 failed" in capsys.readouterr().out
