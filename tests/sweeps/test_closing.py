"""Where a run's time goes, lines while it lasts, and what it closes with."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import pytest

from tests.support.running import LOW_RANK, TINY_TASK, tiny_config, write_world
from unipet.cli.main import main
from unipet.output import progress, stopwatch
from unipet.runs.record import Data, ErrorOf, InsertionRow, Record, Selection, Time
from unipet.runs.run import run
from unipet.sweeps import closing


class Clock:
    """A time that only passes when told."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture()
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    made = Clock()
    monkeypatch.setattr(time, "perf_counter", made)
    return made


def test_phases_do_not_overlap_and_add_up(clock: Clock) -> None:
    with stopwatch.timed() as watch:
        clock.now += 1
        with stopwatch.phase("training"):
            clock.now += 10
            with stopwatch.phase("selection"):
                assert stopwatch.current_phase() == "selection"
                clock.now += 3
            clock.now += 20
        with pytest.raises(ValueError), stopwatch.phase("evaluation"):
            clock.now += 4
            raise ValueError
        found = watch.seconds()
    assert {name: value for name, value in found.items() if value} == {
        "training": 30.0,
        "selection": 3.0,
        "evaluation": 4.0,
        "other": 1.0,
    }
    assert list(found) == [*stopwatch.PHASES, "other"] and sum(found.values()) == 38.0
    with stopwatch.phase("training"):
        assert stopwatch.current_phase() == "evaluation", "nothing is timed here"


def test_the_first_run_of_a_program_counts_from_its_start(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stopwatch, "_process_age", lambda: 7.0)
    stopwatch.count_from_process_start()
    clock.now += 2
    with stopwatch.timed() as first:
        clock.now += 1
        assert first.seconds() == {**dict.fromkeys(stopwatch.PHASES, 0.0), "import": 9.0, "other": 1.0}
    with stopwatch.timed() as second:
        assert sum(second.seconds().values()) == 0.0


def test_the_age_of_this_process_is_known() -> None:
    before = stopwatch._process_age()
    time.sleep(0.05)
    assert 0.02 < stopwatch._process_age() - before < 5


def test_a_record_says_where_its_time_went(tmp_path: Path) -> None:
    started = time.perf_counter()
    config = tiny_config(tmp_path, task__selection="train_holdout", budget__max_steps=6)
    record = run(config)
    took, seconds = time.perf_counter() - started, record["time"]
    phases = seconds["phases_s"]
    assert list(phases) == [*stopwatch.PHASES, "other"]
    assert all(phases[name] > 0 for name in ("data", "base_model", "training", "selection", "evaluation", "saving"))
    assert (
        sum(phases.values()) == pytest.approx(seconds["total_s"], abs=1e-9) and 0.5 * took < seconds["total_s"] <= took
    )
    assert phases["training"] >= seconds["train_s"], "the steps, and setting up around them"


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    files = {"task/tiny": TINY_TASK, "method/mine": {**LOW_RANK, "name": "mine"}}
    return write_world(tmp_path_factory.mktemp("world"), files)


def words(world: Path, runs: Path, *more: str) -> list[str]:
    base = ["--config-dir", str(world / "mine"), "task=tiny", f"task.data_dir={world / 'data'}", "method=mine"]
    return [*base, f"model={world / 'model'}", "optim.batch_size=8", "budget.max_steps=6", f"runs_dir={runs}", *more]


