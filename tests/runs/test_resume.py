"""A run that was killed or interrupted goes on from its last resume point, and ends with the bytes of an undisturbed one."""

from __future__ import annotations

import json
import os
import signal
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch

from tests.support.resuming import assert_same, at_step, config_in, die, finished, in_child, killed
from tests.support.running import LOW_RANK, MIXTURE, run_dir
from unipet.adaptation import checkpoint
from unipet.calculus.options import check_options
from unipet.config import CheckpointConfig, RunConfig
from unipet.errors import UnipetError
from unipet.runs import resumable
from unipet.runs import run as run_module
from unipet.runs.record_files import read_record
from unipet.runs.run import evaluate, run
from unipet.training import evaluation, resume_point, stopping
from unipet.training.budget import memory_fit
from unipet.training.callbacks import Clock
from unipet.training.objective_trainer import ObjectiveTrainer
from unipet.training.resume_point import State
from unipet.training.resuming import Interval
from unipet.training.sampler import GroupedOrder
from unipet.training.tensor_file import read_tensors, write_tensors

ADAPTER = {
    "name": "tiny_bottleneck",
    "insertions": {
        "ffn": {"function": {"name": "bottleneck", "size": 4}, "position": {"site": "ffn", "form": "sequential"}}
    },
}
PREFIX = {
    "name": "tiny_prefix",
    "insertions": {
        "attention": {
            "function": {"name": "prefix", "size": 3},
            "position": {"site": "attn.heads"},
            "composition": "gated",
        }
    },
}
REGULARISED = {
    **MIXTURE,
    "name": "tiny_regularised",
    "objective": {
        "r_drop": {"weight": 0.5, "schedule": "linear_warmup"},
        "l2_to_init": {"weight": 0.1, "head": True},
        "orthogonality": {"between": "experts", "schedule": "cosine_decay", "over": 0.5},
    },
}
FULL: dict[str, Any] = {"name": "tiny_full", "insertions": {}, "unfreeze": ["all"]}
PER_EXAMPLE = {
    **MIXTURE,
    "name": "tiny_per_example",
    "insertions": {
        "ffn": {
            **MIXTURE["insertions"]["ffn"],
            "mixture": {"experts": 3, "router": "per_example", "reducer": "random_example"},
        }
    },
}
LEARNED = {
    **MIXTURE,
    "name": "tiny_learned",
    "insertions": {
        "ffn": {
            **MIXTURE["insertions"]["ffn"],
            "mixture": {"experts": 3, "router": "learned", "noise": 0.5, "unrouted": "zero_grad"},
        },
        "attention": {
            "function": {"name": "low_rank", "size": 2},
            "position": {"site": "attn.q"},
            "mixture": {"experts": 2, "router": "per_token", "reducer": "random_token", "grain": "layer"},
        },
    },
}
SELECTION = {"task__selection": "train_holdout", "task__selection_size": 8, "optim__epochs": 3}


@pytest.mark.parametrize(
    ("method", "changes"),
    [
        (LOW_RANK, {}),
        (ADAPTER, SELECTION),
        (PREFIX, {"optim__schedule": "cosine"}),
        (MIXTURE, SELECTION),
        (PER_EXAMPLE, SELECTION),
        (LEARNED, SELECTION),
        (FULL, SELECTION),
        (REGULARISED, SELECTION),
        (MIXTURE, {"budget__max_tokens": 500}),
        (LOW_RANK, {"precision": "bf16"}),
        (PER_EXAMPLE, {**SELECTION, "precision": "fp16"}),
        (LOW_RANK, {"optim__lr_ratio": 4.0, "optim__epochs": 2.5, "seed": 3}),
    ],
    ids=lambda value: value["name"] if "name" in value else "-".join(map(str, value)) or "plain",
)
def test_a_run_killed_twice_ends_as_an_undisturbed_one(
    tmp_path: Path, method: dict[str, Any], changes: dict[str, Any]
) -> None:
    alone = config_in(tmp_path, method, "alone", None, **changes)
    config = config_in(tmp_path, method, "killed", "3 steps", **changes)
    whole = finished(alone)
    killed(config, 4)
    killed(config, 7)
    record = finished(config)
    assert record["resumed"] == [3, 6] and whole["resumed"] == []
    assert_same(alone, config)


