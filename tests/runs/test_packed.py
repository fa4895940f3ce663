"""Packed runs: each is the run that it is alone, whatever becomes of the others."""

from __future__ import annotations

import json
import signal
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.support.running import HEAD_ONLY, LOW_RANK, MIXTURE, tiny_config
from unipet.config import RunConfig
from unipet.runs.packed import pack_of
from unipet.runs.record_files import read_record
from unipet.runs.run import Done, perform
from unipet.runs.shared import Shared
from unipet.training import stopping
from unipet.training.company import StandsAside
from unipet.training.seat import Seat

#: 54 steps of a batch of 8, without dropout of the base model.
FIXED: dict[str, Any] = {"optim__epochs": 9, "optim__lr": 0.01, "cache_frozen": "false"}
PROMPT = {
    "name": "tiny_prompt",
    "insertions": {"prompt": {"function": {"name": "prompt", "size": 3}, "position": "embed", "composition": "concat"}},
}
PREFIX = {
    "name": "tiny_prefix",
    "insertions": {
        "heads": {"function": {"name": "prefix", "size": 5}, "position": "attn.heads", "composition": "gated"},
        "ffn": {"function": {"name": "bottleneck", "size": 4}, "position": {"site": "ffn", "form": "parallel"}},
    },
}
FULL: dict[str, Any] = {"name": "tiny_full", "insertions": {}, "unfreeze": ["all"]}


@pytest.fixture()
def config(tmp_path: Path) -> RunConfig:
    made: RunConfig = tiny_config(tmp_path, LOW_RANK, **FIXED)
    path = Path(made.model.path) / "config.json"
    content = json.loads(path.read_text())
    content |= {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
    path.write_text(json.dumps(content))
    return made


def elsewhere(config: RunConfig) -> RunConfig:
    return replace(config, runs_dir=f"{config.runs_dir}-packed")


def packed(
    configs: list[RunConfig], measures: bool = False, room_gib: float | None = None
) -> tuple[list[Done | None], list[Seat]]:
    """The runs of a pack, and their seats."""
    shared, done = Shared(), dict[int, Done]()
    pack = pack_of(shared, configs[0].seed, measures)
    if room_gib is not None:
        pack._room_gib = room_gib

    def work(number: int) -> Callable[[Seat], None]:
        def do(seat: Seat) -> None:
            done[number] = perform(configs[number], shared=shared.beside(seat))

        return do

    seats = pack.run([work(number) for number in range(len(configs))])
    return [done.get(number) for number in range(len(configs))], seats


def lines(done: Done) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (done.directory / "metrics.jsonl").read_text().splitlines()]


def assert_equal(ours: Done | None, theirs: Done) -> None:
    """The same result: score, predictions, and every loss within 1e-5."""
    assert ours is not None and ours.record.status == theirs.record.status == "ok", ours and ours.record.error
    assert ours.record.run_id == theirs.record.run_id
    assert (ours.record.score, ours.record.time.steps) == (theirs.record.score, theirs.record.time.steps)
    own, other = lines(ours), lines(theirs)
    assert len(own) == len(other)
    for line, expected in zip(own, other, strict=True):
        assert line.keys() == expected.keys()
        for key, value in expected.items():
            assert line[key] == pytest.approx(value, rel=1e-4, abs=1e-5), (key, line["step"])
    assert {path.name for path in ours.directory.rglob("*")} == {path.name for path in theirs.directory.rglob("*")}
    assert ours.record.files.keys() == theirs.record.files.keys()


def variants(config: RunConfig) -> list[RunConfig]:
    optim = config.optim
    return [
        config,
        replace(config, optim=replace(optim, lr=0.003, schedule="cosine", clip=0.1, weight_decay=0.1)),
        replace(config, method=MIXTURE),
        replace(config, method=PREFIX, optim=replace(optim, warmup_ratio=0.2)),
        replace(config, method=HEAD_ONLY),
        replace(config, method=PROMPT, optim=replace(optim, epochs=4, label_smoothing=0.1)),
    ]


