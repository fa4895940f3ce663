"""Which record stands for a job of a sweep."""

from __future__ import annotations

import json
from pathlib import Path

from tests.support.reports import write_run
from unipet.report.collect import collect_jobs
from unipet.runs.sweep_files import JobState, append_index
from unipet.sweeps.jobs import write_outcome


def test_a_repetition_that_has_not_ended_is_not_taken_for_the_result_before_it(tmp_path: Path) -> None:
    """`rerun=true`, interrupted: the directory of the run still holds the earlier result."""
    run, sweep = write_run(tmp_path, "good"), tmp_path / "s"
    (sweep / "jobs").mkdir(parents=True)
    (sweep / "jobs/0.yaml").touch()
    begun = JobState(0, "running", run_dir=f"../{run.name}")
    append_index(sweep, [begun])
    assert [entry.record.status for entry in collect_jobs(sweep)] == ["ok"], (
        "a run that ended before its outcome was written"
    )
    (run / "attempt").mkdir()
    record = json.loads((run / "result.json").read_text())
    (run / "attempt/result.json").write_text(json.dumps({**record, "status": "interrupted", "score": None}))
    (run / "attempt/config.yaml").write_text((run / "config.yaml").read_text())
    assert [entry.record.status for entry in collect_jobs(sweep)] == ["interrupted"]
    write_outcome(sweep, JobState(0, "ok", run_dir=begun.run_dir))
    assert [entry.record.status for entry in collect_jobs(sweep)] == ["ok"]
