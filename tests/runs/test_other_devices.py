"""What becomes of a run on several devices when one of its processes dies, fails, or is not wanted any more."""

from __future__ import annotations

import io
import json
import os
import pickle
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.support.checkout import ROOT
from tests.support.resuming import assert_same, at_step, config_in, in_child
from tests.support.running import LOW_RANK, run_dir, tiny_config
from unipet.config import RunConfig
from unipet.errors import UnipetError
from unipet.runs import other_devices
from unipet.runs.device_process import receive
from unipet.runs.device_share import Share
from unipet.runs.run import run

# Imported by every process of a run; acts in the loss of a device's process alone.
MODULE = """
import math, os, signal, sys
from pathlib import Path
from unipet.training.step import Loss

ACT, CALL, DONE = {act!r}, {call}, Path({done!r})
original, calls = Loss._of_answers, []

def acting(self, model, batch, weights):
    calls.append(1)
    terms, uses = original(self, model, batch, weights)
    if len(calls) == CALL and not DONE.exists():
        DONE.write_text("")
        if ACT == "die":
            os.kill(os.getpid(), signal.SIGKILL)
        if ACT == "fail":
            raise ValueError("of this device alone")
        if ACT == "nan":
            return {{name: term * math.nan for name, term in terms.items()}}, uses
        if ACT == "memory":
            import torch
            raise torch.OutOfMemoryError("no room on this device\\nand more")
    return terms, uses

if getattr(sys.modules["__main__"].__spec__, "name", "") == "unipet.runs.device_process":
    if ACT == "exit":
        print("not today", file=sys.stderr, flush=True)
        os._exit(7)
    Loss._of_answers = acting
"""


