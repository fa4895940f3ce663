"""The tracker: a mirror that never stops a run, and never holds two runs."""

from __future__ import annotations

import contextlib
import sys
from dataclasses import replace
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from tests.support.running import tiny_config
from unipet.calculus.library import load_method
from unipet.config import TrackingConfig
from unipet.errors import UnipetError
from unipet.runs import tracking
from unipet.runs.design import design
from unipet.runs.record import Fitted, Params, Record, blank_record
from unipet.runs.run import run
from unipet.runs.tracked_summary import SUMMARY, flat_summary, mirrored, own_files
from unipet.runs.tracking import NullTracker, TrackioTracker, WandbTracker, check_tracking, open_tracker

WANDB = TrackingConfig(name="wandb", group="sweep-1")


def test_none_does_nothing(tmp_path: Path) -> None:
    tracker = open_tracker(TrackingConfig(), Record(run_id="id"), {"runs_dir": str(tmp_path)})
    tracker.log({"loss": 1.0}, step=1)
    tracker.finish(Record(status="ok", score=1.0))
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
        open_tracker(WANDB, Record(run_id="id"), {})


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
    said = mirrored(Record(run_id="id", method="m", task="t", model="b", budget="none", seed=1), resolved)
    config = said.config
    assert {key: config["design"][key] for key in expected} == expected
    assert set(config["design"]) - set(expected) == set(insertions)
    tags = ["method:m", "task:t", "model:b", "budget:none"]
    assert (config["run_id"], config["tags"], config["seed"], said.run_id) == ("id", tags, 1, "id")
    assert design({}) == dict.fromkeys(expected, "none")


def test_the_summary_has_the_same_keys_for_every_run(tmp_path: Path) -> None:
    """Also for a run that failed at once."""
    record = blank_record(tiny_config(tmp_path), "m", "id")
    assert flat_summary(Record()) == dict.fromkeys(SUMMARY)
    assert flat_summary(record) == dict.fromkeys(SUMMARY)
    record.score, record.metrics = 0.5, {"accuracy": 0.5}
    record.params = Params(trainable=7, percent=0.1)
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
    WandbTracker(Broken()).finish(Record(status="ok"))
    assert Broken.finished == 1


def test_two_jobs_of_one_process_are_two_offline_runs(tmp_path: Path) -> None:
    import wandb

    seen = []
    for identity in ("aaaa1111", "bbbb2222"):
        resolved = {"runs_dir": str(tmp_path / "runs"), "method": {"name": "m", "insertions": {}}}
        record = Record(run_id=identity, method="m", task="t", model="b", budget="none", seed=0)
        tracker = open_tracker(WANDB, record, resolved)
        assert isinstance(tracker, WandbTracker)
        run = tracker.run
        seen.append((run.id, run.name, run.group, tuple(run.tags), run.config["method"]["name"], run.offline))
        for step in (1, 2):
            tracker.log({"loss": 1.0 / step}, step=step)
        tracker.finish(Record(status="ok", score=0.5, params=Params(trainable=7)))
        assert wandb.run is None
    tags = ("method:m", "task:t", "model:b", "budget:none")
    assert [(one[0], one[1], one[2], set(one[3]), *one[4:]) for one in seen] == [
        (i, f"m · t · b · seed 0 · {i}", "sweep-1", set(tags), "m", True) for i in ("aaaa1111", "bbbb2222")
    ]
    written = sorted(path.name for path in (tmp_path / "runs" / "wandb").glob("offline-run-*/run-*.wandb"))
    assert written == ["run-aaaa1111.wandb", "run-bbbb2222.wandb"]


def test_a_job_that_starts_again_continues_the_same_run(tmp_path: Path) -> None:
    import wandb

    settings = []
    for _ in range(2):
        tracker = open_tracker(WANDB, Record(run_id="cccc3333"), {"runs_dir": str(tmp_path)})
        assert isinstance(tracker, WandbTracker)
        settings.append((tracker.run.id, tracker.run.settings.resume, tracker.run.job_type))
        tracker.log({"loss": 1.0}, step=1)
        tracker.finish(Record(status="failed"))
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
    tracker = open_tracker(online, Record(run_id="dddd4444"), {"runs_dir": str(tmp_path)})
    assert isinstance(tracker, WandbTracker) and tracker.run.offline and tracker.run.id == "dddd4444"
    tracker.log({"loss": 1.0}, step=1)
    tracker.finish(Record(status="ok", score=0.5))
    said = capsys.readouterr().err
    assert said.count("warning: ") == 1 and "tracked offline" in said and "wandb sync" in said
    assert len(list((tmp_path / "wandb").glob("offline-run-*/run-dddd4444.wandb"))) == 1


