"""A worker that trains jobs in packs: which it takes together, which alone and why, and what becomes of their claims."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from tests.support.running import LOW_RANK, MIXTURE, tiny_config
from unipet.config import LauncherConfig, RunConfig
from unipet.errors import UnipetError
from unipet.runs import packed
from unipet.runs.record import Record
from unipet.runs.record_files import RESULT, read_record
from unipet.runs.sweep_files import JobState, read_jobs
from unipet.sweeps import jobs, packer
from unipet.sweeps.claims import Claim, Owner, beating, claim, read_claim
from unipet.sweeps.directory import Sweep, write_sweep
from unipet.sweeps.job_files import Job
from unipet.sweeps.launchers import check_launcher
from unipet.sweeps.packer import Packer, worker_kind
from unipet.sweeps.worker import Worker
from unipet.training.stopping import Interrupted

FULL: dict[str, Any] = {"name": "tiny_full", "insertions": {}, "unfreeze": ["all"]}


def sweep_of(place: Path, configs: Sequence[RunConfig], **launcher: Any) -> Sweep:
    """A sweep of these configurations that nobody has begun."""
    made = Sweep(
        place / "runs" / "sweeps" / "s", ["-m"], [], ["x"], len(configs), place, LauncherConfig("packed", **launcher)
    )
    write_sweep(made, [Job(n, [f"x={n}"], [f"x={n}"], asdict(each), None) for n, each in enumerate(configs)], {})
    return made


def with_rates(config: RunConfig, *rates: float) -> list[RunConfig]:
    return [replace(config, optim=replace(config.optim, lr=rate)) for rate in rates]


def outcomes(sweep: Sweep) -> list[Record]:
    records = []
    for state in sorted(read_jobs(sweep.directory), key=lambda state: state.job):
        in_directory = state.run_dir is not None and state.record is None
        record = read_record(sweep.directory / str(state.run_dir) / RESULT) if in_directory else state.record
        assert record is not None
        records.append(record)
    return records


def no_claims(sweep: Sweep) -> bool:
    return not list((sweep.directory / "claims").iterdir())


def test_jobs_of_one_kind_train_together_and_the_others_alone_with_the_reason(tmp_path: Path) -> None:
    config: RunConfig = tiny_config(tmp_path, LOW_RANK)
    configs = [
        *with_rates(config, 0.01, 0.02),
        replace(config, method=FULL),
        replace(config, seed=5),
        replace(config, method=MIXTURE),
        *with_rates(config, 1e30),  # ends with a loss that is not finite
    ]
    configs[5].optim.clip = 1e30
    sweep = sweep_of(tmp_path, configs, pack=8)
    Packer(sweep, "w").run()
    records = outcomes(sweep)
    assert [each.status for each in records] == ["ok", "ok", "ok", "ok", "ok", "failed"]
    assert records[5].stopped_by == "nan"
    assert [each.packed for each in records[:5]] == [4, 4, None, None, 4]
    assert "unfreeze: all" in str(records[2].alone) and "no other job was left" in str(records[3].alone)
    assert [each.alone for each in (records[0], records[1], records[4])] == [None] * 3
    assert no_claims(sweep)
    assert len(list((tmp_path / "runs").glob("*/adapter/adapter.safetensors"))) == 5
    assert len(list((tmp_path / "runs").glob("*/predictions.jsonl"))) == 5


class Taken(Packer):
    """Notes what it would do, and ends it."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.packs: list[list[int]] = []
        self.singles: dict[int, str] = {}

    def do_pack(self, claims: Any, kind: Any) -> None:
        self.packs.append([held.job for held in claims])
        for held in claims:
            self.end(held, JobState(held.job, "ok", run_dir="../run"))

    def do_alone(self, held: Any, why: str) -> None:
        self.singles[held.job] = why
        self.end(held, JobState(held.job, "ok", run_dir="../run"))


def test_what_a_configuration_says_decides_who_may_come_together(tmp_path: Path) -> None:
    config: RunConfig = tiny_config(tmp_path)
    budget = config.budget
    configs = [
        *with_rates(config, 0.1, 0.2, 0.3, 0.4, 0.5),
        replace(config, optim=replace(config.optim, batch_size=4)),
        replace(config, optim=replace(config.optim, batch_size=4, epochs=1)),
        replace(config, budget=replace(budget, gpu_hours=1.0)),
        replace(config, tracking=replace(config.tracking, name="wandb")),
    ]
    worker = Taken(sweep_of(tmp_path, configs, pack=4), "w")
    worker.run()
    assert worker.packs == [[0, 1, 2, 3], [5, 6]]
    assert worker.singles.keys() == {4, 7, 8}
    assert "budget.gpu_hours" in worker.singles[7] and "tracking=wandb" in worker.singles[8]


