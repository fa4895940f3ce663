"""Time and tokens: training ends at an optimiser step, evaluates, and says which limit ended it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.support.running import LOW_RANK, tiny_config
from tests.training.test_trainer import examples, fit
from unipet.config import BudgetConfig
from unipet.runs import memory
from unipet.runs.memory import PeakMemory, limited, out_of_memory
from unipet.runs.run import run
from unipet.training.budget.limits import batch_tokens, count_steps, seconds_allowed
from unipet.training.callbacks import TimeLimit
from unipet.training.sampler import GroupedOrder


def test_the_step_that_reaches_the_first_limit_is_the_last(tmp_path: Path) -> None:
    def plan(**limits: int) -> tuple[int, str]:
        config = tiny_config(tmp_path, **{f"budget__{name}": value for name, value in limits.items()})
        return count_steps(24, config, iter([100] * 50))  # 6 steps of two epochs

    assert plan() == (6, "epochs")
    assert plan(max_tokens=1) == (1, "max_tokens")
    assert plan(max_tokens=200) == (2, "max_tokens")
    assert plan(max_tokens=201) == (3, "max_tokens")
    assert plan(max_tokens=600) == (6, "epochs")
    assert plan(max_tokens=10**9) == (6, "epochs")
    assert plan(max_tokens=300, max_steps=4) == (3, "max_tokens")
    assert plan(max_tokens=500, max_steps=4) == (4, "max_steps")


def test_tokens_are_counted_as_training_does() -> None:
    rows: list[dict[str, Any]] = [
        {"attention_mask": [1] * 5, "labels": [7, 8, -100]},
        {"attention_mask": [[1] * 3, [1] * 4], "labels": 1},  # two choices
        {"attention_mask": [1, 1], "labels": 0.5},
    ]
    assert list(batch_tokens(rows, [[0, 1], [2]], encoder_decoder=False)) == [12, 2]
    assert list(batch_tokens(rows, [[0], [2, 1]], encoder_decoder=True)) == [7, 9]


def test_the_order_of_batches_is_the_order_of_training() -> None:
    sizes = [index % 7 for index in range(20)]
    order = GroupedOrder(sizes, 6, seed=3)
    batches = order.batches()
    first = [next(batches) for _ in range(4)]
    assert [len(batch) for batch in first] == [6, 6, 6, 2]
    assert [index for batch in first for index in batch] == list(order)
    assert next(batches) == order.order(1)[:6]


def test_tokens_end_training_at_a_step_that_the_schedule_knows(tmp_path: Path) -> None:
    limit = 2 * sum(len(row["input_ids"]) for row in examples())  # two epochs' worth of ten
    _, trained, lines = fit(tmp_path, LOW_RANK, budget__max_tokens=limit, optim__epochs=10)
    assert trained.stopped_by == "max_tokens"
    assert limit <= trained.tokens < limit + 8 * 8  # less than one batch more
    assert trained.steps == len(lines) == 6
    assert lines[-1]["lr"] < lines[0]["lr"] / 2  # decayed to the end that was known beforehand


def test_hours_end_training_and_the_run_is_evaluated(tmp_path: Path) -> None:
    record = run(tiny_config(tmp_path, budget__gpu_hours=1e-9, task__selection="train_holdout", optim__epochs=20))
    assert (record["status"], record["stopped_by"], record["time"]["steps"]) == ("ok", "gpu_hours", 1)
    assert record["score"] is not None
    assert list(record["data"]["selection"]["scores"]) == ["1"]  # the last step is a checkpoint, wherever it is


def test_hours_that_training_does_not_need_end_nothing(tmp_path: Path) -> None:
    _, trained, _ = fit(tmp_path, LOW_RANK, budget__gpu_hours=10.0, budget__max_steps=2)
    assert (trained.steps, trained.stopped_by) == (2, "max_steps")


def test_hours_count_every_device_and_not_the_scoring_of_checkpoints(monkeypatch: pytest.MonkeyPatch) -> None:
    from types import SimpleNamespace

    from unipet.training import callbacks

    assert seconds_allowed(BudgetConfig()) is None
    assert seconds_allowed(BudgetConfig(gpu_hours=0.5)) == 1800
    assert seconds_allowed(BudgetConfig(gpu_hours=0.5, gpus=4)) == 450
    now, aside, control = [0.0], [0.0], SimpleNamespace(should_training_stop=False)
    monkeypatch.setattr(callbacks.time, "perf_counter", lambda: now[0])
    clock = callbacks.Clock()
    limit = TimeLimit(10.0, lambda: clock.so_far() - aside[0])
    clock.on_train_begin(None, None, control)
    now[0], aside[0] = 14.0, 5.0
    limit.on_step_end(None, None, control)
    assert not control.should_training_stop
    now[0] = 15.0
    limit.on_step_end(None, None, control)
    assert control.should_training_stop and limit.reached


class FakeCuda:
    """Of torch.cuda what the measuring of memory asks for: a device of 80 GiB."""

    def __init__(self) -> None:
        self.fractions: list[float] = []
        self.reserved = 2 * memory.GIB

    def get_device_properties(self, device: str) -> Any:
        return type("Properties", (), {"total_memory": 80 * memory.GIB})

    def set_per_process_memory_fraction(self, fraction: float, device: str) -> None:
        self.fractions.append(fraction)

    def synchronize(self, device: str) -> None: ...

    empty_cache = reset_peak_memory_stats = lambda self, device=None: None

    def memory_reserved(self, device: str) -> int:
        return self.reserved

    def memory_allocated(self, device: str) -> int:
        return memory.GIB

    def max_memory_reserved(self, device: str) -> int:
        return 10 * memory.GIB

    def max_memory_allocated(self, device: str) -> int:
        return 8 * memory.GIB

    def mem_get_info(self, device: str) -> tuple[int, int]:
        return 77 * memory.GIB, 80 * memory.GIB


def test_a_device_is_limited_while_it_trains_and_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    cuda = FakeCuda()
    monkeypatch.setattr(torch, "cuda", cuda)
    with pytest.raises(torch.OutOfMemoryError), limited("cuda:0", 20.0):
        assert cuda.fractions == [0.25]
        raise torch.OutOfMemoryError("full")
    assert cuda.fractions == [0.25, 1.0]
    with limited("cuda:0", 200.0), limited("cuda:0", None), limited("cpu", 1.0):
        pass
    assert cuda.fractions == [0.25, 1.0, 1.0, 1.0]
    found = PeakMemory("cuda:0").read()
    assert found == {"peak_gib": 8.0, "allocated_gib": 7.0, "context_gib": 1.0, "measured_by": "cuda_reserved"}


def test_what_running_out_of_memory_looks_like() -> None:
    import torch

    assert out_of_memory(torch.OutOfMemoryError("CUDA out of memory.\nmore")) == "out of memory: CUDA out of memory."
    text = "DefaultCPUAllocator: can't allocate memory: you tried to allocate 4 bytes."
    assert out_of_memory(RuntimeError(text)) == f"out of memory: {text}"
    assert out_of_memory(MemoryError()) == "out of memory: no details"
    assert out_of_memory(RuntimeError("shapes do not match")) is None
    assert out_of_memory(ValueError("can't allocate memory")) is None