@pytest.mark.parametrize(("status", "code"), [("ok", 0), ("skipped", 0), ("exceeded", 0), ("failed", 1)])
def test_what_is_a_result_is_not_a_crash(status: str, code: int) -> None:
    seen = []
    run = SimpleNamespace(summary={}, finish=lambda exit_code: seen.append(exit_code))
    WandbTracker(run).finish(Record(status=status, score=1.0))
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
    record = Record(run_id="eeee5555", method="m", task="t", model="b", budget="none", seed=0)
    tracker = open_tracker(config, record, {"runs_dir": str(tmp_path), "method": {}})
    assert isinstance(tracker, TrackioTracker)
    tracker.log({"train/loss": 1.0, "train/grad_norm": None}, step=3)  # type: ignore[dict-item]
    tracker.finish(Record(status="ok", score=0.5))
    started, logged, summary, finished = seen
    assert (started["name"], started["group"], started["resume"]) == (
        "m · t · b · seed 0 · eeee5555",
        "sweep-1",
        "allow",
    )
    assert started["config"]["run_id"] == "eeee5555" and started["config"]["design"]["function"] == "none"
    assert logged == ({"train/loss": 1.0}, 3)
    assert summary == ({"score": 0.5, "status": "ok"}, None) and finished == "finished"
    assert capsys.readouterr().out == "", "standard output is the command's own"


def test_the_real_trackio(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRACKIO_DIR", str(tmp_path / "trackio"))  # before the import, which reads it
    import sqlite3

    for step in (1, 2):  # the second continues the first
        tracker = open_tracker(TrackingConfig(name="trackio"), Record(run_id="ffff6666"), {"runs_dir": str(tmp_path)})
        assert isinstance(tracker, TrackioTracker)
        tracker.log({"train/loss": 1.0}, step=step)
        tracker.finish(Record(status="ok", score=0.5))
    (path,) = (tmp_path / "trackio").glob("*.db")
    with contextlib.closing(sqlite3.connect(path)) as base:
        rows = base.execute("select run_name, step, metrics from metrics").fetchall()
    assert {row[0] for row in rows} == {"? · ? · ? · ? · seed None · ffff6666"} and {1, 2} <= {row[1] for row in rows}
    assert any('"score"' in str(row[2]) for row in rows)


def record_of(composition: dict[str, Any], identity: str = "abcd1234ef", **more: Any) -> Record:
    names = {"method": composition["name"], "task": "t", "model": "b", "budget": "none"}
    return Record(run_id=identity, seed=0, composition=composition, **names, **more)


def test_names_and_keys_tell_variants_apart() -> None:
    """Two variants of one shipped method: what differs from its file is in the name, every option is a key."""
    names, keys = [], []
    for site, size in (("attn", 8), ("ffn", 8), ("attn", 16)):
        method = load_method("mam").to_dict()
        method["insertions"]["ffn"]["position"]["site"] = [site]
        method["insertions"]["attention"]["function"]["size"] = size
        said = mirrored(record_of(method), {"method": method, "optim": {"name": "adamw", "lr": 0.01}})
        names.append(said.name)
        keys.append((said.config["design"]["ffn"]["site"], said.config["design"]["attention"]["size"]))
    assert names == [
        "mam · ffn site=attn · attention size=8 · lr=0.01 · t · b · seed 0 · abcd1234",
        "mam · attention size=8 · lr=0.01 · t · b · seed 0 · abcd1234",
        "mam · ffn site=attn · attention size=16 · lr=0.01 · t · b · seed 0 · abcd1234",
    ]
    assert keys == [("attn", 8), ("ffn", 8), ("attn", 16)]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda m: m["insertions"]["attention"]["function"].update(name="vector"), "function=vector"),
        (lambda m: m.update(unfreeze=["head", "norm"]), "unfreeze=head+norm"),
        (lambda m: m["objective"].update(consistency={"weight": 1.0}), "consistency weight=1.0"),
        (lambda m: m["insertions"]["attention"].update(mixture={"experts": 4}), "experts=4"),
    ],
)
def test_whatever_differs_from_the_file_is_in_the_name(change: Any, said: str) -> None:
    from unipet.calculus.library import load_method

    method = load_method("lora").to_dict()
    change(method)
    assert said in mirrored(record_of(method), {}).name.split(" · ")[1:][0:3]


def test_the_fitted_sizes_are_tracked_not_those_asked_for() -> None:
    """Also of a record from before there was a composition: the configuration's with the fitted sizes in place."""
    asked, key = load_method("lora").to_dict(), "method.insertions.attention.function.size"
    fitted = Fitted(requested={key: 16}, sizes={key: 2})
    trained = load_method("lora").to_dict()
    trained["insertions"]["attention"]["function"]["size"] = 2
    told = record_of(trained, fitted=fitted)
    for record in (told, replace(told, composition=None)):
        said = mirrored(record, {"method": asked})
        assert said.config["design"]["size"] == said.config["design"]["attention"]["size"] == 2
        assert said.config["method"]["insertions"]["attention"]["function"]["size"] == 2
        assert said.config["fitted"] == {"requested": {key: 16}, "sizes": {key: 2}} and said.name.startswith(
            "lora · size=2 · "
        )
    assert asked["insertions"]["attention"]["function"]["size"] == 16, "what was asked for stays as it was"


