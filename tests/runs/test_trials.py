"""A run that is a trial of a search: scored on the selection split, ended at a rung, and gone on with at the next one."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.support.resuming import assert_same, at_step, config_in, die, finished, in_child
from tests.support.running import LOW_RANK, MIXTURE, run_dir, run_id, tiny_config
from unipet.config import RunConfig, TrialConfig
from unipet.errors import UnipetError
from unipet.runs.prepare import prepare
from unipet.runs.run import evaluate, run
from unipet.training.schedule import rung_step


def trial(config: RunConfig, until: float = 1.0, after: float = 0.0, **changes: Any) -> RunConfig:
    return replace(config, trial=TrialConfig(scored_on="selection", until=until, after=after, **changes))


def study(root: Path, runs: str, method: dict[str, Any] = LOW_RANK, every: str | None = "100 minutes") -> RunConfig:
    return config_in(root, method, runs, every, task__selection="train_holdout")


def lines(config: RunConfig) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (run_dir(config) / "predictions.jsonl").read_text().splitlines()]


def test_a_trial_is_scored_on_the_selection_split(tmp_path: Path) -> None:
    final, chosen_by = tiny_config(tmp_path, task__selection="train_holdout"), None
    chosen_by = trial(final, role="trial", search="random", study="a=1", number=3, trials=4, seeds=1)
    record = run(chosen_by)
    assert record["status"] == "ok", record["error"]
    ids = {line["id"] for line in lines(chosen_by)}
    assert len(ids) == record["data"]["selection"]["examples"] > 0
    assert {each.split("-")[0] for each in ids} == {"train"}, "no reported example was looked at"
    selection = record["data"]["selection"]
    assert record["score"] == pytest.approx(max(selection["scores"].values()))
    assert record["trial"] == {
        "scored_on": "selection",
        "role": "trial",
        "until": 1.0,
        "search": "random",
        "study": "a=1",
        "number": 3,
        "trials": 4,
        "seeds": 1,
    }
    assert evaluate(run_dir(chosen_by))["reproduced"]
    reported = run(final)
    assert {line["id"].split("-")[0] for line in lines(final)} == {"validation"}
    assert "trial" not in reported and reported["run_id"] != record["run_id"]


def test_what_asks_for_a_run_is_no_part_of_it(tmp_path: Path) -> None:
    config = tiny_config(tmp_path, task__selection="train_holdout")
    final = replace(config, trial=TrialConfig(role="final", search="random", study="a", number=1, trials=8, seeds=2))
    assert run_id(final) == run_id(config)
    assert run_id(trial(config)) != run_id(config) != run_id(trial(config, until=0.5)) != run_id(trial(config))
    assert run_id(trial(config, until=0.5, after=0.25)) == run_id(trial(config, until=0.5))
    assert "trial" not in run(config)
    again = run(final)  # finished before; its record says now what it is
    assert again["trial"]["role"] == "final" and again["trial"]["trials"] == 8
    assert json.loads((run_dir(config) / "result.json").read_text())["trial"] == again["trial"]


@pytest.mark.parametrize("method", [LOW_RANK, MIXTURE], ids=lambda method: str(method["name"]))
@pytest.mark.parametrize("every", ["100 minutes", None], ids=str)
def test_rungs_end_with_the_bytes_of_a_straight_run(tmp_path: Path, method: dict[str, Any], every: str | None) -> None:
    whole, staged = trial(study(tmp_path, "whole", method, every)), study(tmp_path, "staged", method, every)
    record = finished(whole)
    steps = record["time"]["steps"]
    first = finished(trial(staged, until=0.25))
    assert first["time"]["steps"] == rung_step(0.25, steps) < steps and first["stopped_by"] == "rung"
    assert list(first["data"]["selection"]["scores"]) == [str(first["time"]["steps"])], "a rung is scored at its end"
    assert (run_dir(trial(staged, until=0.25)) / "resume").is_dir()
    second = finished(trial(staged, until=0.5, after=0.25))
    assert second["resumed"] == [first["time"]["steps"]], "it went on from where it was"
    assert not (run_dir(trial(staged, until=0.25)) / "resume").exists()
    last = finished(trial(staged, after=0.5))
    assert last["resumed"] == [second["time"]["steps"]]
    assert_same(whole, trial(staged, after=0.5))
    rates = [
        [json.loads(line).get("lr") for line in (run_dir(each) / "metrics.jsonl").read_text().splitlines()]
        for each in (whole,)
    ]
    short = [
        json.loads(line).get("lr")
        for line in (run_dir(trial(staged, until=0.25)) / "metrics.jsonl").read_text().splitlines()
    ]
    assert [rate for rate in short if rate] == [rate for rate in rates[0] if rate][: first["time"]["steps"]], (
        "the learning rate follows the whole training"
    )


def test_a_rung_that_was_killed_goes_on(tmp_path: Path) -> None:
    whole, staged = (
        trial(study(tmp_path, "whole", every="2 steps"), until=0.5),
        study(tmp_path, "staged", every="2 steps"),
    )
    finished(whole)

    def work() -> None:
        at_step(4, die)
        run(trial(staged, until=0.5))

    assert in_child(work) < 0
    assert finished(trial(staged, until=0.5))["resumed"] == [4]
    one, two = run_dir(whole), run_dir(trial(staged, until=0.5))
    for name in ("metrics.jsonl", "predictions.jsonl", "adapter/adapter.safetensors"):
        assert (one / name).read_bytes() == (two / name).read_bytes(), name


def test_a_rung_without_the_one_before_begins_at_the_beginning(tmp_path: Path) -> None:
    config = study(tmp_path, "runs")
    record = finished(trial(config, until=0.5, after=0.25))
    assert record["resumed"] == [] and record["time"]["steps"] == rung_step(0.5, 10)


@pytest.mark.parametrize(
    "until, steps, step", [(1.0, 10, None), (0.5, 10, 5), (0.05, 10, 1), (0.95, 10, None), (0.34, 10, 4)]
)
def test_the_step_of_a_rung(until: float, steps: int, step: int | None) -> None:
    assert rung_step(until, steps) == step


def test_a_trial_needs_a_split_of_its_own(tmp_path: Path) -> None:
    config = tiny_config(tmp_path)
    with pytest.raises(UnipetError, match=r"task\.selection=none holds no examples out"):
        prepare(trial(config))
    with pytest.raises(UnipetError, match=r"trial\.after=0\.5: it must be less than trial\.until=0\.5"):
        prepare(trial(tiny_config(tmp_path, task__selection="train_holdout"), until=0.5, after=0.5))
