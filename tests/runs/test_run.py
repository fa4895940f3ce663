"""One run from configuration to record: what it leaves behind, what it repeats exactly, and how it fails."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensor

from tests.support.running import HEAD_ONLY, LOW_RANK, MIXTURE, run_dir, tiny_config, write_model, write_task
from unipet.errors import UnipetError
from unipet.runs.record import Record
from unipet.runs.record_files import read_config
from unipet.runs.run import evaluate, prepare, run
from unipet.training import step as stepping

KEYS = {
    *("status", "run_id", "method", "task", "model", "budget", "seed", "score", "metric", "metrics", "params", "time"),
    *("memory", "insertions", "stopped_by", "error", "versions", "git_commit", "data", "started", "finished"),
    *("limits", "fitted", "reason", "phase", "identity", "files", "folder", "composition", "flags", "resumed"),
    "precision",
}


def files(directory: Path) -> list[str]:
    found = (path.relative_to(directory) for path in directory.rglob("*") if path.is_file())
    return sorted(str(path) for path in found if path.name != ".lock")


def test_a_run_leaves_a_complete_record(tmp_path: Path) -> None:
    config = tiny_config(tmp_path, optim__lr=0.05, optim__epochs=8)
    record = run(config)
    directory = run_dir(config)
    assert files(directory) == [
        *("adapter/adapter.json", "adapter/adapter.safetensors", "adapter/method.yaml"),
        *("config.yaml", "metrics.jsonl", "predictions.jsonl"),
        "result.json",
    ]
    assert json.loads((directory / "result.json").read_text()) == record
    assert set(record) == KEYS | {
        "frozen",
        "certificate",
        "comparable",
    }  # whose layers it looked at; what it may be ranked with
    assert record["comparable"]["loss mask"]["values"] == {"loss mask": "the label"}
    assert record["status"] == "ok" and record["error"] is None
    assert (record["method"], record["task"], record["model"], record["seed"]) == ("tiny_low_rank", "tiny", "model", 0)
    assert record["metric"] == "accuracy" and record["score"] == record["metrics"]["accuracy"] > 0.8
    assert record["params"]["trainable"] == 2 * 2 * 2 * 4 * 32  # layers x sites x (down, up) x rank x width
    assert record["time"]["steps"] == 48 and record["stopped_by"] == "epochs"
    times = dict(record["time"])
    phases = times.pop("phases_s")
    assert all(value > 0 for value in times.values())
    assert times["total_s"] == pytest.approx(sum(phases.values())) and phases["training"] >= times["train_s"] / 2
    assert record["data"]["train"] == 48 and record["data"]["evaluation"] == 20
    assert record["data"]["truncated"] == {"train": 0, "evaluation": 0}
    assert [row["name"] for row in record["insertions"]] == ["attention"]
    assert record["started"] <= record["finished"]
    assert record["memory"]["measured_by"] in ("process_rss", "cuda_reserved", None)
    assert record["memory"]["predicted_gib"] > 0
    assert record["fitted"]["micro_batch"] == 8 and not record["fitted"]["checkpointing"]
    assert (record["memory"]["peak_gib"] is None) == (record["memory"]["measured_by"] is None)


def test_predictions_explain_the_score(tmp_path: Path) -> None:
    config = tiny_config(tmp_path)
    record = run(config)
    rows = [json.loads(line) for line in (run_dir(config) / "predictions.jsonl").read_text().splitlines()]
    data = [json.loads(line) for line in (tmp_path / "data" / "validation.jsonl").read_text().splitlines()]
    assert [row["id"] for row in rows] == [row["id"] for row in data]  # the data's own order
    assert [row["label"] for row in rows] == [row["label"] for row in data]
    assert sum(row["score"] for row in rows) / len(rows) == pytest.approx(record["score"])
    for row in rows:
        best = max(range(2), key=row["logits"].__getitem__)
        assert row["score"] == float(best == row["label"])


def test_configuration_is_recorded_resolved(tmp_path: Path) -> None:
    config = tiny_config(tmp_path)
    run(config)
    written = yaml.safe_load((run_dir(config) / "config.yaml").read_text())
    assert written["method"]["insertions"]["attention"]["scaling"] == {"name": "constant", "value": 2.0}  # spelled out
    again = read_config(run_dir(config) / "config.yaml")
    assert prepare(again).run_id == prepare(config).run_id
    assert again.optim == config.optim and again.task == config.task


@pytest.mark.parametrize("method", [LOW_RANK, MIXTURE], ids=lambda method: method["name"])
def test_the_same_run_elsewhere_is_identical(tmp_path: Path, method: dict[str, Any]) -> None:
    first, second = (tiny_config(tmp_path, method, runs=name, optim__lr=0.03) for name in ("one", "two"))
    one = run(first)
    torch.manual_seed(123)  # what happened before in the process does not matter
    torch.rand(7)
    two = run(second)
    assert one["status"] == two["status"] == "ok"
    assert (one["score"], one["run_id"]) == (two["score"], two["run_id"])
    for name in ("predictions.jsonl", "metrics.jsonl", "adapter/adapter.safetensors", "adapter/adapter.json"):
        assert (run_dir(first) / name).read_bytes() == (run_dir(second) / name).read_bytes(), name


def test_seeds_differ(tmp_path: Path) -> None:
    first, second = tiny_config(tmp_path), tiny_config(tmp_path, seed=1)
    run(first)
    run(second)
    assert (run_dir(first) / "predictions.jsonl").read_text() != (run_dir(second) / "predictions.jsonl").read_text()


@pytest.mark.parametrize("method", [LOW_RANK, MIXTURE, HEAD_ONLY], ids=lambda method: method["name"])
def test_evaluate_reproduces_the_score(tmp_path: Path, method: dict[str, Any]) -> None:
    config = tiny_config(tmp_path, method, optim__lr=0.03)
    record = run(config)
    again = evaluate(run_dir(config))
    assert again["score"] == again["recorded"] == record["score"]
    assert again["reproduced"] and again["difference"] == 0 and again["examples"] == 20


def test_evaluate_refuses_other_data_and_unfinished_runs(tmp_path: Path) -> None:
    config = tiny_config(tmp_path)
    run(config)
    directory = run_dir(config)
    write_task(tmp_path / "data", evaluation=18)
    with pytest.raises(UnipetError, match="are not those of the run"):
        evaluate(directory)
    with pytest.raises(UnipetError, match="not the directory of a run"):
        evaluate(tmp_path / "data")
    path = directory / "result.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "status": "failed"}))
    with pytest.raises(UnipetError, match="status is 'failed'"):
        evaluate(directory)


def test_a_finished_run_is_not_repeated(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = tiny_config(tmp_path)
    first = run(config)
    stamp = (run_dir(config) / "result.json").stat().st_mtime_ns
    capsys.readouterr()
    assert run(config) == first
    assert str(run_dir(config)) in capsys.readouterr().out
    assert (run_dir(config) / "result.json").stat().st_mtime_ns == stamp
    config.rerun = True
    assert run(config)["score"] == first["score"]
    assert (run_dir(config) / "result.json").stat().st_mtime_ns != stamp


def test_a_run_on_other_data_is_another_run(tmp_path: Path) -> None:
    config = tiny_config(tmp_path)
    first, before = run(config), run_dir(config)
    write_task(tmp_path / "data", train=40)
    second = run(config)
    assert second["data"]["fingerprint"] != first["data"]["fingerprint"]
    assert second["data"]["train"] == 40 and run_dir(config) != before
    assert json.loads((before / "result.json").read_text()) == first


def test_budget_ends_training(tmp_path: Path) -> None:
    record = run(tiny_config(tmp_path, budget__max_steps=3, budget__name="three"))
    assert (record["time"]["steps"], record["stopped_by"], record["budget"]) == (3, "max_steps", "three, max_steps=3")


def test_regression(tmp_path: Path) -> None:
    config = tiny_config(tmp_path, task__kind="regression", task__labels=[], task__metrics=["pearson", "spearman"])
    record = run(config)
    assert record["status"] == "ok", record["error"]
    assert record["metric"] == "pearson" and -1 <= record["score"] <= 1
    assert evaluate(run_dir(config))["reproduced"]


def test_bf16(tmp_path: Path) -> None:
    config = tiny_config(tmp_path, precision="bf16", optim__lr=0.05, optim__epochs=8)
    record = run(config)
    assert record["status"] == "ok" and record["score"] > 0.8
    assert evaluate(run_dir(config))["reproduced"]


def break_loss(monkeypatch: pytest.MonkeyPatch, step: int, what: Any) -> None:
    count = 0
    original = stepping.task_loss

    def broken(*args: Any) -> Tensor:
        nonlocal count
        if isinstance(args[0], FakeTensor):  # the prediction of memory, before training
            return original(*args)
        count += 1
        return what(original(*args)) if count == step else original(*args)

    monkeypatch.setattr(stepping, "task_loss", broken)


def test_nan_is_a_failed_record(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = tiny_config(tmp_path)
    break_loss(monkeypatch, 2, lambda loss: loss * float("nan"))
    record = run(config)
    assert (record["status"], record["stopped_by"], record["score"]) == ("failed", "nan", None)
    assert record["error"]["type"] == "UnipetError"
    assert "became nan at step 2 of 12" in record["error"]["message"] and "optim.lr" in record["error"]["message"]
    assert set(record) == KEYS and record["finished"] is not None
    assert json.loads((run_dir(config) / "result.json").read_text()) == record
    assert files(run_dir(config)) == ["config.yaml", "metrics.jsonl", "result.json"]
    monkeypatch.undo()
    assert run(config)["status"] == "ok"  # a failed run is run again


def test_an_exception_is_a_failed_record_with_its_traceback(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(loss: Tensor) -> Tensor:
        raise RuntimeError("the machine is on fire")

    config = tiny_config(tmp_path)
    break_loss(monkeypatch, 1, fail)
    record = run(config)
    assert record["status"] == "failed" and record["error"]["type"] == "RuntimeError"
    assert record["error"]["message"].startswith("the machine is on fire")
    assert "the machine is on fire" in (run_dir(config) / "error.txt").read_text()
    monkeypatch.undo()
    assert run(config)["status"] == "ok"
    assert not (run_dir(config) / "error.txt").exists()


def test_an_interrupt_passes_through_and_is_recorded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(loss: Tensor) -> Tensor:
        raise KeyboardInterrupt

    config = tiny_config(tmp_path)
    break_loss(monkeypatch, 2, interrupt)
    with pytest.raises(KeyboardInterrupt):
        run(config)
    record = json.loads((run_dir(config) / "result.json").read_text())
    assert (record["status"], record["phase"]) == ("interrupted", "training")
    assert (record["error"], record["reason"]) == (None, "interrupted during training")


def test_a_killed_run_says_running(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What a record holds while the run works is what it holds for ever if the process is killed."""
    config = tiny_config(tmp_path)
    seen: list[Any] = []
    break_loss(
        monkeypatch, 1, lambda loss: seen.append(json.loads((run_dir(config) / "result.json").read_text())) or loss
    )
    run(config)
    assert seen[0]["status"] == "running" and set(seen[0]) == KEYS
    assert seen[0]["finished"] is None and seen[0]["score"] is None


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"optim__lr": -1.0}, r"optim\.lr: -1\.0 given; allowed: a finite number greater than 0"),
        ({"optim__lr": "fast"}, r"optim\.lr: 'fast' given"),
        ({"optim__lr": float("nan")}, r"optim\.lr: nan given"),
        ({"optim__lr": float("inf")}, r"optim\.lr: inf given"),
        ({"optim__batch_size": 0}, r"optim\.batch_size: 0 given; allowed: a whole number from 1"),
        ({"optim__batch_size": 2.5}, r"optim\.batch_size: 2\.5 given"),
        ({"optim__eval_batch_size": True}, r"optim\.eval_batch_size: True given"),
        ({"optim__epochs": 0}, r"optim\.epochs: 0 given"),
        ({"optim__warmup_ratio": 1.5}, r"optim\.warmup_ratio: 1\.5 given; .* at least 0 and at most 1"),
        ({"optim__label_smoothing": 1.0}, r"optim\.label_smoothing: 1\.0 given; .* less than 1"),
        ({"optim__beta2": 1.0}, r"optim\.beta2"),
        ({"optim__schedule": "linaer"}, r"optim\.schedule: unknown 'linaer'.*Did you mean 'linear'"),
        ({"budget__max_steps": 0}, r"budget\.max_steps: 0 given; allowed: a whole number from 1 to \d+ or null"),
        ({"seed": -1}, r"seed: -1 given"),
        ({"precision": "bf61"}, r"precision: unknown 'bf61'.*Did you mean 'bf16'"),
        ({"tracking__name": "wand"}, r"tracking\.name: unknown 'wand'.*Did you mean 'wandb'"),
        ({"task__data_dir": "no/such/directory"}, r"no/such/directory"),
        ({"task__kind": "clasification"}, r"task\.kind"),
        ({"model__path": "/no/such/model"}, r"model\.path: '/no/such/model' is not a directory"),
    ],
)
def test_mistakes_are_found_before_anything_is_written(tmp_path: Path, change: dict[str, Any], words: str) -> None:
    with pytest.raises(UnipetError, match=words):
        run(tiny_config(tmp_path, **change))
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize(
    ("part", "words"),
    [
        ({"function": {"name": "low_rnk", "size": 4}}, "low_rnk"),
        ({"position": {"site": "cross.q"}}, r"cross\.q"),
        ({"function": {"name": "low_rank", "size": -4}}, "size"),
    ],
)
def test_mistakes_in_a_method_are_found_before_anything_is_written(
    tmp_path: Path, part: dict[str, Any], words: str
) -> None:
    method = {"name": "wrong", "insertions": {"attention": {**LOW_RANK["insertions"]["attention"], **part}}}
    with pytest.raises(UnipetError, match=words):
        run(tiny_config(tmp_path, method))
    assert not (tmp_path / "runs").exists()


