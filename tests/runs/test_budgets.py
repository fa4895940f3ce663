"""Budgets in runs, records, reports and presets: what was asked, what was fitted, and what is never put side by side."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.report.test_table import entry
from tests.support.running import LOW_RANK, tiny_config
from unipet.cli.main import main
from unipet.compose.parse_run_config import check_run_config
from unipet.config import BudgetConfig, RunConfig, conf_dir
from unipet.errors import UnipetError
from unipet.report.aggregate import aggregate, unscored
from unipet.report.collect import Entry
from unipet.report.table import csv_table, markdown_table, text_table
from unipet.runs.budget_label import DEFAULTS, budget_label, set_limits
from unipet.runs.record import Record
from unipet.runs.run import evaluate, run

PRESETS = {path.stem: yaml.safe_load(path.read_text()) for path in sorted((conf_dir() / "budget").glob("*.yaml"))}
FULL = {"name": "tiny_full", "unfreeze": ["all"]}


def test_a_fitted_run_is_recorded_and_evaluated_again(tmp_path: Path) -> None:
    config = tiny_config(tmp_path, budget__trainable_params=2000, budget__max_steps=2)
    record = run(config)
    key, per_rank = "method.insertions.attention.function.size", 2 * 2 * 2 * 32  # layers x sites x (down, up) x width
    assert record["status"] == "ok" and record["params"]["trainable"] == 7 * per_rank <= 2000 < 8 * per_rank
    assert record["fitted"] | {"requested": {key: 4}, "sizes": {key: 7}} == record["fitted"]
    assert record["fitted"]["parameter_limit"] == 2000 and record["fitted"]["larger_trains"] == 8 * per_rank
    assert record["budget"] == "trainable_params=2000, max_steps=2"
    assert record["limits"] == {"trainable_params": 2000, "max_steps": 2}
    assert set(record["params"]) == {"base", "trainable", "head", "stored", "merged", "formula", "percent"}
    (directory,) = (tmp_path / "runs").glob("tiny*")
    resolved = (directory / "config.yaml").read_text()
    assert f"# fitted to the budget: {key}=7" in resolved
    assert yaml.safe_load(resolved)["method"]["insertions"]["attention"]["function"]["size"] == 4, "what was asked"
    assert evaluate(directory)["reproduced"]
    other = run(tiny_config(tmp_path, budget__trainable_params=1000, budget__max_steps=2))
    assert other["run_id"] != record["run_id"] and other["params"]["trainable"] == 3 * per_rank


def test_what_does_not_fit_is_skipped_with_a_reason(tmp_path: Path) -> None:
    record = run(tiny_config(tmp_path, FULL, budget__trainable_percent=1.0))
    assert (record["status"], record["score"], record["error"]) == ("skipped", None, None)
    assert "too many. It has no size that could be reduced." in record["reason"]
    assert record["params"]["trainable"] == record["params"]["base"] and record["time"]["steps"] is None
    (directory,) = (tmp_path / "runs").glob("tiny*")
    assert json.loads((directory / "result.json").read_text()) == record
    missing = unscored([Entry(Record.from_dict(record))])
    assert missing[0].status == "skipped" and missing[0].error == record["reason"]
    with pytest.raises(UnipetError, match="only finished runs can be evaluated"):
        evaluate(directory)


def test_on_exceed_error_is_one_mistake_and_nothing_is_written(tmp_path: Path) -> None:
    with pytest.raises(UnipetError, match="24 too many"):
        run(tiny_config(tmp_path, budget__trainable_params=1000, budget__on_exceed="error"))
    assert not (tmp_path / "runs").exists()
    assert run(tiny_config(tmp_path, budget__trainable_params=1000, budget__on_exceed="skip"))["status"] == "skipped"


def test_a_sweep_over_budgets_ends_well_with_one_table_each(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = tiny_config(tmp_path)
    (tmp_path / "conf" / "method").mkdir(parents=True)
    for method in (LOW_RANK, FULL):
        (tmp_path / "conf" / "method" / f"{method['name']}.yaml").write_text(yaml.safe_dump(method))
    argv = ["train", "-m", "--config-dir", str(tmp_path / "conf"), "method=tiny_low_rank,tiny_full"]
    argv += ["budget=params_3p6,params_6p7", "budget.max_steps=1", f"model={config.model.path}", "task=sst2"]
    argv += [f"task.data_dir={config.task.data_dir}", "task.max_length=16", f"runs_dir={tmp_path / 'swept'}"]
    assert main(argv) == 0, "what a budget leaves out is a result"
    out = capsys.readouterr().out
    tables = out.split("budget: ")[1:]
    assert [table.splitlines()[0].partition("   ")[0] for table in tables] == [
        "params_3p6, max_steps=1",
        "params_6p7, max_steps=1",
    ]
    rows = [[line for line in table.splitlines() if line.startswith("tiny_low_rank")] for table in tables]
    assert [len(one) for one in rows] == [1] * len(tables) and out.count("skipped: method=tiny_full") == 2
    assert main(["report", str(tmp_path / "swept")]) == 0
    assert capsys.readouterr().out.count("budget: ") == 2
    assert main(["report", str(tmp_path / "swept"), "--anyway"]) == 0
    whole = capsys.readouterr().out.split("\n\n")[1]  # the table, below its heading
    assert "budget " in whole.splitlines()[0] and whole.count("tiny_low_rank") == 2


def test_describe_fits(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model = tiny_config(tmp_path).model.path
    assert main(["describe", "method=lora", f"model={model}", "budget.trainable_params=3000"]) == 0
    out = capsys.readouterr().out
    assert "at most 3,000 trained parameters" in out and "function.size=11 (given: 16)" in out
    assert "the next larger sizes would train 3,072" in out and "by formula 2,816" in out
    assert main(["describe", "method=full", f"model={model}", "budget=params_1", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert "too many" in told["reason"] and told["fitted"]["sizes"] == {}
    assert main(["describe", "method=lora", f"model={model}", "budget.on_exceed=fitt"]) == 2
    assert "budget.on_exceed: unknown 'fitt'" in capsys.readouterr().err


def scored(score: float, **budget: Any) -> Entry:
    made = entry(score=score, method=budget.pop("method", "a"), run_id=str(score))
    return Entry(made.record, {**made.config, "budget": {"name": "none", **budget}})


def test_budgets_are_not_ranked_in_one_table_unless_asked() -> None:
    entries = [
        scored(0.5, name="params_0p1", trainable_percent=0.1),
        scored(0.9, name="params_1", trainable_percent=1.0),
        scored(0.7, name="params_1", trainable_percent=1.0, method="b"),
        scored(0.8, name="params_0p1", trainable_percent=0.1, method="b"),
    ]
    rows = aggregate(entries)
    assert [(row.budget, row.score) for row in rows] == [
        *(("params_0p1", 0.8), ("params_0p1", 0.5)),
        *(("params_1", 0.9), ("params_1", 0.7)),
    ]
    assert text_table(rows).count("method  ") == markdown_table(rows).count("| method |") == 2
    assert [line["budget"] for line in csv.DictReader(io.StringIO(csv_table(rows)))] == [row.budget for row in rows]
    across = aggregate(entries, across_budgets=True)
    assert [row.score for row in across] == [0.9, 0.8, 0.7, 0.5]
    table = text_table(across, across_budgets=True)
    assert table.count("method  ") == 1 and table.index("params_1") < table.index("params_0p1")


def test_one_name_with_other_limits_is_another_budget() -> None:
    rows = aggregate(
        [scored(0.5, name="gpu_24gb", peak_memory_gib=24.0), scored(0.6, name="gpu_24gb", peak_memory_gib=12.0)]
    )
    assert {row.budget for row in rows} == {"gpu_24gb", "gpu_24gb, peak_memory_gib=12.0"}
    assert not any(row.variant for row in rows)


@pytest.mark.parametrize(
    ("budget", "label"),
    [
        ({}, "none"),
        ({"name": "none", "max_steps": 100}, "max_steps=100"),
        ({"name": "steps_100", "max_steps": 100}, "steps_100"),
        ({"name": "steps_100", "max_steps": 50}, "steps_100, max_steps=50"),
        ({"name": "gpu_24gb", "peak_memory_gib": 24.0, "trainable_percent": 0.5}, "gpu_24gb, trainable_percent=0.5"),
        ({"name": "gpu_24gb", "peak_memory_gib": None}, "gpu_24gb, peak_memory_gib=null"),
        ({"name": "mine", "gpu_hours": 2.0, "on_exceed": "skip"}, "mine, gpu_hours=2.0, on_exceed=skip"),
    ],
)
def test_label(budget: dict[str, Any], label: str) -> None:
    assert budget_label(budget) == label


def test_presets() -> None:
    assert set(PRESETS) == {
        *("none", "steps_100", "params_0p1", "params_0p5", "params_1", "params_3p6", "params_6p7"),
        *("gpu_8gb", "gpu_16gb", "gpu_24gb", "gpu_40gb", "gpu_80gb", "gpu_141gb"),
        *("gpu_hours_0p1", "gpu_hours_1", "gpu_hours_8"),
    }
    assert {key: value for key, value in PRESETS["none"].items() if key != "name"} == DEFAULTS
    for name, preset in PRESETS.items():
        assert preset["name"] == name and budget_label(preset) == name
        check_run_config(RunConfig(budget=BudgetConfig(**preset)))
        (limit,) = set_limits(preset).items() or [("", 0)]
        number = name.rpartition("_")[2].replace("p", ".").removesuffix("gb")
        assert name == "none" or limit[1] == float(number), f"{name} says {limit}"


@pytest.mark.parametrize(
    ("key", "value", "told"),
    [
        ("trainable_params", -1, "allowed: a whole number from 0 to"),
        ("trainable_params", 1.5, "allowed: a whole number from 0 to"),
        ("trainable_percent", -0.1, "allowed: a finite number at least 0 or null"),
        ("trainable_percent", float("nan"), "allowed: a finite number"),
        ("peak_memory_gib", 0, "allowed: a finite number greater than 0 or null"),
        ("memory_margin", 1.0, "allowed: a finite number at least 0 and less than 1"),
        ("memory_margin", None, "allowed: a finite number at least 0 and less than 1"),
        ("max_tokens", 0, r"allowed: a whole number from 1 to \d+ or null"),
        ("gpu_hours", 0.0, "allowed: a finite number greater than 0 or null"),
        ("gpus", 0, "allowed: a whole number from 1"),
        ("gpus", None, "allowed: a whole number from 1"),
        ("on_exceed", "stop", "unknown 'stop'"),
    ],
)
def test_wrong_limits(key: str, value: Any, told: str) -> None:
    config = RunConfig()
    setattr(config.budget, key, value)
    with pytest.raises(UnipetError, match=rf"budget\.{key}: .*{told}"):
        check_run_config(config)
