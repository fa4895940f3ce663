"""Early stopping: after so many scored checkpoints that were no better, alone, on a rung and after an interruption."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

import unipet
from tests.support.resuming import assert_same, config_in, finished, killed
from tests.support.running import LOW_RANK, MIXTURE, resolved, tiny_config
from tests.support.tiny import tiny_bert
from unipet.config import ModelConfig, RunConfig, TaskConfig, plain_values
from unipet.errors import UnipetError
from unipet.runs import identity
from unipet.runs.record import Identity
from unipet.runs.run import perform, prepare, run
from unipet.tasks import check_task
from unipet.training.best import Best, Patience, scored_after
from unipet.training.ranks import ALONE
from unipet.training.sharding import Sharding

#: 30 steps, a checkpoint after every second one; with eight examples the score soon stops to rise.
STOPPING: dict[str, Any] = {
    "task__selection": "train_holdout",
    "task__selection_size": 8,
    "task__selection_checkpoints": 15,
    "task__patience": 2,
    "optim__epochs": 6,
}


class Scripted(Best):
    """Scores that are known beforehand."""

    def __init__(self, scores: list[float]) -> None:
        model = tiny_bert()
        unipet.adapt(model, LOW_RANK)
        super().__init__(model, iter(scores).__next__, checkpoints=10)


@pytest.mark.parametrize(
    ("scores", "patience", "steps"),
    [
        ([0.1, 0.2, 0.2, 0.2, 0.9], 2, 4),  # an equal score is no better
        ([0.1, 0.2, 0.1, 0.3, 0.2, 0.1, 0.9], 2, 6),  # a better one begins the count anew
        ([0.5, 0.4, 0.3], 1, 2),
        ([0.5, 0.4, 0.3], 9, 10),  # the last step ends it
        ([0.1] * 9 + [0.1], None, 10),
    ],
)
def test_the_count_of_checkpoints_that_were_no_better(scores: list[float], patience: int | None, steps: int) -> None:
    best = Scripted([*scores, *[0.0] * 10])
    stop = Patience(patience, 10, best, ALONE, Sharding())
    state, control = SimpleNamespace(global_step=0, max_steps=10), SimpleNamespace(should_training_stop=False)
    while not control.should_training_stop:
        state.global_step += 1
        control.should_training_stop = state.global_step == state.max_steps
        for each in (best, stop):
            each.on_step_end(SimpleNamespace(warmup_steps=0), state, control)
    assert state.global_step == steps and stop.exhausted == (steps < 10)


@pytest.mark.parametrize(("steps", "checkpoints"), [(30, 5), (30, 15), (7, 3), (3, 10)])
def test_no_more_checkpoints_are_scored_than_asked_for_and_the_last_step_is(steps: int, checkpoints: int) -> None:
    scored = [step for step in range(1, steps + 1) if scored_after(step, steps, 0, checkpoints)]
    assert len(scored) <= checkpoints and scored[-1] == steps


def test_a_run_ends_by_patience_and_keeps_the_best_checkpoint(tmp_path: Path) -> None:
    config = tiny_config(tmp_path, LOW_RANK, **STOPPING)
    record = run(config)
    assert record["status"] == "ok", record["error"]
    assert record["stopped_by"] == "task.patience" and record["time"]["steps"] < 30
    selection = record["data"]["selection"]
    scores = list(selection["scores"].values())
    assert max(scores) not in scores[-2:] or scores.index(max(scores)) == len(scores) - 3
    assert selection["scores"][str(selection["step"])] == max(scores)
    whole = run(tiny_config(tmp_path, LOW_RANK, **{**STOPPING, "task__patience": None}))
    assert whole["stopped_by"] == "epochs" and whole["time"]["steps"] == 30
    assert list(whole["data"]["selection"]["scores"].items())[: len(scores)] == list(selection["scores"].items())


@pytest.mark.parametrize("step", [3, 4], ids=["between checkpoints", "after one"])
def test_a_killed_run_ends_by_patience_as_an_undisturbed_one(tmp_path: Path, step: int) -> None:
    alone = config_in(tmp_path, MIXTURE, "alone", None, **STOPPING)
    config = config_in(tmp_path, MIXTURE, "killed", "1 step", **STOPPING)
    assert finished(alone)["stopped_by"] == "task.patience"
    killed(config, step)
    record = finished(config)
    assert record["resumed"] == [step] and record["stopped_by"] == "task.patience"
    assert_same(alone, config)


def test_a_rung_that_patience_ends_is_what_the_next_one_ends_with(tmp_path: Path) -> None:
    config = tiny_config(tmp_path, LOW_RANK, **STOPPING)
    straight = perform(config)
    step = straight.record.time.steps
    assert step is not None
    for share in (step / 30, 0.9):  # it ends at the rung, and before it
        at = replace(config, runs_dir=str(tmp_path / f"rungs-{share:.2f}"))
        first = perform(replace(at, trial=replace(at.trial, until=share)))
        assert (first.record.stopped_by, first.record.time.steps) == ("task.patience", step)
        second = perform(replace(at, trial=replace(at.trial, after=share)))
        assert (second.record.stopped_by, second.record.score) == ("task.patience", straight.record.score)
        mine, theirs = (done.directory / "adapter" / "adapter.safetensors" for done in (second, straight))
        assert mine.read_bytes() == theirs.read_bytes()


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"selection": "none"}, "task.selection=none. Use task.selection=train_holdout"),
        ({"shots": 4}, "holds none out. Use task.selection=shots"),
    ],
)
def test_patience_without_a_selection_split_is_refused(changes: dict[str, Any], said: str) -> None:
    task = TaskConfig(name="t", text=["s"], labels=["a", "b"], metrics=["accuracy"], data_dir="d", patience=2)
    check_task(task)
    with pytest.raises(UnipetError, match=r"task\.patience: 2 given") as error:
        check_task(replace(task, **changes))
    assert said in str(error.value)


@pytest.mark.parametrize("value", [0, -1, 1.5, "two"])
def test_patience_is_a_whole_number_from_one(value: object) -> None:
    task = TaskConfig(name="t", text=["s"], labels=["a", "b"], metrics=["accuracy"], data_dir="d")
    with pytest.raises(UnipetError, match=r"task\.patience"):
        check_task(replace(task, patience=value))  # type: ignore[arg-type]


def test_keys_that_came_later_change_no_run_that_does_not_use_them(tmp_path: Path) -> None:
    """The identity of this configuration, as it was before there were such keys."""
    later = {"selection_checkpoints", "patience", "class_weights", "label_columns", "evaluation_sets", "reported_set"}
    plain = plain_values(RunConfig())["task"]
    assert set(plain) == set(vars(TaskConfig())) - later
    used = replace(RunConfig(), task=TaskConfig(patience=3, evaluation_sets={"a": "b"}))
    assert plain_values(used)["task"].keys() - plain.keys() == {"patience", "evaluation_sets"}
    config = tiny_config(tmp_path, LOW_RANK)
    task = TaskConfig(name="tiny", text=["s"], labels=["a", "b"], metrics=["accuracy"])
    told = resolved(RunConfig(method=LOW_RANK, task=task, model=ModelConfig(name="auto", path="x")))
    assert identity.run_id(told, Identity("", {}, None, {}, 4)) == "6db9e0c1b5f94a23"
    assert later.isdisjoint(resolved(config)["task"]) and later.isdisjoint(prepare(config).resolved["task"])