def test_micro_batches_go_on_as_they_began(tmp_path: Path) -> None:
    """Dropout draws once for each micro-batch, so their size decides what follows."""
    alone, config = (
        config_in(tmp_path, MIXTURE, runs, every) for runs, every in (("alone", None), ("killed", "2 steps"))
    )
    for each in (alone, config):
        each.budget.peak_memory_gib = 64.0
    in_threes = partial(with_micro_batch, 3)
    assert in_child(lambda: in_threes(alone)) == 0
    assert in_child(lambda: (at_step(5, die), in_threes(config))) == -signal.SIGKILL
    assert in_child(lambda: in_threes(config)) == 0
    assert_same(alone, config)
    assert read_record(run_dir(config) / "result.json").to_dict()["fitted"]["micro_batch"] == 3
    whole = config_in(tmp_path, MIXTURE, "whole", None)
    finished(whole)
    assert (run_dir(whole) / "metrics.jsonl").read_bytes() != (run_dir(config) / "metrics.jsonl").read_bytes()


def with_micro_batch(size: int, config: RunConfig) -> None:
    """Run with micro-batches of `size`, as a small device would make them."""
    original = memory_fit.fit_run
    memory_fit.fit_run = lambda *given: replace(original(*given), micro_batch=size)  # type: ignore[assignment]
    run(config)


def dies_at_call(number: int, owner: Any, name: str) -> None:
    """In this process, the call `number` of a function ends the process before it does anything."""
    original, calls = getattr(owner, name), iter(range(1, number + 1))

    def deadly(*given: Any, **named: Any) -> Any:
        if next(calls, None) == number:
            die()
        return original(*given, **named)

    setattr(owner, name, deadly)


@pytest.mark.parametrize(
    ("number", "owner", "name", "resumed"),
    [
        (3, resume_point, "write_tensors", [6]),
        (3, resume_point, "write_bytes_atomic", [6]),
        (1, evaluation, "score_split", [12]),
        (1, checkpoint, "save", [12]),
        (1, run_module, "checksums", [12]),
    ],
    ids=["its tensors", "its json", "evaluation", "saving", "checksums"],
)
def test_killed_anywhere_else(tmp_path: Path, number: int, owner: Any, name: str, resumed: list[int]) -> None:
    alone, config = (config_in(tmp_path, LOW_RANK, runs, "3 steps") for runs in ("alone", "killed"))
    finished(alone)
    assert in_child(lambda: (dies_at_call(number, owner, name), run(config))) == -signal.SIGKILL
    assert finished(config)["resumed"] == resumed
    assert_same(alone, config)


def test_killed_before_its_resume_points_are_removed(tmp_path: Path) -> None:
    config = config_in(tmp_path, LOW_RANK, "killed", "3 steps")
    assert in_child(lambda: (dies_at_call(1, resume_point, "discard"), run(config))) == -signal.SIGKILL
    # The first call is that of a beginning without a point; the second that of the end.
    assert in_child(lambda: (dies_at_call(2, resume_point, "discard"), run(config))) == -signal.SIGKILL
    assert (run_dir(config) / "resume").is_dir()
    record = finished(config)
    assert record["resumed"] == [] and not (run_dir(config) / "resume").exists()


