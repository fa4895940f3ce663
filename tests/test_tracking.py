"""The tracker: a mirror that never stops a run, and never holds two runs."""

from __future__ import annotations

import contextlib
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
from run_room import tiny_config

from unipet import tracking
from unipet.config import TrackingConfig
from unipet.design import design
from unipet.errors import UnipetError
from unipet.library import load_method
from unipet.mirror import SUMMARY, flat_summary, mirrored_config
from unipet.record import blank_record
from unipet.tracking import NullTracker, TrackioTracker, WandbTracker, check_tracking, open_tracker

WANDB = TrackingConfig(name="wandb", group="sweep-1")


def test_none_does_nothing(tmp_path: Path) -> None:
    tracker = open_tracker(TrackingConfig(), "id", "name", [], {"runs_dir": str(tmp_path)})
    tracker.log({"loss": 1.0}, step=1)
    tracker.finish({"score": 1.0}, "ok")
    assert isinstance(tracker, NullTracker) and not any(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("config", "words"),
    [
        (TrackingConfig(name="wandbb"), "tracking.name: unknown 'wandbb'.*Did you mean 'wandb'"),
        (TrackingConfig(name="wandb", mode="off"), "tracking.mode: unknown 'off'.*offline, online"),
    ],
)
def test_wrong_settings_are_errors(config: TrackingConfig, words: str) -> None:
    with pytest.raises(UnipetError, match=words):
        check_tracking(config)


def test_a_missing_wandb_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tracking, "find_spec", lambda name: None)
    with pytest.raises(UnipetError, match="pip install wandb"):
        open_tracker(WANDB, "id", "name", [], {})


@pytest.mark.parametrize(
    ("insertions", "expected"),
    [
        ({}, dict.fromkeys(("function", "size", "position", "form", "composition", "scaling", "mixture"), "none")),
        (
            {
                "a": {
                    "function": {"name": "low_rank", "size": 4},
                    "position": {"site": ["attn.q", "attn.v"]},
                    "scaling": 2.0,
                }
            },
            {"function": "low_rank", "size": 4, "position": "attn.q, attn.v", "form": "parallel", "composition": "add"}
            | {"scaling": "constant", "mixture": "none"},
        ),
        (
            {
                "a": {
                    "function": {"name": "prefix", "size": 3},
                    "position": {"site": "attn.heads"},
                    "composition": "gated",
                },
                "b": {
                    "function": {"name": "bottleneck", "size": 5},
                    "position": {"site": "ffn", "form": "sequential"},
                    "mixture": {"experts": 2},
                },
            },
            {"function": "prefix + bottleneck", "size": "3 + 5", "position": "attn.heads + ffn"}
            | {
                "form": "parallel + sequential",
                "composition": "gated + add",
                "scaling": "constant",
                "mixture": "uniform",
            },
        ),
    ],
)
def test_every_design_dimension_is_a_key_of_its_own(insertions: dict[str, Any], expected: dict[str, Any]) -> None:
    resolved = {"method": load_method({"name": "m", "insertions": insertions}).to_dict(), "seed": 1}
    config = mirrored_config(resolved, "id", ["method:m"])
    assert config["design"] == expected
    assert (config["run_id"], config["tags"], config["seed"]) == ("id", ["method:m"], 1)
    assert design({}) == dict.fromkeys(expected, "none")


def test_the_summary_has_the_same_keys_for_every_run(tmp_path: Path) -> None:
    """Also for a run that failed at once; and every path of the table is one that a record has."""
    record = blank_record(tiny_config(tmp_path), "m", "id")
    assert flat_summary({}) == dict.fromkeys(SUMMARY)
    assert flat_summary(record) == dict.fromkeys(SUMMARY)
    for path in SUMMARY.values():
        part: Any = record
        for key in path:
            assert key in part
            part = part[key]
    record.update(score=0.5, metrics={"accuracy": 0.5}, params={"trainable": 7, "percent": 0.1})
    known = {"score": 0.5, "score/tiny": 0.5, "metrics/accuracy": 0.5, "params/trainable": 7, "params/pct": 0.1}
    assert {key: value for key, value in flat_summary(record).items() if value is not None} == known


class Broken:
    """A wandb run whose every call fails."""

    finished = 0

    def log(self, values: Any, step: int) -> None:
        raise OSError("no network")

    @property
    def summary(self) -> Any:
        raise OSError("no network")

    def finish(self, exit_code: int) -> None:
        Broken.finished += 1
        raise OSError("no network")


def test_a_breaking_wandb_warns_once_and_the_run_goes_on(capsys: pytest.CaptureFixture[str]) -> None:
    tracker = WandbTracker(Broken())
    for step in range(3):
        tracker.log({"loss": 1.0}, step=step)
    assert capsys.readouterr().err.count("wandb failed") == 1


def test_the_run_is_closed_even_without_its_summary(capsys: pytest.CaptureFixture[str]) -> None:
    Broken.finished = 0
    WandbTracker(Broken()).finish({}, "ok")
    assert Broken.finished == 1