@pytest.fixture
def acting(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Make the process of the second device do something at a call of its loss, once."""

    def write(act: str, call: int = 3) -> list[str]:
        name = f"acting_{act}_{call}"
        text = MODULE.format(act=act, call=call, done=str(tmp_path / "done"))
        (tmp_path / f"{name}.py").write_text(text)
        monkeypatch.syspath_prepend(tmp_path)
        return [name]

    return write


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The numbers of the processes that were started for devices."""
    numbers: list[int] = []

    class Counted(other_devices.OtherDevice):
        def __init__(self, *given: Any) -> None:
            super().__init__(*given)
            numbers.append(self._process.pid)

    monkeypatch.setattr(other_devices, "OtherDevice", Counted)
    return numbers


def alive(number: int) -> bool:
    try:
        os.kill(number, 0)
    except ProcessLookupError:
        return False
    state = Path(f"/proc/{number}/stat").read_text().rpartition(")")[2].split()[0]
    return state != "Z"


def two(root: Path, imports: list[str], **changes: Any) -> RunConfig:
    return tiny_config(root, LOW_RANK, budget__gpus=2, imports=imports, **changes)


@pytest.mark.slow
def test_a_killed_process_ends_the_run_which_goes_on_from_its_last_point(
    tmp_path: Path, acting: Any, started: list[int]
) -> None:
    whole = config_in(tmp_path, LOW_RANK, "whole", None, budget__gpus=2)
    assert run(whole)["status"] == "ok"
    config = config_in(tmp_path, LOW_RANK, "killed", "2 steps", budget__gpus=2, imports=acting("die", 6))
    record = run(config)
    assert record["status"] == "failed" and record["phase"] == "training"
    assert record["error"]["type"] == "DeviceLost"
    assert record["error"]["message"].startswith("device 2 of 2: its process was ended by SIGKILL")
    record = run(config)
    assert record["status"] == "ok" and record["resumed"] == [4]
    assert_same(whole, config)
    assert len(started) == 3 and not any(map(alive, started))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("act", "expected"),
    [
        (
            "fail",
            {"status": "failed", "type": "DeviceFailed", "message": "device 2 of 2: ValueError: of this device alone"},
        ),
        (
            "nan",
            {"status": "failed", "type": "UnipetError", "message": "training: the loss became nan at step 3 of 12."},
        ),
        ("memory", {"status": "exceeded", "reason": "training: out of memory: no room on this device (device 2 of 2)"}),
        (
            "exit",
            {
                "status": "failed",
                "type": "DeviceFailed",
                "message": "device 2 of 2: its process ended with exit code 7",
            },
        ),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_an_error_in_another_process_is_the_runs(
    tmp_path: Path, acting: Any, started: list[int], act: str, expected: dict[str, str]
) -> None:
    config = two(tmp_path, acting(act))
    record = run(config)
    assert record["status"] == expected["status"], record
    assert record["stopped_by"] == {"nan": "nan", "memory": "out_of_memory"}.get(act)
    if "reason" in expected:
        assert record["reason"] == expected["reason"]
    else:
        assert record["error"]["type"] == expected["type"]
        assert record["error"]["message"].startswith(expected["message"])
    text = {"fail": "in acting\n", "exit": "not today"}.get(act)
    if text is not None:  # the traceback of the process, or its last words
        assert text in (run_dir(config) / "error.txt").read_text()
    assert len(started) == 1 and not any(map(alive, started))
    assert not torch.distributed.is_initialized()


@pytest.mark.slow
def test_a_signal_ends_all_after_a_step_and_the_run_goes_on(tmp_path: Path) -> None:
    whole = config_in(tmp_path, LOW_RANK, "whole", None, budget__gpus=2)
    assert run(whole)["status"] == "ok"
    config = config_in(tmp_path, LOW_RANK, "ended", "2 minutes", budget__gpus=2)

    def work() -> None:
        at_step(5, lambda: os.kill(os.getpid(), signal.SIGTERM))
        run(config)

    assert in_child(work) == 128 + signal.SIGTERM
    assert json.loads((run_dir(config) / "result.json").read_text())["status"] == "interrupted"
    record = run(config)
    assert record["status"] == "ok" and record["resumed"] == [6]
    assert_same(whole, config)


@pytest.mark.slow
def test_no_process_outlives_the_run(tmp_path: Path) -> None:
    """However its own process ends."""
    tiny_config(tmp_path, LOW_RANK)
    code = (
        "import sys; from pathlib import Path; from tests.support.running import LOW_RANK, tiny_config; "
        "from unipet.runs.run import run; "
        "run(tiny_config(Path(sys.argv[1]), LOW_RANK, budget__gpus=2, optim__epochs=100000))"
    )
    with open(tmp_path / "log", "wb") as log:
        main = subprocess.Popen([sys.executable, "-c", code, str(tmp_path)], cwd=ROOT, stdout=log, stderr=log)
    try:
        written = tmp_path / "runs"
        wait_for(lambda: any(path.stat().st_size for path in written.glob("*/metrics.jsonl")), 120)
        children = Path(f"/proc/{main.pid}/task/{main.pid}/children").read_text().split()
        assert len(children) == 1 and alive(int(children[0]))
    finally:
        main.kill()
        main.wait()
    wait_for(lambda: not alive(int(children[0])), 30)


def wait_for(condition: Any, seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.1)


def test_more_devices_than_examples_of_a_batch(tmp_path: Path) -> None:
    with pytest.raises(UnipetError, match=r"^budget.gpus: 9 given; .*optim.batch_size=8 .*Set budget.gpus=8 or less.$"):
        run(tiny_config(tmp_path, LOW_RANK, budget__gpus=9))
    assert not (tmp_path / "runs").exists()


def test_more_devices_than_the_machine_has(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = tiny_config(tmp_path, LOW_RANK, budget__gpus=2)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    with pytest.raises(
        UnipetError, match=r"^budget.gpus: 2 given; this process sees 1 GPU. Set budget.gpus=1, or look"
    ):
        run(config)
    assert not (tmp_path / "runs").exists()


def test_a_program_that_is_distributed_itself(tmp_path: Path) -> None:
    config = tiny_config(tmp_path, LOW_RANK, budget__gpus=2)
    torch.distributed.init_process_group("gloo", init_method=f"file://{tmp_path}/meeting", rank=0, world_size=1)
    try:
        with pytest.raises(UnipetError, match=r"^budget.gpus: this program has already called .*init_process_group"):
            run(config)
    finally:
        torch.distributed.destroy_process_group()


def test_a_class_that_only_this_program_has(monkeypatch: pytest.MonkeyPatch) -> None:
    class Mine:
        pass

    main = sys.modules["__main__"]
    Mine.__module__, Mine.__qualname__ = "__main__", "Mine"
    monkeypatch.setattr(main, "Mine", Mine, raising=False)
    sent = pickle.dumps([]) + pickle.dumps(Mine())
    monkeypatch.delattr(main, "Mine")
    refused = r"^budget.gpus: .* cannot load a class .*Mine.* name that module: imports="
    with pytest.raises(UnipetError, match=refused):
        receive(io.BytesIO(sent))
    device = other_devices.OtherDevice.__new__(other_devices.OtherDevice)
    with pytest.raises(UnipetError, match=refused):
        device.send(Share(RunConfig(), Mine(), *(None, [], False, [], None, 1, False)))  # type: ignore[arg-type]


@pytest.mark.parametrize(("visible", "expected"), [(None, "1"), ("3,5", "5"), ("GPU-a, GPU-b", "GPU-b")])
def test_each_process_sees_its_own_gpu(monkeypatch: pytest.MonkeyPatch, visible: str | None, expected: str) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    if visible is None:
        monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    else:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    assert other_devices._environment(1)["CUDA_VISIBLE_DEVICES"] == expected
