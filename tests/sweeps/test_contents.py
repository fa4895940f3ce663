"""Data, base model or functions that change while a sweep is on its way: never mixed in silence."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.support.misbehaving import FIXED, how, states, swept, unipet, write_study
from tests.support.reports import write_run
from unipet.report.collect import Entry
from unipet.runs.record import Identity, Record
from unipet.runs.sweep_files import JobState, append_index
from unipet.sweeps.contents import differing, done_anew, in_words, mixed


def entry(data: str, model: str = "m", task: str = "t", status: str = "ok") -> Entry:
    record = Record(status=status, identity=Identity(data=data, base_model={"weights": model}))
    return Entry(record, {"task": {"name": task}, "model": {"name": "m"}, "method": {"name": "x"}, "imports": []})


def test_runs_of_equal_settings_have_equal_contents() -> None:
    assert mixed([entry("a"), entry("a"), entry("b", task="other"), entry("c", status="failed")]) == []
    assert mixed([entry("a"), entry("b")]) == ["data"]
    assert mixed([entry("a"), entry("a", "n")]) == ["base_model"]
    assert in_words(["base_model", "data", "data"]) == "the data and the base model"
    assert differing(Identity("a", numerics=1), Identity("b", numerics=2)) == ["data", "numerics"]


def test_a_job_that_became_another_run_is_told(tmp_path: Path) -> None:
    (tmp_path / "s/jobs").mkdir(parents=True)
    for method, content in (("old", "a"), ("new", "b"), ("same", "a")):
        write_run(tmp_path, method, record={"identity": Identity(data=content).to_dict()})
    ends = [(0, "old"), (1, "same"), (0, "new"), (1, "same")]
    append_index(tmp_path / "s", [JobState(job, "ok", run_id=f"{m}", run_dir=f"../{m}-t-0-none") for job, m in ends])
    (said,) = done_anew(tmp_path / "s")
    assert said.startswith("job 1 changed into other runs, because the data changed since")


@pytest.mark.parametrize("again", ["resume", "command"])
def test_data_that_changed_between_two_commands_make_other_runs(tmp_path: Path, again: str) -> None:
    here = write_study(tmp_path)
    command = ["train", "-m", *FIXED, how("fine", "sigkill once")]
    assert unipet(here, *command).returncode == 1
    before = states(here)
    assert before["fine"].status == "ok"
    lines = (here / "data/train.jsonl").read_text().splitlines()
    lines[0] = json.dumps({**json.loads(lines[0]), "sentence": "w1 w2 w3"})
    (here / "data/train.jsonl").write_text("\n".join(lines) + "\n")
    done = unipet(here, *(["sweep", "resume", str(swept(here))] if again == "resume" else command))
    assert done.returncode == 0, done.stderr
    after = states(here)
    assert {job.status for job in after.values()} == {"ok"} and after["fine"].run_id != before["fine"].run_id
    assert "job 1 changed into other runs, because the data changed since" in done.stdout
    if again == "resume":
        assert "the data changed since 1 job has ended; they are run again, the earlier runs are kept" in done.stderr
    records = [json.loads((swept(here) / str(job.run_dir) / "result.json").read_text()) for job in after.values()]
    assert len({record["data"]["fingerprint"] for record in records}) == 1
    old = json.loads((swept(here) / str(before["fine"].run_dir) / "result.json").read_text())
    assert old["status"] == "ok" and old["run_id"] == before["fine"].run_id, "the earlier run is still there"