@pytest.mark.parametrize("damaged", [["tensors"], ["json"], ["tensors", "json"], ["gone"]], ids="-".join)
def test_a_damaged_point_falls_back(tmp_path: Path, damaged: list[str]) -> None:
    alone, config = (config_in(tmp_path, ADAPTER, runs, "3 steps") for runs in ("alone", "killed"))
    finished(alone)
    killed(config, 8)
    folder = run_dir(config) / "resume"
    assert sorted(path.name for path in folder.iterdir()) == [
        f"{step:010d}.{ending}" for step in (3, 6) for ending in ("json", "safetensors")
    ]
    newest, before = f"{6:010d}", f"{3:010d}"
    if damaged == ["gone"]:
        (folder / f"{newest}.safetensors").unlink()
    if "tensors" in damaged:
        content = (folder / f"{newest}.safetensors").read_bytes()
        (folder / f"{newest}.safetensors").write_bytes(content[: len(content) // 2])
    if damaged == ["json"]:
        content = (folder / f"{newest}.json").read_bytes()
        (folder / f"{newest}.json").write_bytes(content.replace(b'"step":6', b'"step":7', 1))
    if damaged == ["tensors", "json"]:  # both points: nothing is left but the beginning
        (folder / f"{before}.json").write_text("{")
    assert finished(config)["resumed"] == ([] if damaged == ["tensors", "json"] else [3])
    assert_same(alone, config)


def signalled(*numbers: int) -> None:
    """Send this process signals, as a scheduler does."""
    for number in numbers:
        os.kill(os.getpid(), number)


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130), (signal.SIGHUP, 129)])
def test_a_signal_ends_a_run_after_its_step(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], number: int, code: int
) -> None:
    alone, config = (config_in(tmp_path, MIXTURE, runs, "1 minute", **SELECTION) for runs in ("alone", "stopped"))
    finished(alone)
    heard = partial(signal.signal, signal.SIGHUP, signal.SIG_DFL)  # tests that nohup started ignore it
    assert in_child(lambda: (heard(), at_step(4, lambda: signalled(number)), run(config))) == code
    directory = run_dir(config)
    record = read_record(directory / "result.json").to_dict()
    assert (record["status"], record["error"], record["phase"]) == ("interrupted", None, "training")
    said = {
        signal.SIGTERM: "SIGTERM",
        signal.SIGINT: "SIGINT (Ctrl-C)",
        signal.SIGHUP: "SIGHUP (its terminal was closed)",
    }
    assert record["reason"] == f"interrupted by {said[signal.Signals(number)]} after step 5 of 15 during training"
    assert f"unipet train resume={directory}" in capfd.readouterr().err
    assert [path.stem for path in (directory / "resume").glob("*.json")] == [f"{5:010d}"]
    with pytest.raises(UnipetError, match="status is 'interrupted'"):
        evaluate(directory)
    assert finished(config)["resumed"] == [5]
    assert_same(alone, config)


def test_a_second_signal_ends_a_run_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stopping, "MOMENT_S", 0.0)
    config = config_in(tmp_path, LOW_RANK, "stopped", "3 steps")
    assert in_child(lambda: (at_step(4, lambda: signalled(signal.SIGINT, signal.SIGTERM)), run(config))) == 143
    record = read_record(run_dir(config) / "result.json").to_dict()
    assert record["reason"] == "interrupted by SIGTERM during training"
    assert sorted(path.stem for path in (run_dir(config) / "resume").glob("*.json")) == [f"{3:010d}"]


def test_two_signals_within_a_moment_are_one_wish(tmp_path: Path) -> None:
    """A key press reaches a whole process group, and a launcher in it passes the wish on."""
    config = config_in(tmp_path, LOW_RANK, "stopped", "3 steps")
    assert in_child(lambda: (at_step(4, lambda: signalled(signal.SIGINT, signal.SIGTERM)), run(config))) == 130
    record = read_record(run_dir(config) / "result.json").to_dict()
    assert record["reason"].startswith("interrupted by SIGINT (Ctrl-C) after step 5 of 12")
    assert sorted(path.stem for path in (run_dir(config) / "resume").glob("*.json"))[-1] == f"{5:010d}"


def test_a_signal_between_trainings_ends_a_run_at_once(tmp_path: Path) -> None:
    def scored(*given: Any) -> Any:
        signalled(signal.SIGTERM)
        raise AssertionError("the signal did not end the run")

    config = config_in(tmp_path, LOW_RANK, "stopped", "3 steps")
    assert in_child(lambda: (setattr(evaluation, "score_split", scored), run(config))) == 143
    record = read_record(run_dir(config) / "result.json").to_dict()
    assert (record["status"], record["reason"]) == ("interrupted", "interrupted by SIGTERM during evaluation")
    assert finished(config)["resumed"] == [12]


