"""`unipet plan`: what a sweep will need, before it runs; nothing is trained or written but what was measured."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.support.running import TINY_TASK, run_id, stand_in, write_world
from unipet.cli.main import main
from unipet.config import RunConfig
from unipet.runs.forecast import measuring
from unipet.runs.forecast.estimate import mean_cost, representatives
from unipet.runs.forecast.flops import flop_counter
from unipet.runs.forecast.measuring import Calibration
from unipet.runs.forecast.selected import Selected, batch_size_in_tokens
from unipet.runs.prepare import Prepared
from unipet.runs.record import Record, blank_record
from unipet.runs.record_files import write_record
from unipet.runs.run import prepare
from unipet.runs.run_directory import checksums
from unipet.tasks import EncodedRows
from unipet.training.budget.memory_fit import MemoryFit
from unipet.training.budget.trace import Trace
from unipet.training.sampler import GroupedOrder

INSERTION = {"function": {"name": "low_rank", "size": 2}, "position": {"site": "attn.q"}}
STEP_S = 0.5  # of the made-up calibration
PASS_S = 0.25


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    mine = {"name": "mine", "insertions": {"q": INSERTION}}
    other = {"name": "other", "insertions": {"q": {**INSERTION, "position": {"site": "attn.v"}}}}
    files = {"task/tiny": TINY_TASK, "method/mine": mine, "method/other": other}
    return write_world(tmp_path_factory.mktemp("world"), files)


@pytest.fixture()
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("UNIPET_CACHE", raising=False)
    return tmp_path


@pytest.fixture()
def timed(monkeypatch: pytest.MonkeyPatch) -> list[RunConfig]:
    """A calibration that is made up: every step takes half a second, every evaluation batch a quarter. What was asked."""
    asked: list[RunConfig] = []

    def measure(prepared: Prepared, *_: Any) -> Calibration:
        asked.append(prepared.config)
        return Calibration({"loading": 2.0}, [(64.0, STEP_S)] * 3, [(64.0, PASS_S)] * 2, [(64.0, 1e9)])

    def mean(points: list[tuple[float, float]], mean_size: float) -> float:
        return points[0][1]

    monkeypatch.setattr(measuring, "measure", measure)
    monkeypatch.setattr("unipet.runs.forecast.timing.mean_cost", mean)
    return asked


@pytest.fixture()
def untraced(monkeypatch: pytest.MonkeyPatch) -> None:
    """A memory prediction that is made up, for tests of time."""
    trace = Trace(peak_bytes=2**20, weights_bytes=2**19, optimiser_bytes=0)
    monkeypatch.setattr("unipet.training.budget.memory_fit.fit_run", lambda *_: MemoryFit(8, trace=trace))


def line(world: Path, *more: str) -> list[str]:
    return [
        f"--config-dir={world / 'mine'}",
        "task=tiny",
        f"task.data_dir={world / 'data'}",
        f"model={world / 'model'}",
        "optim.batch_size=8",
        "optim.eval_batch_size=8",
        "task.selection=none",
        *more,
    ]


def plan(capsys: pytest.CaptureFixture[str], *argv: str) -> dict[str, Any]:
    assert main(["plan", *argv, "--json"]) == 0
    found: dict[str, Any] = json.loads(capsys.readouterr().out)
    return found


def files(root: Path) -> Iterator[str]:
    return (str(path.relative_to(root)) for path in root.rglob("*") if path.is_file())


def test_a_measured_plan_of_one_job(here: Path, world: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Nothing is made up: real batches, and nothing is left but the cache, which answers the second time."""
    arguments = line(world, "method=mine", "budget.max_steps=40", "budget.trainable_params=400")
    first = plan(capsys, *arguments)
    (job,) = first["jobs"]
    # rank r at d x d queries of two layers: 2 (d + d) r, d = 32
    assert job["status"] == "run" and job["sizes"] == {"method.insertions.q.function.size": 3}
    assert job["requested"] == {"method.insertions.q.function.size": 2} and job["params"]["trainable"] == 384
    assert (job["steps"], job["stopped_by"], job["micro_batch"], job["accumulation"]) == (18, "epochs", 8, 1)
    assert 0 < job["predicted_gib"] < 0.1 and job["flops"] > 1e6
    assert {"loading", "adapting", "preparing training", "training", "evaluating", "saving"} <= job["seconds"].keys()
    assert all(seconds >= 0 for seconds in job["seconds"].values())
    assert job["total_s"] == pytest.approx(sum(job["seconds"].values())) and job["train_s"] > 0
    assert first["total"]["hours"] == pytest.approx(job["hours"] + first["total"]["start_s"] / 3600)
    assert first["measured"]["now"] == 1 and first["measured"]["before"] == 0
    assert all(name.startswith("runs/.cache/") for name in files(here)), "nothing but the cache is written"