def test_two_jobs_of_one_process_are_two_offline_runs(tmp_path: Path) -> None:
    import wandb

    seen = []
    for identity in ("aaaa1111", "bbbb2222"):
        resolved = {"runs_dir": str(tmp_path / "runs"), "method": {"name": "m", "insertions": {}}}
        tracker = open_tracker(WANDB, identity, f"m-t-none-{identity}", ["method:m"], resolved)
        assert isinstance(tracker, WandbTracker)
        run = tracker.run
        seen.append((run.id, run.name, run.group, tuple(run.tags), run.config["method"]["name"], run.offline))
        for step in (1, 2):
            tracker.log({"loss": 1.0 / step}, step=step)
        tracker.finish({"score": 0.5, "params": {"trainable": 7}}, "ok")
        assert wandb.run is None
    assert seen == [(i, f"m-t-none-{i}", "sweep-1", ("method:m",), "m", True) for i in ("aaaa1111", "bbbb2222")]
    written = sorted(path.name for path in (tmp_path / "runs" / "wandb").glob("offline-run-*/run-*.wandb"))
    assert written == ["run-aaaa1111.wandb", "run-bbbb2222.wandb"]


def test_a_job_that_starts_again_continues_the_same_run(tmp_path: Path) -> None:
    import wandb

    settings = []
    for _ in range(2):
        tracker = open_tracker(WANDB, "cccc3333", "n", [], {"runs_dir": str(tmp_path)})
        assert isinstance(tracker, WandbTracker)
        settings.append((tracker.run.id, tracker.run.settings.resume, tracker.run.job_type))
        tracker.log({"loss": 1.0}, step=1)
        tracker.finish({}, "failed")
    assert settings == [("cccc3333", "allow", "train")] * 2
    assert wandb.run is None
    assert {path.name for path in (tmp_path / "wandb").glob("offline-run-*/*.wandb")} == {"run-cccc3333.wandb"}


def test_without_a_network_an_online_run_is_kept_offline(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A server that refuses: nothing is lost, the run's files wait for `wandb sync`."""
    monkeypatch.setenv("WANDB_BASE_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("WANDB_API_KEY", "a" * 40)
    monkeypatch.setattr(tracking, "INIT_S", 1.0)
    online = TrackingConfig(name="wandb", mode="online")
    tracker = open_tracker(online, "dddd4444", "n", ["method:m"], {"runs_dir": str(tmp_path)})
    assert isinstance(tracker, WandbTracker) and tracker.run.offline and tracker.run.id == "dddd4444"
    tracker.log({"loss": 1.0}, step=1)
    tracker.finish({"score": 0.5}, "ok")
    said = capsys.readouterr().err
    assert said.count("warning: ") == 1 and "tracked offline" in said and "wandb sync" in said
    assert len(list((tmp_path / "wandb").glob("offline-run-*/run-dddd4444.wandb"))) == 1


@pytest.mark.parametrize(("status", "code"), [("ok", 0), ("skipped", 0), ("exceeded", 0), ("failed", 1)])
def test_what_is_a_result_is_not_a_crash(status: str, code: int) -> None:
    seen = []
    run = SimpleNamespace(summary={}, finish=lambda exit_code: seen.append(exit_code))
    WandbTracker(run).finish({"score": 1.0}, status)
    assert seen == [code] and run.summary["status"] == status


def test_trackio_gets_the_same_calls(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    seen: list[Any] = []

    class Run:
        def log(self, values: dict[str, Any], step: int | None = None) -> None:
            seen.append((values, step))

        def finish(self) -> None:
            print("talk")
            seen.append("finished")

    fake = ModuleType("trackio")
    fake.init = lambda **said: seen.append(said) or Run()  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "trackio", fake)
    monkeypatch.setattr(tracking, "find_spec", lambda name: object())
    monkeypatch.setenv("TRACKIO_DIR", str(tmp_path / "mine"))
    config = TrackingConfig(name="trackio", group="sweep-1")
    tracker = open_tracker(config, "eeee5555", "m-t-s0", ["method:m"], {"runs_dir": str(tmp_path), "method": {}})
    assert isinstance(tracker, TrackioTracker)
    tracker.log({"train/loss": 1.0, "train/grad_norm": None}, step=3)  # type: ignore[dict-item]
    tracker.finish({"score": 0.5}, "ok")
    started, logged, summary, finished = seen
    assert (started["name"], started["group"], started["resume"]) == ("m-t-s0-eeee5555", "sweep-1", "allow")
    assert started["config"]["run_id"] == "eeee5555" and started["config"]["design"]["function"] == "none"
    assert logged == ({"train/loss": 1.0}, 3)
    assert summary == ({"score": 0.5, "status": "ok"}, None) and finished == "finished"
    assert capsys.readouterr().out == "", "standard output is the command's own"


def test_the_real_trackio(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRACKIO_DIR", str(tmp_path / "trackio"))  # before the import, which reads it
    import sqlite3

    for step in (1, 2):  # the second continues the first
        tracker = open_tracker(TrackingConfig(name="trackio"), "ffff6666", "n", [], {"runs_dir": str(tmp_path)})
        assert isinstance(tracker, TrackioTracker)
        tracker.log({"train/loss": 1.0}, step=step)
        tracker.finish({"score": 0.5}, "ok")
    (path,) = (tmp_path / "trackio").glob("*.db")
    with contextlib.closing(sqlite3.connect(path)) as base:
        rows = base.execute("select run_name, step, metrics from metrics").fetchall()
    assert {row[0] for row in rows} == {"n-ffff6666"} and {1, 2} <= {row[1] for row in rows}
    assert any('"score"' in str(row[2]) for row in rows)
