"""Sweeps: every job counts, none stops the others, and the table closes them."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path

import pytest
import yaml

from tests.support.running import resolved, said_id, stand_in, write_model, write_task
from unipet.cli.main import main
from unipet.config import RunConfig
from unipet.runs.record import ErrorOf, Record, blank_record
from unipet.runs.record_files import write_record
from unipet.runs.sweep_files import read_jobs
from unipet.sweeps import jobs
from unipet.sweeps.directory import read_sweep

FLAGS = ["task=synthetic_verdicts", "model=minilm"]


@pytest.fixture()
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture()
def quick(monkeypatch: pytest.MonkeyPatch) -> list[RunConfig]:
    """Runs that write a record and train nothing: the score is the seed's, and seed 7 fails. Returns what was run."""
    ran: list[RunConfig] = []

    def train(config: RunConfig, directory: Path) -> Record:
        ran.append(config)
        name = str(config.method["name"])
        record = blank_record(config, name, said_id(config))
        record.data.source = "synthetic:made up"
        record.params.trainable, record.params.percent = 10, 0.1
        record.time.train_s = 1.0
        if config.seed == 7:
            record.status, record.error = "failed", ErrorOf("RuntimeError", "the loss is not a number")
        else:
            record.status, record.score, record.metric = "ok", config.seed / 10, "accuracy"
        directory.mkdir(parents=True, exist_ok=True)
        (directory / "config.yaml").write_text(yaml.safe_dump(resolved(config)))
        write_record(directory / "result.json", record)
        return record

    stand_in(monkeypatch, train)
    return ran


def sweep_of(here: Path) -> Path:
    (found,) = (here / "runs" / "sweeps").iterdir()
    return found


def table_of(directory: Path) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO((directory / "comparison.csv").read_text())))


def test_the_product_runs_and_the_table_closes_it(
    here: Path, quick: list[RunConfig], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["train", "-m", *FLAGS, "method=lora,bitfit", "seed=1,2,3"]) == 0
    out, err = capsys.readouterr()
    assert [(config.method["name"], config.seed) for config in quick] == [
        (m, s) for m in ("lora", "bitfit") for s in (1, 2, 3)
    ]
    assert "[1/6] method=lora seed=1\n" in err and "[6/6] method=bitfit seed=3\n" in err
    assert "0.2000 ± 0.1000" in out and "synthetic_verdicts (synthetic)" in out
    sweep = sweep_of(here)
    assert [(row["method"], row["seeds"]) for row in table_of(sweep)] == [("bitfit", "3"), ("lora", "3")]
    assert (sweep / "comparison.txt").read_text().strip() in out and (sweep / "comparison.md").is_file()
    assert {config.tracking.group for config in quick} == {sweep.name}
    for number in range(6):
        job = json.loads((sweep / "jobs" / f"{number}.json").read_text())
        record = json.loads((sweep / job["run_dir"] / "result.json").read_text())
        assert (job["job"], job["status"], job["run_id"]) == (number, "ok", record["run_id"])
    assert [path.name for path in here.iterdir()] == ["runs"], "everything is below runs_dir"


def test_a_failed_job_does_not_stop_the_others(
    here: Path, quick: list[RunConfig], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["train", "-m", *FLAGS, "method=lora", "seed=7,1"]) == 1
    out, err = capsys.readouterr()
    assert len(quick) == 2 and "Traceback" not in err
    assert (
        "failed: task=synthetic_verdicts model=minilm method=lora seed=7\n    RuntimeError: the loss is not a number"
        in out
    )
    assert "2 jobs, 1 failed" in out
    (row,) = table_of(sweep_of(here))
    assert (row["score_mean"], row["score_std"], row["seeds"], row["runs"]) == ("0.1", "", "1", "2")
    assert main(["report", "runs"]) == 0
    assert "1 of 2" in capsys.readouterr().out


