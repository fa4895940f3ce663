"""Runs of one process share the base model's weights; each is the run that it would be alone."""

from __future__ import annotations

from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers

from tests.support.architectures import ARCHS
from tests.support.running import HEAD_ONLY, LOW_RANK, MIXTURE, tiny_config
from tests.support.tiny import tiny_tokenizer
from unipet.config import RunConfig
from unipet.runs import kept_traces
from unipet.runs.prepare import prepare
from unipet.runs.run import perform
from unipet.runs.shared import Shared, digest
from unipet.training.budget import memory_fit
from unipet.training.budget.trace import trace_step

FULL: dict[str, Any] = {"name": "tiny_full", "insertions": {}, "unfreeze": ["all"]}
FILES = ("metrics.jsonl", "predictions.jsonl", "adapter/adapter.json", "adapter/adapter.safetensors")


def told(model: Any) -> tuple[Any, ...]:
    """What a model says of itself besides its weights."""
    generation = getattr(model, "generation_config", None)
    return type(model), model.config.to_dict(), model.name_or_path, generation and generation.to_dict(), model.training


@pytest.mark.parametrize("arch", ["bert", "distilbert", "llama", "bart", "t5"])
def test_a_shared_base_model_is_the_one_that_loading_gives(tmp_path: Path, arch: str) -> None:
    config = tiny_config(tmp_path)
    place = tmp_path / "other"
    bare = ARCHS[arch].build()
    bare.save_pretrained(place)
    tiny_tokenizer().save_pretrained(place)
    config = replace(config, model=replace(config.model, path=str(place)))
    first = prepare(config)
    shared = Shared()
    shared.load(first)
    for seed in (3, 4):
        transformers.set_seed(seed)
        again, _ = shared.load(first)
        state = torch.get_rng_state()
        transformers.set_seed(seed)
        alone, _ = Shared().load(first)
        assert torch.equal(state, torch.get_rng_state()), "the same draws, in the same number"
        assert told(again) == told(alone)
        ours, theirs = again.state_dict(), alone.state_dict()
        assert ours.keys() == theirs.keys() and all(torch.equal(ours[name], theirs[name]) for name in ours)
    assert shared.base is not None
    kept = {tensor.data_ptr() for tensor in shared.base.weights.values()}
    assert kept & {tensor.data_ptr() for tensor in again.state_dict().values()}, "weights are shared, not copied"


def files(config: RunConfig, shared: Shared | None, root: Path) -> dict[str, bytes]:
    done = perform(replace(config, runs_dir=str(root)), shared=shared)
    assert done.record.status == "ok"
    return {name: (done.directory / name).read_bytes() for name in FILES}


def test_a_run_is_the_same_whatever_ran_before_it_in_the_process(tmp_path: Path) -> None:
    shared = Shared()
    methods = (LOW_RANK, MIXTURE, HEAD_ONLY, FULL, LOW_RANK)
    for number, method in enumerate(methods):
        config = tiny_config(tmp_path, method, seed=number)
        assert files(config, shared, tmp_path / "shared") == files(config, None, tmp_path / "alone"), method["name"]


def test_a_base_model_that_a_run_has_changed_is_loaded_again(tmp_path: Path) -> None:
    shared = Shared()
    perform(tiny_config(tmp_path), shared=shared)
    kept = shared.base
    assert kept is not None
    perform(tiny_config(tmp_path, seed=1), shared=shared)
    assert shared.base is kept
    perform(tiny_config(tmp_path, FULL), shared=shared)
    assert shared.base is None, "a run that trains the base model keeps it"
    perform(tiny_config(tmp_path, seed=2), shared=shared)
    kept = shared.base
    assert kept is not None
    next(iter(kept.weights.values())).view(-1)[0] += 1
    assert digest(kept.weights) != kept.digest
    perform(tiny_config(tmp_path, seed=3), shared=shared)
    assert shared.base is not kept


def test_another_base_model_or_head_is_loaded_for_itself(tmp_path: Path) -> None:
    shared = Shared()
    shared.load(prepare(tiny_config(tmp_path)))
    before = shared.base
    shared.load(prepare(tiny_config(tmp_path, seed=5)))
    assert shared.base is before
    shared.load(prepare(tiny_config(tmp_path, task__labels=["yes", "no"])))
    assert shared.base is not before


def test_predictions_of_memory_are_the_same_from_memory(tmp_path: Path) -> None:
    shared = Shared()
    records = [perform(tiny_config(tmp_path, seed=seed), shared=shared).record for seed in (0, 1)]
    alone = perform(tiny_config(tmp_path, runs="alone", seed=1)).record
    assert len(shared.traces) == 1
    assert records[1].memory.predicted_gib == alone.memory.predicted_gib
    assert asdict(records[1].fitted) == asdict(alone.fitted)
    perform(tiny_config(tmp_path, MIXTURE), shared=shared)
    assert len(shared.traces) == 2


def test_predictions_of_memory_are_the_same_from_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    traced: list[int] = []

    def counted(*args: Any, **options: Any) -> Any:
        traced.append(1)
        return trace_step(*args, **options)

    monkeypatch.setattr(memory_fit, "trace_step", counted)
    first = perform(tiny_config(tmp_path)).record
    again = perform(tiny_config(tmp_path, seed=1, optim__lr=1e-3)).record
    assert len(traced) == 1
    assert again.memory.predicted_gib == first.memory.predicted_gib
    assert again.fitted.predicted_parts_gib == first.fitted.predicted_parts_gib
    for differs in ({"model__dropout": 0.1}, {"precision": "bf16"}, {"method": MIXTURE}):
        perform(tiny_config(tmp_path, **differs))
    assert len(traced) == 4
    (path, *_) = sorted((tmp_path / "runs" / ".cache" / "traces").glob("*.json"))
    for kept in path.parent.glob("*.json"):
        kept.write_text('{"damaged": {"peak_bytes": "large"}}')
    assert perform(tiny_config(tmp_path, seed=2)).record.memory.predicted_gib == first.memory.predicted_gib
    assert len(traced) == 5
    monkeypatch.setattr(kept_traces, "source_checksum", lambda: "another version")
    perform(tiny_config(tmp_path, seed=3))
    assert len(traced) == 6