def test_the_closing_summary(world: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", *words(world, tmp_path / "my runs")]) == 0
    out, err = capsys.readouterr()
    (directory,) = (path.parent for path in (tmp_path / "my runs").glob("*/result.json"))
    record = json.loads((directory / "result.json").read_text())
    shown = dict(line.split(maxsplit=1) for line in out.splitlines())
    total, parts = shown["time"].removesuffix(")").split(" s (")
    tenths = [round(10 * float(part.rsplit(" ", 1)[1])) for part in parts.split(", ")]
    assert sum(tenths) == round(10 * float(total)) and float(total) == pytest.approx(
        record["time"]["total_s"], abs=0.051
    )
    chosen = record["data"]["selection"]
    score = chosen["scores"][str(chosen["step"])]
    assert shown["checkpoint"].startswith(f"step {chosen['step']} of 6, by accuracy {score:.4f} on 9 held-out training")
    assert shown["score"] == f"{record['score']:.4f} accuracy" and shown["directory"] == str(directory)
    assert f"unipet evaluate '{directory}'" in shown["next"], "quoted for a shell"
    assert "training: step 1 of 6, loss " in err and err.splitlines()[-1].startswith("training: step 6 of 6, loss ")


def test_a_sweep_says_it_in_one_line_per_job(world: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert (
        main(
            [
                "train",
                "-m",
                *words(world, tmp_path, "seed=0,1", "task.selection=train_holdout", "launcher.isolate=false"),
            ]
        )
        == 0
    )
    out, err = capsys.readouterr()
    jobs = [line for line in err.splitlines() if line.startswith("    ok: accuracy ")]
    assert len(jobs) == 2 and all("; checkpoint of step " in line and " s (" in line for line in jobs)
    assert out.splitlines()[-1].startswith("next: unipet report ")


def test_the_score_of_a_loss_is_shown_as_a_loss() -> None:
    selection = Selection("validation", 1200, "loss", 4, {"2": -2.0, "4": -1.5})
    record = Record(data=Data(selection=selection), time=Time(steps=4))
    assert closing.checkpoint(record) == "step 4 of 4, by loss 1.5000 on 1,200 validation examples; 2 were compared"


def test_parts_are_rounded_so_that_they_add_up() -> None:
    assert closing.rounded([0.4, 0.4, 0.4]) == [1, 0, 0]
    assert closing.rounded([1.5, 2.5]) == [2, 2] and closing.rounded([]) == []
    record = Record(time=Time(phases_s={"import": 0.04, "base_model": 0.04, "training": 60.02, "other": 0.0}))
    assert closing.spent(record) == "60.1 s (import 0.1, training 60.0)"


@pytest.mark.parametrize(
    ("status", "more", "shown"),
    [
        ("failed", {"error": ErrorOf("UnipetError", "bad data")}, "reason     bad data"),
        ("exceeded", {"reason": "out of memory in training"}, "reason     out of memory in training"),
        ("skipped", {"reason": "no size fits"}, "reason     no size fits"),
    ],
)
def test_a_run_without_a_score_says_why(status: str, more: dict[str, Any], shown: str, tmp_path: Path) -> None:
    record = Record(status=status, method="m", task="t", model="b", seed=0, **more)
    text = closing.summary(record, tmp_path)
    assert shown in text.splitlines() and "next" not in text and closing.outcome(record).startswith(f"{status}: ")
    (tmp_path / "error.txt").write_text("Traceback")
    assert closing.summary(record, tmp_path).splitlines()[-1] == f"next       cat {tmp_path}/error.txt"


def test_lines_come_at_the_first_step_the_last_and_every_few_seconds(
    clock: Clock, capsys: pytest.CaptureFixture[str]
) -> None:
    shown = progress.Progress("training", 100, "step")
    for step in range(1, 101):
        clock.now += 1.0
        shown.note(loss=1 / step)
        shown.advance()
    shown.close()
    shown.close()
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == "training: step 1 of 100, loss 1"
    assert lines[1] == "training: step 6 of 100, loss 0.1667, 94 s left"
    assert lines[-2].startswith("training: step 96 of 100") and lines[-1] == "training: step 100 of 100, loss 0.01"
    assert len(lines) == 21


def test_a_training_that_ends_early_says_where(clock: Clock, capsys: pytest.CaptureFixture[str]) -> None:
    shown = progress.Progress("training", 100, "step")
    for _ in range(3):
        shown.advance()
    shown.close()
    assert capsys.readouterr().err == "training: step 1 of 100\ntraining: step 3 of 100\n"


def test_what_is_soon_over_says_nothing(clock: Clock, capsys: pytest.CaptureFixture[str]) -> None:
    assert list(progress.counted([[1, 2], [3]], 3, "evaluation")) == [[1, 2], [3]]
    assert capsys.readouterr().err == ""
    for batch in progress.counted([[0] * 8] * 10, 80, "evaluation"):
        clock.now += 2.0
        assert len(batch) == 8
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == "evaluation: example 24 of 80, 14 s left" and lines[-1] == "evaluation: example 80 of 80"


def test_a_terminal_gets_a_bar(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(progress, "_watched", lambda: True)
    shown = progress.Progress("training", 2, "step")
    shown.note(loss=0.25)
    shown.advance(2)
    shown.close()
    err = capsys.readouterr().err
    assert "\r" in err and "2/2" in err and "loss=0.25" in err and "training: step" not in err


def test_waiting_says_so(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(progress, "EVERY_S", 0.1)
    with progress.waiting("loading"), progress.waiting("tokenising 7 examples"):
        time.sleep(0.35)
    with progress.waiting("quick"):
        pass
    lines = capsys.readouterr().err.splitlines()
    assert lines == ["tokenising 7 examples: 0.1 s", "tokenising 7 examples: 0.2 s"], (
        "the inner one speaks, twice as late"
    )


@pytest.mark.parametrize(("foldable", "offered"), [([True], True), ([True, False], False), ([], True)])
def test_merging_is_offered_where_the_method_folds(foldable: list[bool], offered: bool, tmp_path: Path) -> None:
    record = Record(status="ok", insertions=[InsertionRow(foldable=folds) for folds in foldable])
    said = closing.next_command(record, tmp_path)
    assert ("unipet merge" in said) == offered and "unipet evaluate" in said