def test_a_programs_own_handler_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    heard: list[int] = []
    before = signal.signal(signal.SIGTERM, lambda number, frame: heard.append(number))
    try:
        with stopping.heeding_signals(), stopping.ending_steps_first():
            signalled(signal.SIGTERM)
            assert heard == [signal.SIGTERM] and not stopping.asked_to_end()
            stopping.ask(signal.SIGTERM)
            assert stopping.asked_to_end()
            with pytest.raises(stopping.Interrupted, match="interrupted by SIGTERM here") as end:
                stopping.end_if_asked(" here")
            assert end.value.exit_code == 143
        assert not stopping.asked_to_end()
    finally:
        signal.signal(signal.SIGTERM, before)


def test_a_training_that_failed_begins_anew(tmp_path: Path) -> None:
    """What broke it may be in every resume point."""

    def breaking(error: Exception) -> None:
        def broken(self: Any, loss: Any) -> None:
            if self.state.global_step == 7:
                raise error

        ObjectiveTrainer._finite = broken  # type: ignore[method-assign]
        run(config)

    config = config_in(tmp_path, LOW_RANK, "failed", "3 steps")
    for error, left in ((RuntimeError("broken"), []), (OSError(28, "No space left on device"), [3, 6])):
        assert in_child(partial(breaking, error)) == 0
        record = read_record(run_dir(config) / "result.json").to_dict()
        assert record["status"] == "failed" and record["resumed"] == []
        assert sorted(int(path.stem) for path in (run_dir(config) / "resume").glob("*.json")) == left
    assert finished(config)["resumed"] == [6]  # a full disk is not the run's own fault


def test_a_failed_evaluation_does_not_repeat_the_training(tmp_path: Path) -> None:
    def broken(*given: Any) -> Any:
        raise RuntimeError("no such metric")

    config = config_in(tmp_path, LOW_RANK, "failed", "3 steps")
    assert in_child(lambda: (setattr(evaluation, "score_split", broken), run(config))) == 0
    first = read_record(run_dir(config) / "result.json").to_dict()
    record = finished(config)
    assert first["status"] == "failed" and record["resumed"] == [12]
    assert record["time"]["train_s"] == first["time"]["train_s"] and record["memory"] == first["memory"]