@pytest.mark.usefixtures("untraced", "timed")
def test_with_patience_every_figure_is_an_upper_bound(
    here: Path, world: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = [*line(world, "method=mine", "task.selection_checkpoints=9"), "task.selection=train_holdout"]
    plain = plan(capsys, *arguments)["jobs"][0]
    (job,) = plan(capsys, *arguments, "task.patience=2")["jobs"]
    assert job["at_most"] and not plain["at_most"] and job["steps"] == plain["steps"]
    assert job["seconds"]["selecting"] == plain["seconds"]["selecting"] > 0
    assert main(["plan", *arguments, "task.patience=2"]) == 0
    said = " ".join(capsys.readouterr().out.split())
    assert f"at most {job['steps']} steps" in said and "or by task.patience" in said and "total at most" in said
    assert main(["plan", *arguments]) == 0
    assert "at most" not in capsys.readouterr().out


@pytest.mark.usefixtures("untraced")
def test_what_was_measured_is_kept(
    here: Path, world: Path, timed: list[RunConfig], capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = line(world, "method=mine", "budget.max_steps=4")
    first, again = plan(capsys, *arguments), plan(capsys, *arguments)
    assert (first["measured"]["now"], first["measured"]["before"]) == (1, 0)
    assert (again["measured"]["now"], again["measured"]["before"]) == (0, 1) and len(timed) == 1
    assert again["jobs"][0]["train_s"] == first["jobs"][0]["train_s"] == 4 * STEP_S
    for path in here.glob("runs/.cache/forecast/*.json"):
        path.write_text("{half a fi")
    assert plan(capsys, *arguments)["measured"]["now"] == 1, "what cannot be read is measured again"
    assert plan(capsys, *arguments, "--fresh")["measured"]["now"] == 1 and len(timed) == 3


@pytest.mark.usefixtures("untraced")
def test_jobs_that_differ_in_seed_or_length_share_a_measurement(
    here: Path, world: Path, timed: list[RunConfig], capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = line(world, "-m", "method=mine", "budget.max_steps=4,10", "seed=0,1")
    found = plan(capsys, *arguments, "--total", "1")
    assert found["measured"]["now"] == len(timed) == 1 and len({job["run_id"] for job in found["jobs"]}) == 4
    assert [job["overrides"] for job in found["jobs"]] == [
        ["budget.max_steps=4", "seed=0"],
        ["budget.max_steps=4", "seed=1"],
        ["budget.max_steps=10", "seed=0"],
        ["budget.max_steps=10", "seed=1"],
    ]
    for job in found["jobs"]:
        assert job["train_s"] == STEP_S * job["steps"] and job["flops"] == 1e9 * job["steps"]
        assert job["seconds"]["evaluating"] == 3 * PASS_S, "20 examples in batches of 8"
        assert job["hours"] == pytest.approx(job["total_s"] / 3600)
    total = found["total"]
    assert total["train_hours"] == pytest.approx(2 * 14 * STEP_S / 3600)
    assert total["within"] is True and total["jobs_within"] == 4 and total["given_hours"] == 1


@pytest.mark.usefixtures("untraced")
def test_the_jobs_are_those_that_a_sweep_runs_in_its_order(
    here: Path, world: Path, timed: list[RunConfig], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = line(world, "-m", "method=glob(min*)", "optim.lr=1e-3,1e-2", "seed=1,0", "budget.max_steps=2")
    planned = plan(capsys, *arguments)
    ran: list[str] = []

    def train(config: RunConfig, directory: Path) -> Record:
        ran.append(run_id(config))
        return replace(blank_record(config, str(config.method["name"]), run_id(config)), status="skipped")

    stand_in(monkeypatch, train)
    main(["train", *arguments])
    assert len(ran) == 4 and [job["run_id"] for job in planned["jobs"]] == ran


@pytest.mark.usefixtures("untraced")
@pytest.mark.parametrize(
    ("limits", "steps", "ended_by"),
    [
        (["optim.epochs=2"], 12, "epochs"),
        (["budget.max_steps=5"], 5, "max_steps"),
        (["budget.max_tokens=1"], 1, "max_tokens"),
        (["budget.gpu_hours=0.001"], 8, "gpu_hours"),  # 3.6 s of half a second each
        (["budget.gpu_hours=0.001", "budget.gpus=2"], 4, "gpu_hours"),
    ],
)
def test_steps_end_at_the_first_limit(
    here: Path,
    world: Path,
    timed: list[RunConfig],
    capsys: pytest.CaptureFixture[str],
    limits: list[str],
    steps: int,
    ended_by: str,
) -> None:
    (job,) = plan(capsys, *line(world, "method=mine", *limits))["jobs"]
    assert (job["steps"], job["stopped_by"], job["train_s"]) == (steps, ended_by, steps * STEP_S)
    gpus = 2 if "budget.gpus=2" in limits else 1
    assert job["train_hours"] == pytest.approx(gpus * steps * STEP_S / 3600)


@pytest.mark.usefixtures("untraced")
def test_a_selection_split_is_scored_as_often_as_in_training(
    here: Path, world: Path, timed: list[RunConfig], capsys: pytest.CaptureFixture[str]
) -> None:
    given = line(world, "method=mine", "budget.max_steps=15", "optim.warmup_ratio=0.3")
    given = [word.replace("selection=none", "selection=train_holdout") for word in given]
    (job,) = plan(capsys, *given)["jobs"]
    assert job["steps"] == 15
    assert job["seconds"]["selecting"] == 4 * 2 * PASS_S, (
        "9 examples in 2 batches, after every third step behind the five of the warm-up"
    )


def test_what_will_be_skipped_says_why(
    here: Path, world: Path, timed: list[RunConfig], capsys: pytest.CaptureFixture[str]
) -> None:
    limits = "budget.trainable_params=1,200"
    arguments = line(world, "-m", "method=mine", limits, "budget.max_steps=2")
    small, fits = plan(capsys, *arguments)["jobs"]
    assert small["status"] == "skipped" and "trains 128 at its smallest" in small["reason"]
    assert small["total_s"] < 10 and small["steps"] is None and fits["status"] == "run"
    tight = ["budget.peak_memory_gib=1e-5", "budget.on_exceed=skip"]
    (memory,) = plan(capsys, *line(world, "method=mine", *tight))["jobs"]
    assert memory["status"] == "skipped" and "is predicted to need" in memory["reason"] and memory["steps"] is None
    assert main(["plan", *arguments, "--total", "2"]) == 0
    text = capsys.readouterr().out
    assert "2 jobs: 1 run, 1 skipped" in text and "skipped: budget.trainable_params=1 allows" in text
    assert "device-hours" in text and "hours of the CPU" in text and "to spare" in text and "q 1" in text
    short = plan(capsys, *arguments, "--total", "1e-6")["total"]
    assert short["within"] is False and short["jobs_within"] == 0


def test_a_micro_batch_is_fitted_to_the_memory(
    here: Path, world: Path, timed: list[RunConfig], capsys: pytest.CaptureFixture[str]
) -> None:
    whole = plan(capsys, *line(world, "method=mine"))["jobs"][0]
    limit = whole["predicted_gib"] * 0.95
    (job,) = plan(capsys, *line(world, "method=mine", f"budget.peak_memory_gib={limit}"))["jobs"]
    assert job["micro_batch"] * job["accumulation"] == 8 and job["micro_batch"] < 8
    assert job["predicted_gib"] <= limit * 0.95 and len(timed) == 2, "another micro-batch is another kind of job"


@pytest.mark.usefixtures("untraced")
def test_what_was_finished_is_not_counted_again(
    here: Path, world: Path, timed: list[RunConfig], capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = line(world, "-m", "method=mine", "seed=0,1", "budget.max_steps=2")
    from unipet.compose.composer import composer
    from unipet.compose.expand import sweep_jobs
    from unipet.compose.overrides import plan as planned

    overrides = [text for text in arguments if not text.startswith("-")]
    with composer(str(world / "mine")) as composing:
        first, _ = sweep_jobs(planned(overrides, True, composing), composing)
    assert first.config is not None and first.differing == ["seed=0"]
    prepared = prepare(first.config)
    (prepared.directory / "adapter").mkdir(parents=True)
    for name in ("config.yaml", "metrics.jsonl", "predictions.jsonl", "adapter/adapter.json"):
        (prepared.directory / name).write_text(name)
    record = replace(blank_record(first.config, "mine", prepared.run_id), status="ok")
    record.files = checksums(prepared.directory)
    write_record(prepared.directory / "result.json", record)
    before, other = plan(capsys, *arguments)["jobs"]
    assert before["status"] == "finished" and before["train_s"] == 0 and other["status"] == "run"
    assert main(["plan", *arguments]) == 0
    text = " ".join(capsys.readouterr().out.split())
    assert text.count("finished before") == 1 and "rerun=true repeats it" in text and "1 run, 1 not run again" in text
    again, _ = plan(capsys, *arguments, "rerun=true")["jobs"]
    assert again["status"] == "run"


@pytest.mark.usefixtures("untraced")
def test_one_jobs_mistake_is_its_own(
    here: Path,
    world: Path,
    timed: list[RunConfig],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    bad = "method.insertions.q.function.size=-3"
    assert main(["plan", *line(world, "method=mine", bad)]) == 2
    assert "method.insertions.q.function.size: -3" in capsys.readouterr().err
    assert main(["plan", *line(world, "-m", "method=mine", bad + ",2", "budget.max_steps=2")]) == 1
    out = capsys.readouterr().out
    assert "2 jobs: 1 run, 1 would fail" in out and "would fail: method.insertions.q.function.size: -3" in out
    assert not list(here.glob("runs/mine-*"))

    def broken(*_: Any) -> Calibration:
        raise torch.OutOfMemoryError("tried to allocate 3 GiB")

    monkeypatch.setattr(measuring, "measure", broken)
    (job,) = plan(capsys, *line(world, "method=other"))["jobs"]
    assert job["status"] == "exceeded" and job["reason"] == "out of memory: tried to allocate 3 GiB"


@pytest.mark.parametrize(
    ("argv", "says"),
    [
        (["method=mine", "--total", "some"], "--total some: not a number of hours"),
        (["method=mine", "--total", "-1"], "--total -1: not a number of hours"),
        (["method=mine", "--total", "nan"], "greater than 0"),
        (["method=mne"], "Did you mean 'mine'?"),
        (["method=mine,other"], "unipet plan -m"),
        (["method=mine", "budget.max_stepz=3"], "Did you mean 'max_steps'?"),
        (["method=mine", "budget.trainable_params=1", "budget.on_exceed=error"], "allows 1 trained parameters"),
        (["-m", "method=mine,other", "launcher=packed"], "Plan with launcher=local"),
    ],
)
def test_mistakes(here: Path, world: Path, capsys: pytest.CaptureFixture[str], argv: list[str], says: str) -> None:
    assert main(["plan", *line(world, *argv)]) == 2
    out, err = capsys.readouterr()
    assert out == "" and err.startswith("error: ") and says in err
    assert not (here / "runs").exists()


def test_a_few_batches_stand_for_all() -> None:
    sizes = [float((7 * k) % 50 + 10) for k in range(200)]
    chosen = representatives(sizes, 5)
    mean = sum(sizes) / len(sizes)
    assert len(set(chosen)) == 5 and sum(sizes[k] for k in chosen) / 5 == pytest.approx(mean, rel=0.03)
    assert sorted(representatives(sizes[:3], 5)) == [0, 1, 2]
    points = [(sizes[k], 0.3 + 0.02 * sizes[k]) for k in chosen[:3]]  # the larger sizes were not reached
    assert mean_cost(points, mean) == pytest.approx(0.3 + 0.02 * mean), "a cost that grows with size, exactly"
    assert mean_cost([(10.0, 2.0), (10.0, 4.0)], 20.0) == 6.0, "one size: in proportion"
    assert mean_cost([(10.0, 4.0), (20.0, 2.0)], 40.0) == 3.0, "noise makes no larger batch cheaper"
    with pytest.raises(ValueError, match="no batch"):
        mean_cost([], 1.0)


def test_chosen_batches_are_trained_as_they_are() -> None:
    lengths = [3, 9, 4, 8, 5, 7, 6, 2, 10, 11, 12, 13]
    rows = EncodedRows({"input_ids": [[1] * length for length in lengths]}, [0] * 12, 0.0)
    batches = [[0, 5, 11], [1, 2, 3], [10, 4, 8]]
    selected = Selected(rows, batches, keep_together=True)
    order = GroupedOrder(selected.lengths, 3, seed=4)
    seen = [sorted(selected.indices[k] for k in order.order(0)[at : at + 3]) for at in (0, 3, 6)]
    assert sorted(seen) == sorted(sorted(batch) for batch in batches)
    assert selected[1]["input_ids"] == [1] * 7 and len(selected) == 9
    assert batch_size_in_tokens(rows, batches[0], False) == 3 * 13


def test_operations_are_counted_in_attention_too() -> None:
    x, w = torch.ones(4, 8, requires_grad=True), torch.ones(16, 8, requires_grad=True)
    with flop_counter() as flops:
        torch.nn.functional.linear(x, w).sum().backward()
    assert flops.get_total_flops() == 3 * 2 * 4 * 8 * 16, "forward, and one product for each gradient"
    q = torch.ones(2, 3, 5, 4)
    with flop_counter() as flops, torch.no_grad():
        torch.nn.functional.scaled_dot_product_attention(q, q, q)
    assert flops.get_total_flops() == 2 * (2 * 2 * 3 * 5 * 5 * 4)