def test_patience_ends_each_run_of_a_pack_by_itself(config: RunConfig) -> None:
    task = replace(config.task, selection="train_holdout", selection_size=8, selection_checkpoints=18, patience=8)
    runs = [replace(config, task=task), replace(config, task=task, optim=replace(config.optim, lr=1e-5))]
    solo = [perform(each) for each in runs]
    assert [each.record.stopped_by for each in solo] == ["epochs", "task.patience"]
    assert (solo[0].record.time.steps, solo[1].record.time.steps) == (45, 27)
    done, seats = packed([elsewhere(each) for each in runs])
    for ours, theirs in zip(done, solo, strict=True):
        assert_equal(ours, theirs)
        assert ours is not None and ours.record.stopped_by == theirs.record.stopped_by
    assert max(seat.packed for seat in seats) == 2


def test_different_methods_rates_and_lengths_have_the_losses_of_solo_runs(config: RunConfig) -> None:
    solo = [perform(each) for each in variants(config)]
    done, _ = packed([elsewhere(each) for each in variants(config)])
    assert solo[0].record.time.steps == 54 and solo[0].record.packed is None
    for ours, theirs in zip(done, solo, strict=True):
        assert_equal(ours, theirs)
        assert ours is not None and ours.record.packed == 6 and ours.record.own_train_s is None
        assert read_record(ours.directory / "result.json").packed == 6
        assert theirs.record.own_train_s == theirs.record.time.train_s
    assert done[5] is not None and done[5].record.time.steps == 24


def test_dropout_of_an_adapter_draws_from_the_run_s_own_stream(config: RunConfig) -> None:
    dropping = json.loads(json.dumps(LOW_RANK))
    dropping["insertions"]["attention"]["function"]["dropout"] = 0.3
    some = [
        replace(config, method=dropping),
        config,
        replace(config, method=dropping, optim=replace(config.optim, lr=0.002)),
    ]
    solo = [perform(each) for each in some]
    done, _ = packed([elsewhere(each) for each in some])
    for ours, theirs in zip(done, solo, strict=True):
        assert_equal(ours, theirs)


def test_a_loss_that_is_not_finite_ends_its_run_alone(config: RunConfig) -> None:
    wild = replace(config, optim=replace(config.optim, lr=1e30, clip=1e30, schedule="constant"))
    solo = perform(config)
    done, seats = packed([elsewhere(wild), elsewhere(config), elsewhere(replace(config, method=PREFIX))])
    assert done[0] is not None and done[0].record.status == "failed" and done[0].record.stopped_by == "nan"
    assert_equal(done[1], solo)
    assert done[2] is not None and done[2].record.status == "ok"
    assert all(seat.turn.error is None for seat in seats)


def test_what_cannot_be_in_a_pack_says_why(config: RunConfig) -> None:
    budget = config.budget
    others = {
        "unfreeze: all": replace(config, method=FULL),
        "its base model, task, seed or batch size": replace(config, seed=7),
        "budget.gpu_hours": replace(config, budget=replace(budget, gpu_hours=1.0)),
        "budget.peak_memory_gib": replace(config, budget=replace(budget, peak_memory_gib=1.0)),
        "keeps the outputs of frozen layers": replace(config, method=HEAD_ONLY, cache_frozen="auto"),
    }
    done, seats = packed([elsewhere(config), *(elsewhere(each) for each in others.values())])
    assert done[0] is not None and done[0].record.packed is None  # it had no company in the end
    assert_equal(done[0], perform(config))
    for reason, ended, seat in zip(others, done[1:], seats[1:], strict=True):
        error = seat.turn.error
        assert ended is None and isinstance(error, StandsAside) and error.alone and reason in error.reason
    begun = [read_record(path) for path in Path(elsewhere(config).runs_dir).glob("*/result.json")]
    assert sorted(each.status for each in begun) == ["interrupted", "ok"]  # what is kept shows when training begins


