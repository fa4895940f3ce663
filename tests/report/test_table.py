"""Records -> rows -> tables, on records made by hand."""

from __future__ import annotations

import csv
import io
import json
import re
import statistics
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from unipet.errors import UnipetError
from unipet.report.aggregate import aggregate, unscored
from unipet.report.collect import Entry, collect
from unipet.report.table import csv_table, markdown_table, text_table, write_comparison
from unipet.runs.record import Record


def entry(method: str = "a", seed: int = 0, score: float | None = 0.5, **changes: Any) -> Entry:
    size, overrides = changes.pop("size", 8), changes.pop("overrides", ())
    content = {
        "status": "ok",
        "run_id": f"{method}{seed}{size}",
        "method": method,
        "task": "t",
        "model": "m",
        "budget": "none",
        "seed": seed,
        "score": score,
        "metric": "accuracy",
        "params": {"trainable": 1000 * size, "percent": 0.5},
        "time": {"train_s": 10.0 + seed},
        "data": {"source": "jsonl:data"},
        "error": None,
        "finished": "2026-01-01T00:00:00+00:00",
    } | changes
    config = {
        "method": {"name": method, "insertions": {"x": {"function": {"name": "f", "size": size}}}},
        "task": {"name": content["task"]},
        "model": {"name": "m"},
        "budget": {"name": "none"},
        "seed": seed,
        "runs_dir": f"somewhere/{seed}",
        "tracking": {"name": "none", "group": str(seed)},
    }
    return Entry(Record.from_dict(content), config, overrides)


def test_mean_and_sample_deviation_over_seeds() -> None:
    scores = [0.91, 0.87, 0.95]
    (row,) = aggregate(entry(seed=seed, score=score) for seed, score in enumerate(scores))
    assert row.score == pytest.approx(np.mean(scores))
    assert row.std == pytest.approx(np.std(scores, ddof=1))
    assert row.std == pytest.approx(statistics.stdev(scores))
    assert (row.scored, row.runs, row.trainable, row.percent, row.train_s) == (3, 3, 8000, 0.5, 11.0)


def test_one_seed_has_no_deviation() -> None:
    rows = aggregate([entry(score=0.5)])
    assert rows[0].std is None
    assert "±" not in text_table(rows) and "±" not in markdown_table(rows)
    assert next(csv.DictReader(io.StringIO(csv_table(rows))))["score_std"] == ""


@pytest.mark.parametrize("status", ["failed", "exceeded", "skipped", "running"])
def test_a_run_without_a_score_is_never_a_zero(status: str) -> None:
    entries = [
        entry(seed=0, score=0.8),
        entry(seed=1, score=None, status=status),
        entry("b", score=None, status=status),
    ]
    first, last = aggregate(entries)
    assert (first.method, first.score, first.std, first.scored, first.runs) == ("a", 0.8, None, 1, 2)
    assert (last.method, last.score) == ("b", None)
    body = text_table([first, last]).splitlines()[-2:]
    assert "1 of 2" in body[0] and "0.0000" not in "".join(body)
    assert [one.status for one in unscored(entries)] == [status, status]


def test_a_failed_run_with_a_stale_score_does_not_count() -> None:
    (row,) = aggregate([entry(score=0.9, status="failed")])
    assert row.score is None


def test_best_first_and_unscored_last() -> None:
    rows = aggregate(
        [
            entry("low", score=-0.2),
            entry("none", score=None, status="failed"),
            entry("high", score=0.7),
            entry("zero", score=0.0),
        ]
    )
    assert [row.method for row in rows] == ["high", "zero", "low", "none"]


def test_rows_of_one_method_say_what_differs_and_are_not_averaged() -> None:
    rows = aggregate([entry(size=8, score=0.1), entry(size=16, score=0.2), entry("b", size=4, score=0.3)])
    assert [row.label for row in rows] == ["b", "a · size=16", "a · size=8"]


def test_several_tasks_are_separate_rows_with_a_column() -> None:
    rows = aggregate([entry(task="t1", score=0.1), entry(task="t2", score=0.9)])
    assert [row.task for row in rows] == ["t1", "t2"]
    table = text_table(rows)
    assert "model: m" in table.splitlines()[0] and "task" in table.splitlines()[2]


def test_synthetic_tasks_are_labelled_everywhere() -> None:
    rows = aggregate([entry(data={"source": "synthetic:roles seed 0"})])
    assert "t (synthetic)" in text_table(rows) and "t (synthetic)" in markdown_table(rows)
    assert next(csv.DictReader(io.StringIO(csv_table(rows))))["synthetic"] == "yes"
    assert "synthetic)" not in text_table(aggregate([entry()]))


