"""A base model of which each of two processes keeps one part (FSDP2) gives what a whole one gives, to the bit."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from tests.support.checkout import ROOT
from tests.support.devices import Kept
from tests.support.running import LOW_RANK, MIXTURE, run_dir, tiny_config
from tests.support.tasks import HEADS, config_of, write_arch
from unipet.config import RunConfig
from unipet.errors import UnipetError
from unipet.runs import other_devices
from unipet.runs.prepare import prepare
from unipet.runs.run import run
from unipet.training import trainer
from unipet.training.sharding import Sharded, local_bytes

PER_EXAMPLE = {
    **MIXTURE,
    "insertions": {"ffn": {**MIXTURE["insertions"]["ffn"], "mixture": {"experts": 3, "router": "per_example"}}},
}
READS_WEIGHTS = {
    "name": "reads_weights",
    "insertions": {
        "a": {
            "function": {"name": "low_rank", "size": 4},
            "position": {"site": ["attn.q", "ffn.up"]},
            "composition": "normalise",
        }
    },
}
LEARNED = {
    "name": "learned",
    "insertions": {"ffn": {**MIXTURE["insertions"]["ffn"], "mixture": {"experts": 3, "router": "learned"}}},
    "objective": {"balance": 0.1},
}
PROMPT = {"function": {"name": "prompt", "size": 3}, "position": {"site": "embed"}, "composition": "concat"}
TOKENS = {"name": "tokens", "insertions": {"p": PROMPT}}


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Kept]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(ROOT))
        second = Kept(tmp_path_factory.mktemp("kept") / "second.log")
    yield second
    second.end()


@pytest.fixture
def held(kept: Kept, monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, int]]:
    """Runs use the second process; the list gets (bytes that this process keeps, all bytes) of each sharded base model."""
    found: list[tuple[int, int]] = []

    class Counted(Sharded):
        def __init__(self, model: Any, *rest: Any) -> None:
            super().__init__(model, *rest)
            self.model = model

        def lead(self) -> None:
            super().lead()
            found.append(local_bytes(self.model))

    monkeypatch.setattr(other_devices, "OtherDevice", kept.device)
    monkeypatch.setattr(trainer, "Sharded", Counted)
    return found


def outcome(config: RunConfig, gpus: int, shard: str) -> tuple[dict[str, Any], list[Any], dict[str, torch.Tensor]]:
    """The record, the lines of metrics with the predictions, and the adapter of a run."""
    config.budget.gpus, config.model.shard, config.runs_dir = gpus, shard, f"{config.runs_dir}-{gpus}-{shard}"
    config.optim.epsilon = 1e-3  # or Adam makes a step of a gradient that is rounding alone
    record, directory = run(config), run_dir(config)
    assert record["status"] == "ok", record
    lines = [json.loads(line) for line in (directory / "metrics.jsonl").read_text().splitlines()]
    return record, lines, load_file(next((directory / "adapter").glob("*.safetensors")))


def check(make: Any, held: list[tuple[int, int]]) -> dict[str, Any]:
    """Hold two processes with parts to two with whole base models, and to one; the record of the first."""
    (parts, lines, adapter), whole, one = (
        outcome(make(), 2, "fsdp"),
        outcome(make(), 2, "none"),
        outcome(make(), 1, "none"),
    )
    assert lines == whole[1], "every loss, to the bit"
    assert adapter.keys() == whole[2].keys() and all(torch.equal(adapter[name], whole[2][name]) for name in adapter)
    for key in ("run_id", "score", "metrics", "params", "mixture", "flags"):
        assert parts.get(key) == whole[0].get(key), key
    assert parts["data"]["selection"] == whole[0]["data"]["selection"]
    losses = [[line["loss"] for line in each if "loss" in line] for each in (lines, one[1])]
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)
    for name, tensor in one[2].items():
        torch.testing.assert_close(adapter[name], tensor, rtol=1e-4, atol=2e-6)
    adapters = [
        json.loads(next(Path(make().runs_dir + end).glob("*/adapter/*.json")).read_text())
        for end in ("-2-fsdp", "-1-none")
    ]
    assert adapters[0]["base_model"] == adapters[1]["base_model"], "the fingerprint is of all values"
    assert parts["score"] == one[0]["score"] and not torch.distributed.is_initialized()
    assert held and all(0.45 < kept / all_of_it < 0.55 for kept, all_of_it in held), held
    return parts


@pytest.mark.slow
@pytest.mark.parametrize(
    "method",
    [LOW_RANK, HEADS, MIXTURE, READS_WEIGHTS, LEARNED, TOKENS],
    ids=["low_rank", "prefix", "mixture with consistency", "weights", "learned router", "virtual tokens"],
)
def test_losses_adapter_and_record_are_those_of_a_whole_base_model(
    held: list[tuple[int, int]], tmp_path: Path, method: dict[str, Any]
) -> None:
    check(lambda: tiny_config(tmp_path, method), held)


@pytest.mark.slow
@pytest.mark.parametrize("batch_size", [7, 47], ids=["unequal parts", "the last batch has one row"])
def test_a_process_without_a_row_goes_along(held: list[tuple[int, int]], tmp_path: Path, batch_size: int) -> None:
    changes = {"optim__batch_size": batch_size, "optim__epochs": 1, "task__selection": "train_holdout"}
    check(lambda: tiny_config(tmp_path, PER_EXAMPLE, task__selection_size=8, **changes), held)


@pytest.mark.slow
def test_patience_ends_parts_after_the_same_step(held: list[tuple[int, int]], tmp_path: Path) -> None:
    changes = {"task__selection": "train_holdout", "task__selection_size": 8, "optim__epochs": 6}
    changes |= {"task__selection_checkpoints": 15, "task__patience": 2}
    assert check(lambda: tiny_config(tmp_path, LOW_RANK, **changes), held)["stopped_by"] == "task.patience"


@pytest.mark.slow
def test_a_decoder_with_gradient_checkpointing(held: list[tuple[int, int]], tmp_path: Path) -> None:
    model = write_arch(tmp_path / "model", "llama", add_special=False)

    def make() -> RunConfig:
        config = config_of("classification", tmp_path, model, LOW_RANK, optim_epochs=1, optim_batch_size=8)
        config.checkpointing = True
        return config

    check(make, held)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"budget__gpus": 1}, "budget.gpus=1 is one process"),
        (
            {"method": {"name": "m", "insertions": {}, "unfreeze": ["norm"]}},
            r"method.unfreeze: \['norm'\] trains parameters",
        ),
        (
            {"budget__peak_memory_gib": 4.0},
            "budget.peak_memory_gib would be held against the memory of a whole base model",
        ),
        ({"cache_frozen": "true"}, "cache_frozen=true skips layers"),
        ({"method": {**LOW_RANK, "objective": {"distillation": {"weight": 1.0}}}}, "asks a teacher"),
    ],
    ids=lambda value: "" if isinstance(value, dict) else value,
)
def test_what_cannot_be_cut_is_refused_with_its_reason(tmp_path: Path, changes: dict[str, Any], said: str) -> None:
    config = tiny_config(tmp_path, **{"model__shard": "fsdp", "budget__gpus": 2, **changes})
    with pytest.raises(UnipetError, match=f"model.shard: fsdp given, and .*{said}"):
        prepare(config)