def test_predicted_memory_limits_a_pack(config: RunConfig) -> None:
    first = perform(config).record.memory.predicted_gib
    assert first is not None
    some = [elsewhere(replace(config, optim=replace(config.optim, lr=lr))) for lr in (0.01, 0.02, 0.03)]
    done, seats = packed(some, room_gib=1.9 * first)
    assert [ended is not None for ended in done] in ([True, True, False], [True, False, False])
    error = seats[2].turn.error
    assert isinstance(error, StandsAside) and not error.alone and "predicted to need" in error.reason
    assert (done[0].record.packed if done[0] else None) == (2 if done[1] else None)


@pytest.mark.parametrize("cost_ms", [0, 40])
def test_a_measurement_decides_how_many_stay(config: RunConfig, cost_ms: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Passes of more than two runs are made to cost 40 ms more than they bring, or all to cost nothing for each further run."""
    from unipet.training.pack import Pack

    monkeypatch.setattr(Pack, "_timed", lambda self, seats: 0.1 + 0.001 * cost_ms * max(len(seats) - 2, 0) ** 2)
    some = [elsewhere(replace(config, optim=replace(config.optim, lr=lr))) for lr in (0.01, 0.02, 0.03, 0.04)]
    done, seats = packed(some, measures=True)
    stay = 4 if cost_ms == 0 else 2
    assert [ended is not None for ended in done] == [number < stay for number in range(4)]
    assert all(ended.record.packed == stay for ended in done if ended is not None)
    assert seats[0].pack.best == stay
    for seat in seats[stay:]:
        assert isinstance(seat.turn.error, StandsAside) and not seat.turn.error.alone


def test_measuring_changes_no_result(config: RunConfig) -> None:
    from unipet.training import pack

    some = [config, replace(config, method=MIXTURE), replace(config, method=PREFIX)]
    solo = [perform(each) for each in some]
    before, pack.PAYS = pack.PAYS, 1e9  # whatever the times, more is better
    try:
        done, _ = packed([elsewhere(each) for each in some], measures=True)
    finally:
        pack.PAYS = before
    for ours, theirs in zip(done, solo, strict=True):
        assert_equal(ours, theirs)
        assert ours is not None and ours.record.packed == 3


def test_a_signal_ends_every_run_and_each_goes_on_from_its_resume_point(
    config: RunConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = replace(config, checkpoint=replace(config.checkpoint, every="5 steps"))
    some = [elsewhere(each) for each in (config, replace(config, method=MIXTURE))]
    solo = [perform(each) for each in (config, replace(config, method=MIXTURE))]
    from unipet.training.pack import Pack

    step = Pack._step

    def until_the_twelfth(self: Pack, waiting: list[Seat]) -> None:
        step(self, waiting)
        if any(seat.wants is not None and seat.wants.number == 12 for seat in waiting):
            stopping.ask(signal.SIGTERM)

    monkeypatch.setattr(Pack, "_step", until_the_twelfth)
    _, seats = packed(some)
    assert [type(seat.turn.error) for seat in seats] == [stopping.Interrupted] * 2
    monkeypatch.undo()
    first = perform(some[0])  # one goes on by itself
    assert_equal(first, solo[0])
    assert first.record.resumed and first.record.packed == 2
    done, _ = packed(
        [elsewhere(replace(config, optim=replace(config.optim, lr=0.002))), some[1]]
    )  # the other in a new pack
    assert_equal(done[1], solo[1])
    assert done[1] is not None and done[1].record.resumed and done[1].record.packed == 2


def test_a_pass_that_fails_leaves_every_run_to_itself(config: RunConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    from unipet.training.pack import Pack

    original, calls = Pack._pass, []

    def short_of_memory(self: Pack, seats: list[Seat]) -> None:
        calls.append(len(seats))
        original(self, seats)
        if len(calls) == 3:
            raise torch.OutOfMemoryError("no room")

    monkeypatch.setattr(Pack, "_pass", short_of_memory)
    some = [config, replace(config, method=MIXTURE)]
    done, _ = packed([elsewhere(each) for each in some])
    assert calls == [2, 2, 2]
    for ours, each in zip(done, some, strict=True):
        assert_equal(ours, perform(each))
