"""`cache_frozen`: what a run with kept outputs computes, when outputs are kept, and what it says where they cannot be."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from tests.support.resuming import FILES, killed
from tests.support.running import HEAD_ONLY, LOW_RANK, MIXTURE, run_dir, tiny_config
from unipet.config import CheckpointConfig, RunConfig
from unipet.errors import UnipetError
from unipet.runs.run import run
from unipet.training import frozen_cache


def late(method: dict[str, Any]) -> dict[str, Any]:
    """The method in the last of two layers alone."""
    insertions = {
        name: {**choices, "position": {**choices["position"], "layers": "last:1"}}
        for name, choices in method["insertions"].items()
    }
    return {**method, "insertions": insertions}


DROPPING = {**late(LOW_RANK)}
DROPPING["insertions"] = {"a": {**DROPPING["insertions"]["attention"]}}
DROPPING["insertions"]["a"]["function"] = {**DROPPING["insertions"]["a"]["function"], "dropout": 0.2}


def tensors(config: RunConfig) -> dict[str, torch.Tensor]:
    return load_file(run_dir(config) / "adapter" / "adapter.safetensors")


def losses(config: RunConfig) -> list[float]:
    lines = [json.loads(line) for line in (run_dir(config) / "metrics.jsonl").read_text().splitlines()]
    return [line["loss"] for line in lines if "loss" in line]


@pytest.mark.parametrize(
    "method",
    [late(LOW_RANK), late(MIXTURE), HEAD_ONLY, DROPPING],
    ids=["encoder", "two views", "head alone", "own dropout"],
)
@pytest.mark.parametrize("changes", [{}, {"budget__peak_memory_gib": None, "task__selection": "train_holdout"}])
def test_a_run_is_the_same_up_to_rounding(tmp_path: Path, method: dict[str, Any], changes: dict[str, Any]) -> None:
    """Also with an odd batch at the end of each epoch, and with checkpoints scored on the way."""
    changes = {**changes, "optim__batch_size": 7, "optim__epochs": 3, "checkpoint__every": None}
    kept, plain = (tiny_config(tmp_path, method, cache_frozen=cached, **changes) for cached in ("true", "false"))
    record, without = run(kept), run(plain)
    assert record["status"] == without["status"] == "ok"
    assert record["frozen"]["layers"] == {"encoder": 2 if method is HEAD_ONLY else 1}
    assert record["frozen"]["gib"] > 0
    assert without["frozen"] == {"layers": {}, "gib": None, "why_not": "cache_frozen=false"}
    assert losses(kept) == pytest.approx(losses(plain), abs=2e-6)
    assert record["data"]["selection"] == without["data"]["selection"]
    for name, tensor in tensors(plain).items():
        assert torch.allclose(tensors(kept)[name], tensor, atol=1e-4), name  # AdamW divides by small numbers


def test_a_run_that_goes_on_has_the_same_bytes(tmp_path: Path) -> None:
    config = tiny_config(
        tmp_path, late(LOW_RANK), "whole", checkpoint__every="4 steps", task__selection="train_holdout"
    )
    assert run(config)["frozen"]["layers"] == {"encoder": 1}
    broken = replace(config, runs_dir=str(tmp_path / "broken"))
    killed(broken, 8)  # in the second epoch
    assert run(broken)["resumed"] == [8]
    for name in FILES:
        assert (run_dir(broken) / name).read_bytes() == (run_dir(config) / name).read_bytes(), name


def test_checkpointing_changes_nothing(tmp_path: Path) -> None:
    from unipet.training import trainer

    def fitted(config: RunConfig, checkpointing: bool) -> dict[str, torch.Tensor]:
        train = trainer.train
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(
                trainer, "train", lambda *args, **options: train(*args, **{**options, "checkpointing": checkpointing})
            )
            assert run(config)["frozen"]["layers"] == {"encoder": 1}
        return tensors(config)

    one, two = (tiny_config(tmp_path, late(LOW_RANK), name) for name in ("plain", "checkpointed"))
    plain, checkpointed = fitted(one, False), fitted(two, True)
    assert all(torch.allclose(checkpointed[name], tensor, atol=1e-5) for name, tensor in plain.items())


def test_auto_keeps_only_what_pays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def why_not(method: dict[str, Any], **changes: Any) -> str | None:
        said: str | None = run(tiny_config(tmp_path, method, **changes))["frozen"]["why_not"]
        return said

    assert why_not(late(LOW_RANK)) is None
    assert why_not(LOW_RANK, optim__epochs=3) == (
        "trainable tensors act in the first layer, so no layer's output stays the same"
    )
    assert why_not(late(LOW_RANK), optim__epochs=1) == "training sees most examples fewer than twice"
    assert str(why_not(late(LOW_RANK), budget__peak_memory_gib=2.0)).startswith(
        "budget.peak_memory_gib limits the memory"
    )
    monkeypatch.setattr(frozen_cache, "LIMIT_GIB", 1e-6)
    assert str(why_not(late(LOW_RANK), seed=1)).endswith("auto keeps at most 1e-06")


def test_true_says_why_it_cannot_be(tmp_path: Path) -> None:
    config = tiny_config(tmp_path, LOW_RANK, cache_frozen="true")
    record = run(config)
    assert record["status"] == "failed"
    assert record["error"]["message"] == (
        "cache_frozen=true: trainable tensors act in the first layer, so no layer's output stays the same. Or set "
        "cache_frozen=auto."
    )


def test_dropout_of_the_base_model_is_a_key(tmp_path: Path) -> None:
    config = tiny_config(tmp_path, late(LOW_RANK), cache_frozen="true")
    path = tmp_path / "model" / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "hidden_dropout_prob": 0.1}))
    message = run(config)["error"]["message"]
    assert "random in training (hidden_dropout_prob=0.1). Set model.dropout=0" in message
    calm = tiny_config(tmp_path, late(LOW_RANK), cache_frozen="true", model__dropout=0.0)
    assert run(calm)["frozen"]["layers"] == {"encoder": 1}
    with pytest.raises(UnipetError, match=r"model.dropout: 1.5 given"):
        run(tiny_config(tmp_path, late(LOW_RANK), model__dropout=1.5))


def test_the_keys_are_part_of_a_runs_identity(tmp_path: Path) -> None:
    config = tiny_config(tmp_path, late(LOW_RANK), checkpoint__every=None)
    others = [replace(config, cache_frozen="false"), replace(config, model=replace(config.model, dropout=0.0))]
    assert len({run_dir(each) for each in (config, *others)}) == 3
    assert run_dir(replace(config, checkpoint=CheckpointConfig("3 steps"))) == run_dir(config)
