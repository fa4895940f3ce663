"""A record is typed: every committed one can be read, a wrong type is named, and what is read is written again."""

from __future__ import annotations

import json
import re
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.checkout import ROOT
from tests.support.running import tiny_config
from unipet.errors import UnipetError
from unipet.report.collect import collect_jobs
from unipet.runs.record import Flag, InsertionRow, Record, blank_record
from unipet.runs.record_files import read_record, write_record
from unipet.runs.run import run


def committed() -> Iterator[tuple[str, dict[str, Any]]]:
    """(file, content) of every record under experiments/: a file of its own, or a line of a .jsonl."""
    listed = subprocess.run(["git", "ls-files", "experiments"], cwd=ROOT, capture_output=True, text=True, check=True)
    for name in listed.stdout.split():
        text = (ROOT / name).read_text(encoding="utf-8") if name.endswith((".json", ".jsonl")) else ""
        for line in text.splitlines() if name.endswith(".jsonl") else [text]:
            content = json.loads(line or "{}")
            if {"status", "run_id"} <= content.keys():
                yield name, content


def lacking(content: Any, written: Any, key: str = "") -> list[str]:
    """The keys whose value is not in what was written."""
    if isinstance(content, dict):
        return [each for name in content for each in lacking(content[name], written.get(name), f"{key}.{name}")]
    return [key] if content is not None and content != written else []


def test_every_committed_record_is_read_and_loses_nothing(tmp_path: Path) -> None:
    seen = 0
    for name, content in committed():
        (tmp_path / "result.json").write_text(json.dumps(content))
        record = read_record(tmp_path / "result.json")
        names = [row for row in content.get("insertions", ()) if isinstance(row, str)]  # some keep names alone, or none
        assert names in ([], [row.name for row in record.insertions]), name
        assert lacking(content, record.to_dict()) == [".insertions"] * bool(names), name
        assert Record.from_dict(record.to_dict()) == record, name
        seen += 1
    assert seen > 300


def test_a_new_record_is_written_as_it_was_read(tmp_path: Path) -> None:
    config = tiny_config(tmp_path, budget__max_steps=2, task__selection="train_holdout", task__selection_size=8)
    returned = run(config)
    (path,) = (tmp_path / "runs").glob("*/result.json")
    text = path.read_text()
    record = read_record(path)
    assert record.to_dict() == returned and list(returned) == list(json.loads(text))
    write_record(path, record)
    assert path.read_text() == text


def test_a_change_of_what_was_returned_does_not_change_the_record(tmp_path: Path) -> None:
    record = blank_record(tiny_config(tmp_path), "m", "id")
    record.insertions, record.flags = [InsertionRow("ffn", sites=["ffn"])], [Flag("one_answer", "all the same")]
    content = record.to_dict()
    content["insertions"][0]["sites"].append("attn")
    content["flags"].clear()
    content["time"]["steps"] = 3
    assert record.insertions[0].sites == ["ffn"] and record.flags and record.time.steps is None


@pytest.mark.parametrize(
    ("change", "key", "value", "wanted"),
    [
        ({"score": "0.5"}, "score", '"0.5"', "a number"),
        ({"seed": True}, "seed", "true", "a whole number"),
        ({"seed": 1.5}, "seed", "1.5", "a whole number"),
        ({"method": {"name": "x"}}, "method", '{"name": "x"}', "a text"),
        ({"params": [1]}, "params", "[1]", "an object"),
        ({"time": {"train_s": "long"}}, "time.train_s", '"long"', "a number"),
        ({"insertions": [3]}, "insertions.0", "3", "an object"),
        ({"insertions": [{"sites": ["ffn", 3]}]}, "insertions.0.sites.1", "3", "a text"),
        ({"insertions": [{"foldable": 1}]}, "insertions.0.foldable", "1", "true or false"),
        ({"data": {"selection": {"scores": {"30": "x"}}}}, "data.selection.scores.30", '"x"', "a number"),
        ({"flags": {"name": "diverged"}}, "flags", '{"name": "diverged"}', "a list"),
    ],
)
def test_a_value_of_another_type_is_named(
    tmp_path: Path, change: dict[str, Any], key: str, value: str, wanted: str
) -> None:
    path = tmp_path / "result.json"
    path.write_text(json.dumps({"status": "ok", "run_id": "id", **change}))
    with pytest.raises(UnipetError, match=re.escape(f"{path}: {key} is {value}, where {wanted} belongs.")):
        read_record(path)


def test_what_an_older_version_did_not_write_has_its_default(tmp_path: Path) -> None:
    path = tmp_path / "result.json"
    path.write_text('{"status": "ok", "run_id": "id", "data": {"train": 3}, "params": null, "score": 1}')
    record = read_record(path)
    assert record == Record("ok", run_id="id", score=1, data=type(record.data)(train=3))
    assert record.flags is None and "flags" not in record.to_dict(), "from before there were flags"


def test_what_a_newer_version_wrote_is_kept(tmp_path: Path) -> None:
    path = tmp_path / "result.json"
    content = {"status": "ok", "run_id": "id", "proof": {"a": [1]}, "time": {"steps": 3, "waited_s": 2.5}, "others": 7}
    path.write_text(json.dumps(content))
    record = read_record(path)
    assert record.others == {"proof": {"a": [1]}, "others": 7} and record.time.others == {"waited_s": 2.5}
    write_record(path, record)
    assert lacking(content, json.loads(path.read_text())) == []


def test_thousands_of_records_are_read_in_seconds() -> None:
    contents = [content for _, content in committed()]
    Record.from_dict(contents[0])
    started = time.process_time()
    for content in contents:
        Record.from_dict(content)
    assert (time.process_time() - started) / len(contents) < 0.0003


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("[1]", "not the outcome of a job, which is a JSON object with the key 'job'"),
        ('{"job": "x"}', 'job is "x", where a whole number belongs'),
        ('{"job": 0, "record": {"status": "failed", "score": "x"}}', 'record.score is "x", where a number belongs'),
    ],
)
def test_a_job_file_that_is_none_is_named(tmp_path: Path, text: str, says: str) -> None:
    (tmp_path / "jobs").mkdir()
    (tmp_path / "jobs" / "0.json").write_text(text)
    with pytest.raises(UnipetError, match=re.escape(f"{tmp_path / 'jobs' / '0.json'}: {says}")):
        collect_jobs(tmp_path)


def test_a_job_whose_run_is_gone_has_no_record(tmp_path: Path) -> None:
    (tmp_path / "jobs").mkdir()
    (tmp_path / "jobs" / "0.json").write_text('{"job": 0, "run_dir": "../gone", "status": "ok"}')
    (entry,) = collect_jobs(tmp_path)
    assert entry.record.status == "no record" and entry.directory is None
