"""The tracker: a mirror that never stops a run, and never holds two runs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from unipet import tracking
from unipet.config import TrackingConfig
from unipet.errors import UnipetError
from unipet.tracking import NullTracker, WandbTracker, check_tracking, flatten, open_tracker

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


def test_flatten() -> None:
    assert flatten({"score": 1, "params": {"trainable": 2}}) == {"score": 1, "params/trainable": 2}


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