def test_failures_are_named_with_overrides_and_reason() -> None:
    bad = entry(
        score=None, status="failed", overrides=("method=a", "seed=0"), error={"type": "ValueError", "message": "a\n b"}
    )
    table = text_table(aggregate([bad]), unscored([bad]))
    assert table.endswith("failed: method=a seed=0\n    ValueError: a b")


def test_a_wide_table_fits_the_terminal() -> None:
    rows = aggregate([entry("m" * 150, task="t1"), entry("n" * 30, task="t2")])
    assert max(len(line) for line in text_table(rows).splitlines()) <= 120
    assert "m" * 150 in csv_table(rows)


def write_run(directory: Path, one: Entry) -> None:
    directory.mkdir(parents=True)
    (directory / "result.json").write_text(json.dumps(one.record.to_dict()))
    (directory / "config.yaml").write_text(yaml.safe_dump(dict(one.config)))


def test_collect_reads_every_run_once(tmp_path: Path) -> None:
    write_run(tmp_path / "x" / "run0", entry(seed=0, score=0.4))
    write_run(tmp_path / "x" / "run1", entry(seed=1, score=0.6))
    write_run(tmp_path / "copy" / "run0", entry(seed=0, score=0.2, finished="2026-02-01T00:00:00+00:00"))
    (row,) = aggregate(collect(tmp_path))
    assert sorted(row.scores) == [0.2, 0.6]


def test_collect_follows_the_jobs_of_a_sweep(tmp_path: Path) -> None:
    write_run(tmp_path / "run0", entry(seed=0, score=0.4))
    write_run(tmp_path / "other", entry("other", score=0.9))
    jobs = tmp_path / "sweeps" / "s" / "jobs"
    jobs.mkdir(parents=True)
    (jobs / "0.json").write_text(
        json.dumps({"job": 0, "overrides": ["seed=0"], "run_dir": "../../run0", "status": "ok"})
    )
    record = entry(score=None, status="failed", run_id=None, error={"type": "UnipetError", "message": "no"}).record
    (jobs / "10.json").write_text(
        json.dumps({"job": 10, "overrides": ["seed=9"], "run_dir": None, "record": record.to_dict()})
    )
    entries = collect(tmp_path / "sweeps" / "s")
    assert [one.overrides for one in entries] == [("seed=0",), ("seed=9",)]
    assert unscored(entries)[0].error == "no"
    assert len(collect(tmp_path / "sweeps")) == 2


def test_nothing_to_report_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(UnipetError, match="nothing to report"):
        collect(tmp_path)
    with pytest.raises(UnipetError, match="no such directory"):
        collect(tmp_path / "nowhere")


def test_a_damaged_record_is_named(tmp_path: Path) -> None:
    (tmp_path / "result.json").write_text("{")
    with pytest.raises(UnipetError, match=r"result\.json"):
        collect(tmp_path)


def test_the_three_files_hold_the_same_rows(tmp_path: Path) -> None:
    rows = aggregate([entry("a", score=0.25), entry("b", score=0.75)])
    write_comparison(tmp_path, rows, [])
    assert sorted(path.name for path in tmp_path.iterdir()) == ["comparison.csv", "comparison.md", "comparison.txt"]
    read = list(csv.DictReader(io.StringIO((tmp_path / "comparison.csv").read_text())))
    assert [(row["method"], float(row["score_mean"])) for row in read] == [("b", 0.75), ("a", 0.25)]
    for name in ("comparison.md", "comparison.txt"):
        text = (tmp_path / name).read_text()
        assert text.index("0.7500") < text.index("0.2500")
    with pytest.raises(UnipetError, match="cannot be written"):
        write_comparison(tmp_path / "comparison.csv", rows, [])


def test_a_label_names_what_all_rows_have_and_nothing_that_only_one_has() -> None:
    from unipet.runs.labels import variants

    shorthand = {"method.name": "x", "method.a.size": 0, "method.a.scaling": 1.0}  # a job that failed before resolving
    resolved = {"method.name": "x", "method.a.size": 4, "method.a.scaling.value": 1.0, "method.a.dropout": 0.0}
    assert variants([shorthand, resolved]) == ["size=0", "size=4"]
    assert variants([{"a": 1}, {"a": 1, "b": 2}]) == ["as given", "b=2"]
    assert variants([{"a": 1}]) == [""]


def test_runs_that_differ_in_their_base_model_s_files_alone_have_short_labels() -> None:
    found = []
    for number in "12":
        files = {"config.json": "c" * 64, "model.safetensors": number * 64, "tokenizer.json": "t" * 64}
        found.append(entry(run_id=number, identity={"base_model": files}))
        found[-1].config["model"] = {"name": "m", "path": "models/m"}
    labels = [row.variant for row in aggregate(found)]
    assert len(set(labels)) == 2
    assert all(re.fullmatch(r"content=[0-9a-f]{16}", label) for label in labels), labels