def test_several_workers_leave_each_other_their_part(tmp_path: Path) -> None:
    configs = with_rates(tiny_config(tmp_path), *(0.01 * number for number in range(1, 9)))
    sweep = sweep_of(tmp_path, configs, workers=2)
    worker = Taken(sweep, "w")
    held, _ = worker.next_claim()
    assert held is not None
    worker.do(held)
    assert worker.packs == [[0, 1, 2, 3]]


def test_a_job_whose_worker_was_lost_is_done_alone(tmp_path: Path) -> None:
    sweep = sweep_of(tmp_path, with_rates(tiny_config(tmp_path), 0.1, 0.2, 0.3))
    gone = Owner("gone", "here", 2**22 + 1, Owner.this("x").processes)
    assert claim(sweep.directory, 0, gone, 1) and claim(sweep.directory, 1, gone, 1)
    worker = Taken(sweep, "w")
    worker.run()
    assert worker.packs == [] and worker.singles.keys() == {0, 1, 2}
    assert all("lost" in worker.singles[job] for job in (0, 1))


def test_the_best_size_is_measured_once(tmp_path: Path) -> None:
    configs = with_rates(tiny_config(tmp_path), 0.1, 0.2, 0.3, 0.4)
    for best, packs, singles in ((2, [[0, 1], [2, 3]], set()), (1, [], {0, 1, 2, 3})):
        worker = Taken(sweep_of(tmp_path / str(best), configs), "w")
        worker.best[packed.same_batches(configs[0])] = best
        worker.run()
        assert (worker.packs, worker.singles.keys()) == (packs, singles)


def test_an_interrupted_pack_gives_every_job_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config: RunConfig = tiny_config(tmp_path, LOW_RANK)
    sweep = sweep_of(tmp_path, [*with_rates(config, 0.01, 0.02), replace(config, method=FULL)], pack=3)

    def interrupted(*_: Any) -> None:
        raise Interrupted(15)

    monkeypatch.setattr(jobs, "run_job", interrupted)
    with pytest.raises(Interrupted):
        Packer(sweep, "w").run()
    assert no_claims(sweep) and not list((sweep.directory / "jobs").glob("*.json"))
    monkeypatch.undo()
    Packer(sweep, "again").run()
    assert [each.status for each in outcomes(sweep)] == ["ok"] * 3


def test_a_job_that_ends_before_the_others_ends_no_worker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its claim is gone, and the signs of life of the others go on."""
    monkeypatch.setattr(packer, "beating", partial(beating, every_s=0.001))
    config: RunConfig = tiny_config(tmp_path, LOW_RANK)
    early = replace(config, optim=replace(config.optim, lr=1e30, clip=1e30))  # its loss is soon not finite
    sweep = sweep_of(tmp_path, [early, *with_rates(config, 0.01, 0.02)], pack=3)
    left: list[Claim] = []
    Packer(sweep, "w", leave=left.append).run()
    assert left == [] and [each.packed for each in outcomes(sweep)[1:]] == [3, 3]


def test_jobs_that_wait_to_be_done_alone_show_signs_of_life(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(packer, "beating", partial(beating, every_s=0.001))
    config: RunConfig = tiny_config(tmp_path, LOW_RANK)
    kept = replace(config, method={"name": "tiny_head", "insertions": {}}, cache_frozen="true")
    sweep = sweep_of(tmp_path, with_rates(kept, 0.01, 0.02), pack=2)
    beats: list[bool] = []

    class Watched(Packer):
        def do_alone(self, held: Claim, why: str) -> None:
            waiting = read_claim(sweep.directory, 1, 1)
            if held.job == 0:
                waiting.give_up()
                until = time.monotonic() + 10
                while not (alive := waiting.last_beat() > 0) and time.monotonic() < until:
                    time.sleep(0.01)
                beats.append(alive)
            super().do_alone(held, why)

    Watched(sweep, "w").run()
    assert beats == [True]
    assert [each.status for each in outcomes(sweep)] == ["ok", "ok"] and no_claims(sweep)


def test_the_launcher_has_workers_of_its_own() -> None:
    assert worker_kind("packed") is Packer and worker_kind("local") is Worker and worker_kind("slots") is Worker
    check_launcher(LauncherConfig("packed", pack=4, workers=2))
    with pytest.raises(
        UnipetError, match=r"launcher.pack=4: given, but launcher=local does not read it. These do: packed"
    ):
        check_launcher(LauncherConfig(pack=4))