def test_a_file_in_the_way_of_the_runs_directory(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for runs in ("file", "file/deeper"):
        with pytest.raises(UnipetError, match=r"runs_dir: cannot write to .*file is a file"):
            run(tiny_config(tmp_path, runs=runs))


#: Mistakes that only the base model shows: the changed settings, and the error, which says what is allowed.
BEFORE_THE_RUN = {
    "max_length": (
        {"task__max_length": 41},
        r"task\.max_length: 41 given; .* at most 40 tokens\. Set task\.max_length=40",
    ),
    "sha256": ({"model__sha256": "0" * 64}, r"model\.sha256: .* expected 0000.*correct model\.sha256"),
    "lr_ratio": ({"method": HEAD_ONLY, "optim__lr_ratio": 16.0}, r"optim\.lr_ratio: .*'tiny_head' has no `up` slot"),
}


@pytest.mark.parametrize("case", BEFORE_THE_RUN)
def test_a_setting_that_the_base_model_does_not_allow_is_an_error_before_the_run(case: str, tmp_path: Path) -> None:
    changes, message = BEFORE_THE_RUN[case]
    config = tiny_config(tmp_path, **changes)
    with pytest.raises(UnipetError, match=message):
        run(config)
    assert not (tmp_path / "runs").exists(), "nothing was written"


def test_a_max_length_of_all_positions_is_allowed(tmp_path: Path) -> None:
    assert prepare(tiny_config(tmp_path, task__max_length=40)).config.task.max_length == 40


def test_runs_write_nothing_outside_their_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = tiny_config(tmp_path)
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    before = files(tmp_path)
    run(config)
    inside = str(run_dir(config).relative_to(tmp_path))
    cache = "runs/.cache/"  # tokenised data, for the next run
    made = [name for name in files(tmp_path) if name not in before and not name.startswith((inside, cache))]
    assert made == []


def test_a_run_is_mirrored_to_one_tracker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from unipet.runs import tracking

    told: dict[str, Any] = {"logged": [], "finished": []}

    class Watch:
        def log(self, values: Any, step: int) -> None:
            told["logged"].append(step)

        def finish(self, record: Record) -> bool:
            told["finished"].append((record.score, record.status))
            return True

    def open_watch(config: Any, record: Record, resolved: Any) -> Watch:
        told["opened"] = (record.run_id, record.status, (record.composition or {})["name"], resolved["method"]["name"])
        return Watch()

    monkeypatch.setattr(tracking, "open_tracker", open_watch)
    config = tiny_config(tmp_path)
    record = run(config)
    assert told["opened"] == (record["run_id"], "running", "tiny_low_rank", "tiny_low_rank")
    assert told["logged"] == list(range(1, 13))
    assert told["finished"] == [(record["score"], "ok")]


def test_roberta_base_model(tmp_path: Path) -> None:
    from tests.support.tiny import tiny_roberta, tiny_tokenizer

    config = tiny_config(tmp_path, model__path=str(tmp_path / "roberta"))
    tiny_roberta(head=False).save_pretrained(tmp_path / "roberta")
    tiny_tokenizer().save_pretrained(tmp_path / "roberta")
    record = run(config)
    assert record["status"] == "ok", record["error"]
    assert evaluate(run_dir(config))["reproduced"]


def test_missing_weights_are_found_before_training(tmp_path: Path) -> None:
    config = tiny_config(tmp_path, model__path=str(write_model(tmp_path / "other")))
    (tmp_path / "other" / "model.safetensors").unlink()
    with pytest.raises(UnipetError, match=r"no model\.safetensors"):
        run(config)
    assert not (tmp_path / "runs").exists()