def test_another_version_begins_anew(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    config = config_in(tmp_path, LOW_RANK, "killed", "3 steps")
    killed(config, 4)
    assert in_child(lambda: (setattr(resumable, "source_checksum", lambda: "another"), run(config))) == 0
    assert "not gone on from, since unipet's source changed meanwhile; the run begins anew" in capfd.readouterr().err
    assert read_record(run_dir(config) / "result.json").to_dict()["resumed"] == []


def test_null_writes_no_point(tmp_path: Path) -> None:
    config = config_in(tmp_path, LOW_RANK, "killed", None)
    assert in_child(lambda: (at_step(4, lambda: signalled(signal.SIGTERM)), run(config))) == 143
    assert not (run_dir(config) / "resume").exists()
    assert finished(config)["resumed"] == []


def test_what_was_spent_before_counts(tmp_path: Path) -> None:
    """Of a limit on time, of the record's times, and of its tokens."""

    def an_hour(self: Any) -> State:
        return State({"seconds": 3600.0})

    config = config_in(tmp_path, LOW_RANK, "killed", "3 steps", budget__gpu_hours=1.0)
    assert in_child(lambda: (setattr(Clock, "state", an_hour), killing(config, 4))) == -signal.SIGKILL
    record = finished(config)
    assert (record["time"]["steps"], record["stopped_by"]) == (4, "gpu_hours")
    assert record["time"]["train_s"] > 3600

    plain = config_in(tmp_path, LOW_RANK, "plain", "3 steps")
    killed(plain, 7)
    values = json.loads((run_dir(plain) / "resume" / f"{6:010d}.json").read_text())["content"]["values"]
    before = values["spent"]["phases"]
    record = finished(plain)
    assert all(record["time"]["phases_s"][name] >= seconds for name, seconds in before.items())
    alone = finished(config_in(tmp_path, LOW_RANK, "alone", None))
    tokens = [each["time"]["tokens_per_s"] * each["time"]["train_s"] for each in (record, alone)]
    assert tokens[0] == pytest.approx(tokens[1])


def killing(config: RunConfig, step: int) -> None:
    at_step(step, die)
    run(config)


def test_a_disk_that_takes_no_point_costs_a_warning(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    def full(*given: Any) -> Any:
        raise OSError(28, "No space left on device")

    config = config_in(tmp_path, LOW_RANK, "full", "3 steps")
    assert in_child(lambda: (setattr(resume_point, "write_tensors", full), run(config))) == 0
    assert capfd.readouterr().err.count("no resume point could be written (No space left on device)") == 1
    assert read_record(run_dir(config) / "result.json").to_dict()["status"] == "ok"


@pytest.mark.parametrize(
    "text", ["100", "2min", "0 steps", "1.5 steps", "0 minutes", "2 hours", "steps", "", "-1 steps"]
)
def test_how_often_is_a_number_and_its_unit(text: str) -> None:
    with pytest.raises(
        UnipetError, match=r"checkpoint\.every: .*allowed: a number and its unit, '100 steps' or '2 min"
    ):
        check_options(CheckpointConfig, CheckpointConfig(text), "checkpoint")


@pytest.mark.parametrize(
    ("text", "interval"),
    [
        ("100 steps", Interval(steps=100)),
        ("1step", Interval(steps=1)),
        ("2 minutes", Interval(seconds=120.0)),
        ("0.5minutes", Interval(seconds=30.0)),
        ("1 minute", Interval(seconds=60.0)),
    ],
)
def test_how_often(text: str, interval: Interval) -> None:
    check_options(CheckpointConfig, CheckpointConfig(text), "checkpoint")
    assert Interval.parse(text) == interval
    if interval.steps:
        assert [step for step in range(1, 301) if interval.is_over(step, 1e9)] == list(
            range(interval.steps, 301, interval.steps)
        )
    else:
        assert not interval.is_over(100, interval.seconds - 1) and interval.is_over(7, interval.seconds)


def test_a_tensor_file_is_one_of_safetensors(tmp_path: Path) -> None:
    tensors = {
        "bytes": torch.arange(5, dtype=torch.uint8),
        "half": torch.randn(3, 5).to(torch.bfloat16),
        "turned": torch.randn(4, 6).T,
        "number": torch.tensor(2.5, dtype=torch.float64),
        "empty": torch.zeros(0, 3),
        "whole": torch.arange(4),
    }
    path = tmp_path / "some.safetensors"
    with path.open("wb") as file:
        checksum = write_tensors(file, tensors)
    for read in (read_tensors(path, checksum), safetensors.torch.load_file(path)):
        assert read.keys() == tensors.keys()
        assert all(torch.equal(read[name], each) and read[name].dtype == each.dtype for name, each in tensors.items())
    with pytest.raises(ValueError, match="checksum"):
        read_tensors(path, "0" * 64)


@pytest.mark.parametrize("examples", [23, 24])
def test_the_order_of_examples_begins_after_any_step(examples: int) -> None:
    sizes = [3 + index % 7 for index in range(examples)]
    whole = GroupedOrder(sizes, 4, seed=1, pool=2)
    all_of_it = [index for _ in range(4) for index in whole]
    for steps in range(2 * 6 + 1):
        order = GroupedOrder(sizes, 4, seed=1, pool=2)
        order.begin_after(steps)
        seen = [index for _ in range(5) for index in order]
        begun = (steps // 6) * examples + (steps % 6) * 4
        assert seen[: len(all_of_it) - begun] == all_of_it[begun:]
    assert [whole.epochs(step) for step in (1, 5, 6, 7)] == [1 / 6, 5 / 6, 1.0, 1 + 1 / 6]
