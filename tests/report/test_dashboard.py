"""`unipet dashboard`: what would be sent is valid, shows what the runs are, and uses keys that tracked runs have."""

from __future__ import annotations

import json
import re
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.reports import RATES, write_run
from tests.support.running import tiny_config
from unipet.cli.main import main
from unipet.errors import UnipetError
from unipet.report import pushing
from unipet.report.collect import Entry, collect
from unipet.report.dashboard import as_json, scopes
from unipet.runs import tracking
from unipet.runs.design import DIMENSIONS
from unipet.runs.record import Record
from unipet.runs.run import run
from unipet.runs.tracked_summary import COMPARED, flat_summary

with warnings.catch_warnings():  # its own use of pydantic
    warnings.simplefilter("ignore", DeprecationWarning)
    import wandb_workspaces.reports.v2 as wr
    import wandb_workspaces.workspaces as ws
    from wandb_workspaces.reports.v2.internal import ReportViewspec
    from wandb_workspaces.workspaces.internal import View

PANELS = {"Bar Chart": 1, "Scatter Plot": 3, "Parallel Coordinates Plot": 1, "Run History Line Plot": 1}


def runs(root: Path, tasks: tuple[str, ...] = ("t",)) -> list[Entry]:
    for task in tasks:
        for method in RATES:
            for seed in range(2):
                write_run(root, method, seed, task=task)
    return collect(root)


def found(value: Any, key: str) -> Iterator[Any]:
    """Every value of `key`, anywhere inside."""
    if isinstance(value, dict):
        yield from [value[key]] if key in value else []
        for inner in value.values():
            yield from found(inner, key)
    elif isinstance(value, list):
        for inner in value:
            yield from found(inner, key)


def test_the_dry_run_is_valid_and_shows_every_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    entries = runs(tmp_path / "runs", ("t", "u"))
    assert main(["dashboard", str(tmp_path / "runs"), "--dry-run", "--name", "n", "--entity", "e"]) == 0
    shown = capsys.readouterr()
    spec = json.loads(shown.out)
    assert spec == json.loads((tmp_path / "runs" / "dashboard.json").read_text())
    assert (spec["project"], spec["entity"], spec["name"]) == ("unipet", "e", "n")
    assert "12 of 12 runs were not tracked with wandb" in shown.err
    ids = {entry.record.run_id for entry in entries}
    assert set(spec["runs"]) == ids

    # the models that wandb's own front end and server are described by; nothing of ours is unknown to them
    View.model_validate(spec["workspace"])
    ReportViewspec.model_validate(spec["report"])
    ws.Workspace._from_model(View.model_validate(spec["workspace"]))

    bank = spec["workspace"]["spec"]["section"]["panelBankConfig"]["sections"]
    grids = [block for block in spec["report"]["spec"]["blocks"] if block["type"] == "panel-grid"]
    assert [section["name"] for section in bank] == ["t", "u"] and len(grids) == 2
    for part in (*bank, *(grid["metadata"]["panelBankSectionConfig"] for grid in grids)):
        types = [panel["viewType"] for panel in part["panels"]]
        assert {kind: types.count(kind) for kind in types} == PANELS
    for grid, task in zip(grids, ("t", "u"), strict=True):
        (chosen,) = grid["metadata"]["runSets"][0]["runFeed"].get("filters", grid["metadata"]["runSets"][0]["filters"])[
            "filters"
        ]
        assert chosen["key"] == {"section": "run", "name": "name"} and chosen["op"] == "IN"
        assert set(chosen["value"]) == {name for name in ids if f"-{task}-" in name}


def test_bars_have_error_bars_and_curves_are_by_method(tmp_path: Path) -> None:
    spec = as_json(runs(tmp_path), "n", "p", "e")
    for panel in found(spec["workspace"], "panels"):
        for one in panel if isinstance(panel, list) else []:
            if one["viewType"] in ("Bar Chart", "Run History Line Plot"):
                given = one["config"]
                assert (given["groupBy"], given["groupAgg"], given["groupArea"]) == (
                    "method.value.name",
                    "mean",
                    "stddev",
                )
    (axes,) = {tuple(column["accessor"] for column in one) for one in found(spec["workspace"], "columns")}
    assert {f"config:design.value.{name}" for name in DIMENSIONS} <= set(axes) and "summary:score/t" in axes


def test_several_tasks_or_budgets_in_one_view_are_told_apart(tmp_path: Path) -> None:
    spec = as_json(runs(tmp_path, ("t", "u")), "n", "p", "e")
    assert set(found(spec["workspace"], "groupBy")) == {"compared.value"}
    assert set(found(spec["report"], "groupBy")) == {"method.value.name"}
    write_run(tmp_path, "good", 0, budget={"name": "large", "max_steps": 9})
    parts = scopes(collect(tmp_path))
    assert [(part.task, len(part.runs)) for part in parts] == [("t", 6), ("u", 6), ("t", 1)]


