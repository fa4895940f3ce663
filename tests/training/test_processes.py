"""What a launcher of many processes leaves in the environment: one process trains as without it, more are refused."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch

from tests.support.running import LOW_RANK, tiny_config
from tests.training.test_trainer import fit, owned
from unipet.errors import UnipetError
from unipet.runs.run import run
from unipet.training.processes import one_process

TORCHRUN = {
    "RANK": "0", "LOCAL_RANK": "0", "WORLD_SIZE": "1", "LOCAL_WORLD_SIZE": "1", "GROUP_RANK": "0", "ROLE_RANK": "0",
    "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "29511", "TORCHELASTIC_RUN_ID": "none",
}  # fmt: skip
#: Settings of accelerate that would change what is computed, or stop it.
ACCELERATE = {
    "ACCELERATE_GRADIENT_ACCUMULATION_STEPS": "4", "ACCELERATE_MIXED_PRECISION": "bf16", "ACCELERATE_USE_CPU": "true",
    "ACCELERATE_DYNAMO_BACKEND": "EAGER", "ACCELERATE_USE_FSDP": "true", "FSDP_OFFLOAD_PARAMS": "true",
}  # fmt: skip


@pytest.mark.parametrize(
    "environment",
    [{"LOCAL_RANK": "0", "WORLD_SIZE": "1"}, {"LOCAL_RANK": "0"}, {"WORLD_SIZE": "1"}, TORCHRUN, ACCELERATE],
    ids=["two", "rank", "size", "torchrun", "accelerate"],
)
def test_one_process_of_a_launcher_trains_as_without_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, environment: dict[str, str]
) -> None:
    plain = owned(fit(tmp_path, LOW_RANK, budget__max_steps=2)[0])
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    launched, trained, _ = fit(tmp_path, LOW_RANK, budget__max_steps=2)
    assert trained.steps == 2
    assert all(torch.equal(plain[name], tensor) for name, tensor in owned(launched).items())
    assert not torch.distributed.is_initialized()
    assert {name: os.environ[name] for name in environment} == environment


def test_a_whole_run_under_torchrun(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in TORCHRUN.items():
        monkeypatch.setenv(name, value)
    record = run(tiny_config(tmp_path, budget__max_steps=2))
    assert record["status"] == "ok", record["error"]


@pytest.mark.parametrize("name", ["WORLD_SIZE", "OMPI_COMM_WORLD_SIZE", "PMI_SIZE"])
def test_several_processes_are_refused_before_anything_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setenv(name, "2")
    config = tiny_config(tmp_path)
    with pytest.raises(
        UnipetError, match=rf"^{name}=2 in the environment: .*budget.gpus=2, one run starts.*CUDA_VISIBLE_DEV"
    ):
        run(config)
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize("value", ["", "1", "-1", "many"])
def test_no_count_is_no_complaint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, value: str) -> None:
    monkeypatch.setenv("WORLD_SIZE", value)
    assert run(tiny_config(tmp_path, budget__max_steps=1))["status"] == "ok"


def test_the_environment_comes_back_after_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOCAL_RANK", "0")
    with pytest.raises(KeyError), one_process():
        raise KeyError(os.environ["LOCAL_RANK"])
    assert os.environ["LOCAL_RANK"] == "0"