def test_a_mistake_inside_one_method_is_a_failed_job(
    here: Path, quick: list[RunConfig], capsys: pytest.CaptureFixture[str]
) -> None:
    override = "method.insertions.attention.function.size=2,-3"
    assert main(["train", "-m", *FLAGS, "method=lora", override, "seed=1"]) == 1
    out, _ = capsys.readouterr()
    assert len(quick) == 1 and "method.insertions.attention.function.size=-3 seed=1\n" in out
    assert "method.insertions.attention.function.size: -3" in out
    assert {row["score_mean"] for row in table_of(sweep_of(here))} == {"0.1", ""}


@pytest.mark.parametrize("error", [RuntimeError("out of luck"), SystemExit(3), ValueError()])
def test_whatever_a_job_raises_is_its_own_failure(
    here: Path,
    quick: list[RunConfig],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    error: BaseException,
) -> None:
    working = jobs.train

    def train(config: RunConfig, directory: Path) -> Record:
        if config.seed == 1:
            raise error
        return working(config).record

    stand_in(monkeypatch, train)
    assert main(["train", "-m", *FLAGS, "seed=1,2"]) == 1
    out, _ = capsys.readouterr()
    assert type(error).__name__ in out and [config.seed for config in quick] == [2]


def test_an_old_result_does_not_hide_a_new_failure(
    here: Path, quick: list[RunConfig], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert main(["train", "-m", *FLAGS, "seed=1"]) == 0

    def train(config: RunConfig, directory: Path) -> Record:
        raise RuntimeError("new")

    stand_in(monkeypatch, train)
    assert main(["train", "-m", *FLAGS, "seed=1"]) == 1


def test_an_interrupt_reports_what_there_is(
    here: Path, quick: list[RunConfig], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    working = jobs.train

    def train(config: RunConfig, directory: Path) -> Record:
        if config.seed == 2:
            raise KeyboardInterrupt
        return working(config).record

    stand_in(monkeypatch, train)
    assert main(["train", "-m", *FLAGS, "seed=1,2,3"]) == 130
    out, err = capsys.readouterr()
    assert "3 jobs, 1 unfinished, 1 never started" in out
    assert "failed" not in out and "0.1000" in out and "error: interrupted" in err


def test_choices_inside_a_method_are_rows_of_their_own(
    here: Path, quick: list[RunConfig], capsys: pytest.CaptureFixture[str]
) -> None:
    swept = ["method.insertions.ffn.position.form=parallel,sequential", "method.insertions.ffn.scaling=1.0,4.0"]
    assert main(["train", "-m", *FLAGS, "method=mam", *swept, "seed=1,2"]) == 0
    _, err = capsys.readouterr()
    assert "[8/8] method.insertions.ffn.position.form=sequential method.insertions.ffn.scaling=4.0 seed=2\n" in err
    rows = table_of(sweep_of(here))
    assert len({row["variant"] for row in rows}) == 4 and {row["seeds"] for row in rows} == {"2"}


def test_an_experiment_brings_its_own_sweep(here: Path, quick: list[RunConfig]) -> None:
    assert main(["train", "experiment=adapter_forms", "seed=1"]) == 0
    assert len(quick) == 4 and {config.budget.max_steps for config in quick} == {100}


def test_globs_and_ranges_count(here: Path, quick: list[RunConfig], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", "-m", *FLAGS, "method=glob(adamix*)", "seed=range(1,3)"]) == 0
    assert "[4/4] method=adamix_lora seed=2\n" in capsys.readouterr().err and len(quick) == 4


def test_one_job_twice_is_one_run(here: Path, quick: list[RunConfig], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", "-m", *FLAGS, "method=lora", "seed=2,2,4"]) == 0
    (row,) = table_of(sweep_of(here))
    assert (row["seeds"], row["runs"], float(row["score_mean"])) == ("2", "2", pytest.approx(0.3))
    assert "3 jobs, 2 different runs" in capsys.readouterr().out
    assert main(["report", str(sweep_of(here))]) == 0
    assert "0.3000 ± 0.1414" in capsys.readouterr().out


def test_a_sweep_s_directory_is_named_after_what_it_computes(here: Path, quick: list[RunConfig]) -> None:
    for texts in (["seed=1"], ["seed=1", "tracking.project=other"], ["seed=2"], ["seed=1", "optim.lr=1e-3"]):
        assert main(["train", "-m", *FLAGS, *texts]) == 0
    assert len(list((here / "runs" / "sweeps").iterdir())) == 3, "the project of a dashboard changes no result"
    for _ in range(2):
        assert main(["train", "-m", *FLAGS, "seed=1", "rerun=true"]) == 0
    assert len(list((here / "runs" / "sweeps").iterdir())) == 5, "to run again is wished anew each time"


def test_real_jobs_of_a_users_own_files(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_model(here / "model")
    write_task(here / "data")
    task = {"name": "tiny", "text": ["sentence"], "labels": ["no", "yes"], "metrics": ["accuracy"], "max_length": 16}
    (here / "own" / "task").mkdir(parents=True)
    (here / "own" / "task" / "tiny.yaml").write_text(yaml.safe_dump(task))
    argv = [
        "train",
        "-m",
        "--config-dir=own",
        "task=tiny",
        "task.data_dir=data",
        "model=model",
        "method=lora,head_only",
    ]
    assert main([*argv, "budget.max_steps=2", "seed=0,1", "tracking=wandb"]) == 0
    rows = table_of(sweep_of(here))
    assert {row["method"] for row in rows} == {"lora", "head_only"}
    lora = next(row for row in rows if row["method"] == "lora")
    assert int(lora["trainable"]) == 2 * 2 * 2 * 16 * 32, "two layers, query and value, down and up, rank 16, width 32"
    records = [json.loads(path.read_text()) for path in (here / "runs").glob("*/result.json")]
    mirrored = {path.stem.removeprefix("run-") for path in (here / "runs" / "wandb").glob("offline-run-*/run-*.wandb")}
    assert len(records) == 4 and mirrored == {record["run_id"] for record in records}, "one wandb run per job"


def test_a_directory_of_another_sweep_is_refused(
    here: Path, quick: list[RunConfig], capsys: pytest.CaptureFixture[str]
) -> None:
    for _ in range(2):
        assert main(["train", "-m", *FLAGS, "seed=1,2", "hydra.sweep.dir=mine"]) == 0
    assert len(quick) == 4 and read_sweep(Path("mine")).name.startswith("seed-")
    assert main(["train", "-m", *FLAGS, "seed=3,4", "hydra.sweep.dir=mine"]) == 2
    assert "hydra.sweep.dir=mine: the directory of another sweep" in capsys.readouterr().err and len(quick) == 4


def test_the_same_command_may_be_watched_and_launched_otherwise(here: Path, quick: list[RunConfig]) -> None:
    assert main(["train", "-m", *FLAGS, "seed=1,2"]) == 0
    others = ["tracking.project=other", "launcher.retries=3", "checkpoint.every=7 steps"]
    assert main(["train", "-m", *FLAGS, "seed=1,2", *others]) == 0
    assert [config.tracking.project for config in quick] == ["unipet", "unipet", "other", "other"]
    assert {config.checkpoint.every for config in quick[2:]} == {"7 steps"}
    sweep = sweep_of(here)
    assert read_sweep(sweep).launcher.retries == 3 and "launcher.retries=3" in read_sweep(sweep).command
    assert all("tracking.project=other" in state.overrides for state in read_jobs(sweep))


def test_a_sweep_has_one_launcher(here: Path, quick: list[RunConfig], capsys: pytest.CaptureFixture[str]) -> None:
    for text in ("launcher=local,slots", "launcher.retries=1,2"):
        assert main(["train", "-m", *FLAGS, "seed=1,2", text]) == 2
        assert f"error: {text.split('=')[0]}: one sweep has one launcher" in capsys.readouterr().err
    assert not quick and not (here / "runs").exists()