def test_a_long_name_keeps_its_end() -> None:
    names = [tracking.shortened("x" * 200 + f" · seed {seed} · abcd{seed}") for seed in range(3)]
    assert len(set(names)) == 3 and {len(name) for name in names} == {tracking.NAME}
    assert tracking.shortened("short") == "short"


class Noted(NullTracker):
    """A tracker that keeps what it is told."""

    def __init__(self, told: list[Any]) -> None:
        self.told = told

    def log(self, values: Any, step: int) -> None:
        self.told.append((step, values))

    def finish(self, record: Record) -> bool:
        self.told.append((record.status, flat_summary(record)))
        return True


def test_a_finished_run_is_tracked_from_its_record_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    told: dict[str, list[Any]] = {}

    def opened(config: Any, said: Any, directory: Path) -> Noted:
        told.setdefault(f"{config.project}/{said.run_id}", []).append(said.name)
        return Noted(told[f"{config.project}/{said.run_id}"])

    monkeypatch.setitem(tracking.TRACKERS, "wandb", opened)
    plain = tiny_config(tmp_path, task__selection="train_holdout", task__selection_size=8)
    record = run(plain)
    assert not told
    for _ in range(2):
        assert run(replace(plain, tracking=WANDB)) == record
    said = capsys.readouterr().out
    assert said.count("uploaded from its record") == 1 and said.count("tracked before, not uploaded again") == 1
    ((name, *history, (status, summary)),) = told.values()
    assert list(told) == [f"unipet/{record['run_id']}"] and name.endswith(f"seed 0 · {record['run_id'][:8]}")
    assert (status, summary["score"]) == ("ok", record["score"])
    losses = [step for step, values in history if "train/loss" in values]
    assert losses[0] == 1 and losses == sorted(losses)
    scores = {str(step): one for step, values in history if (one := values.get("selection/accuracy")) is not None}
    assert scores == record["data"]["selection"]["scores"] and len(scores) > 1

    live = run(replace(plain, tracking=WANDB, rerun=True))  # a new result: tracked live, and not uploaded again
    assert run(replace(plain, tracking=WANDB)) == live
    again = next(iter(told.values()))
    assert [one for one in again if isinstance(one, str)] == [name, name] and len(again) == 2 * (len(history) + 2)
    run(replace(plain, tracking=replace(WANDB, project="other")))
    assert list(told)[1] == f"other/{record['run_id']}"


def test_selection_scores_are_lines_of_the_history(tmp_path: Path) -> None:
    """A metric of which less is better stands there as it is, not turned."""
    import json

    record = run(tiny_config(tmp_path, task__selection="train_holdout", task__selection_size=8))
    (directory,) = (tmp_path / "runs").glob("tiny*")
    rows = [json.loads(line) for line in (directory / "metrics.jsonl").read_text().splitlines()]
    scores = {str(row["step"]): row["selection/accuracy"] for row in rows if "selection/accuracy" in row}
    assert scores == record["data"]["selection"]["scores"]
    assert all({"step", "loss"} <= set(row) for row in rows if "selection/accuracy" not in row)


def test_a_method_of_ones_own_is_compared_with_its_own_file(tmp_path: Path) -> None:
    (tmp_path / "method").mkdir()
    text = "name: mine\ninsertions:\n  a:\n    function: {name: low_rank, size: 8}\n    position: attn.q\n"
    (tmp_path / "method" / "mine.yaml").write_text(text)
    method = load_method(tmp_path / "method" / "mine.yaml").to_dict()
    method["insertions"]["a"]["function"]["size"] = 4
    assert mirrored(record_of(method), {}).name.startswith("mine · site=attn.q · function=low_rank · size=4 · t ")
    with own_files(str(tmp_path)):
        assert mirrored(record_of(method), {}).name.startswith("mine · size=4 · t ")


class Lines:
    """A run of a tracker that has the lines before step 3."""

    starting_step, offline = 3, False

    def __init__(self) -> None:
        self.steps: list[int] = []

    def log(self, values: Any, step: int) -> None:
        self.steps.append(step)


def test_a_run_that_goes_on_online_tells_no_step_twice(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    import wandb

    run = Lines()
    monkeypatch.setattr(wandb, "init", lambda **said: run)
    online = TrackingConfig(name="wandb", mode="online")
    tracker = open_tracker(online, Record(run_id="dddd4444"), {"runs_dir": str(tmp_path)})
    for step in range(1, 6):
        tracker.log({"train/loss": 1.0}, step)
    assert run.steps == [3, 4, 5]
