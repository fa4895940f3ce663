"""One run in two processes on the CPU gives what one process gives for the same batches."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from tests.support.checkout import ROOT
from tests.support.devices import Kept
from tests.support.running import HEAD_ONLY, LOW_RANK, MIXTURE, run_dir, tiny_config
from tests.support.tasks import FULL, HEADS, config_of, write_arch
from unipet.config import RunConfig
from unipet.runs import other_devices
from unipet.runs.run import run

pytestmark = pytest.mark.slow


def changed(method: dict[str, Any], **keys: Any) -> dict[str, Any]:
    """A method whose insertions have other values under some keys."""
    made = copy.deepcopy(method)
    for insertion in made["insertions"].values():
        insertion.update(keys)
    return made


BOTTLENECK = {**changed(MIXTURE, mixture=None), "objective": {}}
PER_EXAMPLE = changed(MIXTURE, mixture={"experts": 3, "router": "per_example"})
SHARED = changed(MIXTURE, mixture={"experts": 3, "share": ["up"], "router": "round_robin"})
REGULARISED = {
    **MIXTURE,
    "objective": {"r_drop": 0.5, "l2_to_init": {"weight": 0.1, "head": True}, "orthogonality": 0.1},
}
DECODER = changed(LOW_RANK, position={"site": ["attn.q", "ffn.up"]})


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Kept]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(ROOT))
        second = Kept(tmp_path_factory.mktemp("kept") / "second.log")
    yield second
    second.end()


@pytest.fixture
def in_two(kept: Kept, monkeypatch: pytest.MonkeyPatch) -> Kept:
    monkeypatch.setattr(other_devices, "OtherDevice", kept.device)
    return kept


def outcome(config: RunConfig, gpus: int) -> tuple[dict[str, Any], list[dict[str, Any]], dict[str, torch.Tensor]]:
    """The record, the lines of metrics and the adapter of a run on so many devices."""
    config = copy.deepcopy(config)
    config.budget.gpus = gpus
    config.optim.epsilon = 1e-3  # or Adam makes a step of a gradient that is rounding alone
    directory = run_dir(config)
    record = run(config)
    assert record["status"] == "ok", record
    lines = [json.loads(line) for line in (directory / "metrics.jsonl").read_text().splitlines()]
    return record, lines, load_file(next((directory / "adapter").glob("*.safetensors")))


def same(config: RunConfig, steps: int) -> dict[str, Any]:
    """Hold two processes to one; the record of the two."""
    one, lines, adapter = outcome(config, 1)
    two, lines_of_two, adapter_of_two = outcome(config, 2)
    assert len(lines) == len(lines_of_two) == steps
    for mine, theirs in zip(lines, lines_of_two, strict=True):
        assert theirs["loss"] == pytest.approx(mine["loss"], rel=1e-6)
        terms = {name: value for name, value in mine.items() if name.startswith("loss/")}
        assert {name: theirs[name] for name in terms} == pytest.approx(terms, rel=1e-5, abs=1e-7)
        assert theirs["grad_norm"] == pytest.approx(mine["grad_norm"], rel=1e-4)
        assert theirs["lr"] == mine["lr"]
    assert adapter.keys() == adapter_of_two.keys()
    for name, tensor in adapter.items():
        torch.testing.assert_close(adapter_of_two[name], tensor, rtol=1e-4, atol=2e-6)
    assert two["score"] == one["score"] and two["time"]["steps"] == one["time"]["steps"]
    assert not torch.distributed.is_initialized()
    return two


@pytest.mark.parametrize(
    "method",
    [LOW_RANK, BOTTLENECK, HEADS, MIXTURE, PER_EXAMPLE, SHARED, FULL, HEAD_ONLY, REGULARISED],
    ids=["low_rank", "bottleneck", "prefix", "mixture", "per_example", "round_robin", "full", "head", "regularised"],
)
def test_losses_and_adapter_are_those_of_one_process(in_two: Kept, tmp_path: Path, method: dict[str, Any]) -> None:
    record = same(tiny_config(tmp_path, method), steps=12)
    assert in_two.shares[-1].micro_batch == 4
    assert any("without a GPU" in warning for warning in record["data"]["warnings"])


@pytest.mark.parametrize("batch_size", [7, 2, 47], ids=["unequal parts", "one row each", "the last batch has one row"])
def test_any_batch_size(in_two: Kept, tmp_path: Path, batch_size: int) -> None:
    steps = -(-48 // batch_size)
    same(tiny_config(tmp_path, PER_EXAMPLE, optim__batch_size=batch_size, optim__epochs=1), steps)


@pytest.mark.parametrize(
    "kind, arch", [("causal_generation", "gpt2"), ("seq2seq", "bart"), ("token_classification", "bert")]
)
def test_parts_with_different_numbers_of_answers(in_two: Kept, tmp_path: Path, kind: str, arch: str) -> None:
    model = write_arch(tmp_path / "model", arch, add_special=kind != "causal_generation")
    same(config_of(kind, tmp_path, model, DECODER, optim_epochs=2, optim_batch_size=5), steps=10)


def test_rates_of_their_own_and_a_limit_of_tokens(in_two: Kept, tmp_path: Path) -> None:
    changes = {"optim__lr_ratio": 4.0, "optim__schedule": "cosine", "optim__label_smoothing": 0.1}
    config = tiny_config(tmp_path, LOW_RANK, budget__max_tokens=300, optim__clip=0.05, seed=3, **changes)
    record = same(config, steps=6)
    assert record["stopped_by"] == "max_tokens"


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_half_precision(in_two: Kept, tmp_path: Path, precision: str) -> None:
    """Every process overflows with the others, and takes the step again with them."""
    one, two = (outcome(tiny_config(tmp_path, PER_EXAMPLE, precision=precision), gpus) for gpus in (1, 2))
    assert one[0]["status"] == two[0]["status"] == "ok"
    losses = [[line["loss"] for line in lines] for _, lines, _ in (one, two)]
    assert losses[0] == pytest.approx(losses[1], rel=5e-2)  # float32: 1e-4; these have 8 and 11 bits


def test_micro_batches(in_two: Kept, tmp_path: Path) -> None:
    config = tiny_config(tmp_path, MIXTURE, optim__batch_size=12)
    whole = run(config)["memory"]["predicted_gib"]
    config.budget.peak_memory_gib, config.budget.memory_margin = 0.9 * whole, 0.0
    assert (one := run(config))["fitted"]["accumulation"] > 1, one["fitted"]
    record = same(config, steps=8)
    assert record["memory"]["predicted_gib"] <= 0.9 * whole


def test_a_checkpoint_is_chosen_as_by_one_process(in_two: Kept, tmp_path: Path) -> None:
    config = tiny_config(tmp_path, LOW_RANK)
    config.task.selection, config.task.selection_size = "train_holdout", 8
    one, _, _ = outcome(config, 1)
    two, _, _ = outcome(config, 2)
    assert two["data"]["selection"]["step"] == one["data"]["selection"]["step"]
    assert two["data"]["selection"]["scores"] == one["data"]["selection"]["scores"]


def test_patience_ends_both_after_the_same_step(in_two: Kept, tmp_path: Path) -> None:
    config = tiny_config(tmp_path, LOW_RANK, optim__epochs=6)
    config.task.selection, config.task.selection_size = "train_holdout", 8
    config.task.selection_checkpoints, config.task.patience = 15, 2
    one, _, _ = outcome(config, 1)
    two, _, _ = outcome(config, 2)
    assert one["stopped_by"] == two["stopped_by"] == "task.patience"
    assert one["time"]["steps"] == two["time"]["steps"] < 30


@pytest.mark.parametrize("kind", ["token_classification", "multi_label"])
def test_class_weights(in_two: Kept, tmp_path: Path, kind: str) -> None:
    model = write_arch(tmp_path / "model", "bert")
    weights: Any = {"O": 0.4, "B-X": 3.0} if kind == "token_classification" else "balanced"
    config = config_of(kind, tmp_path, model, MIXTURE, optim_epochs=2, optim_batch_size=5, class_weights=weights)
    same(config, steps=10)


def test_time_ends_both_after_the_same_step_and_counts_both_devices(in_two: Kept, tmp_path: Path) -> None:
    config = tiny_config(tmp_path, LOW_RANK, optim__epochs=1000.0, budget__gpu_hours=2 * 2 / 3600, budget__gpus=2)
    record = run(config)
    assert record["status"] == "ok", record["error"]
    assert record["stopped_by"] == "gpu_hours"
    assert record["time"]["device_hours"] == pytest.approx(2 * record["time"]["train_s"] / 3600)
    assert 2.0 <= record["time"]["train_s"] < 3.0  # wall seconds of each of two devices, which had four together