def test_the_report_holds_the_table_and_the_verdicts(tmp_path: Path) -> None:
    spec = as_json(runs(tmp_path), "n", "p", "e")
    text = "".join(found(spec["report"], "content"))
    assert (
        "| method | parameters, % | t (accuracy) |" in text
        and "best mean: " in text
        and "fewer than three seeds" in text
    )
    (columns,) = {tuple(one) for one in found(spec["report"], "columnOrder")}
    assert "config:method.value.name" in columns and "summary:score/t" in columns and "summary:flags" in columns


def test_every_key_that_a_panel_reads_is_one_that_a_tracked_run_writes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A real run with a recorder in wandb's place: its configuration, its history and its summary."""
    written: dict[str, set[str]] = {"config": set(), "summary": set(), "history": set()}

    class Recorder(tracking.NullTracker):
        def log(self, values: Any, step: int) -> None:
            written["history"] |= set(values)

        def finish(self, record: Record) -> bool:
            written["summary"] |= {key for key, value in flat_summary(record).items() if value is not None}
            return True

    def opened(config: Any, mirrored: Any, directory: Path) -> Recorder:
        said = mirrored.config
        assert said[COMPARED].startswith("tiny_low_rank · site=attn.q+attn.v · function=low_rank · size=4")
        assert said[COMPARED].endswith(" | tiny | model | max_steps=20"), "the base model by its label, not `auto`"
        nested = {f"{key}.{one}" for key, value in said.items() if isinstance(value, dict) for one in value}
        written["config"] |= set(said) | nested
        return Recorder()

    monkeypatch.setitem(tracking.TRACKERS, "wandb", opened)
    record = run(tiny_config(tmp_path, tracking__name="wandb", budget__max_steps=20, tracking__project="mine"))
    assert record["status"] == "ok"
    spec = as_json(collect(tmp_path / "runs"), "n", "p", "e")
    text = json.dumps(spec)
    config = {key.replace(".value", "") for key in re.findall(r'"config:([^"]+)"', text)}
    config |= {key.replace(".value", "") for key in found(spec, "groupBy")}
    summary = set(re.findall(r'"summary(?::|_metrics\.)([^"]+)"', text))
    history = {
        key
        for panel in found(spec, "panels")
        if isinstance(panel, list)
        for one in panel
        if one["viewType"] == "Run History Line Plot"
        for key in one["config"]["metrics"]
    }
    assert len(config) > 8 and config <= written["config"]
    assert {"score/tiny", "params/trainable", "mem/peak_gib", "time/train_s"} <= summary <= written["summary"]
    assert history == {"train/loss"} <= written["history"]


@pytest.mark.parametrize("extra", [[], ["--dry-run", "--push"], ["--push", "--out", "x.json"]])
def test_one_of_dry_run_and_push(tmp_path: Path, capsys: pytest.CaptureFixture[str], extra: list[str]) -> None:
    assert main(["dashboard", str(tmp_path), *extra]) == 2
    assert "--dry-run" in capsys.readouterr().err


def test_no_login_is_one_error_and_asks_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    runs(tmp_path / "runs")
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    assert main(["dashboard", str(tmp_path / "runs"), "--push"]) == 2
    said = capsys.readouterr().err.splitlines()
    assert said[-1].startswith("error: --push: not logged in to wandb") and "wandb login" in said[-1]


def test_push_saves_both_or_says_what_it_saved(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    entries, saved = runs(tmp_path), []
    monkeypatch.setattr(pushing, "default_entity", lambda: "me")
    monkeypatch.setattr(wr.Report, "url", "https://wandb.example/report")
    monkeypatch.setattr(ws.Workspace, "url", "https://wandb.example/workspace")
    monkeypatch.setattr(wr.Report, "save", lambda self: saved.append((self.entity, self.project)))
    monkeypatch.setattr(ws.Workspace, "save", lambda self: saved.append((self.entity, self.project)))
    assert pushing.push(entries, "n", "p", "") == ["https://wandb.example/report", "https://wandb.example/workspace"]
    assert saved == [("me", "p")] * 2

    def refused(self: Any) -> None:
        raise RuntimeError("permission denied\nmore")

    monkeypatch.setattr(ws.Workspace, "save", refused)
    with pytest.raises(
        UnipetError, match=r"workspace \(permission denied\)\. Saved before it: https://wandb\.example/report"
    ):
        pushing.push(entries, "n", "p", "team")


def test_without_the_package_it_says_how_to_get_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pushing, "find_spec", lambda name: None)
    assert main(["dashboard", str(tmp_path), "--dry-run"]) == 2
    assert "pip install 'unipet[dashboard]'" in capsys.readouterr().err


def test_runs_that_never_began_make_no_dashboard(tmp_path: Path) -> None:
    write_run(tmp_path, "good", record={"run_id": None})
    with pytest.raises(UnipetError, match="no run here has a run_id"):
        as_json(collect(tmp_path), "n", "p", "e")
