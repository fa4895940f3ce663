"""What the tests of going on after an interruption share: runs in processes that die, and the comparison with a whole run."""

from __future__ import annotations

import functools
import json
import os
import signal
import traceback
import warnings
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from tests.support.running import run_dir, tiny_config
from unipet.config import CheckpointConfig, RunConfig
from unipet.runs.run import run
from unipet.training.resuming import Resumption

FILES = ("metrics.jsonl", "predictions.jsonl", "adapter/adapter.json", "adapter/adapter.safetensors")
SAME = ("score", "metric", "metrics", "params", "insertions", "stopped_by", "flags", "fitted")


def config_in(root: Path, method: dict[str, Any], runs: str, every: str | None, **changes: Any) -> RunConfig:
    """A run of 12 steps on a base model with dropout, in a runs directory of its own."""
    config = tiny_config(root, method, runs, **{"optim__warmup_ratio": 0.2, **changes})
    path = root / "model" / "config.json"
    dropout = {"hidden_dropout_prob": 0.1, "attention_probs_dropout_prob": 0.1}
    path.write_text(json.dumps({**json.loads(path.read_text()), **dropout}))
    return replace(config, checkpoint=CheckpointConfig(every))


def in_child(work: Callable[[], Any]) -> int:
    """Do `work` in a process of its own; its exit code, or minus the signal that ended it."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of newer Pythons: one thread alone works in these tests
        child = os.fork()
    if child == 0:
        code = 1
        signal.signal(
            signal.SIGINT, signal.default_int_handler
        )  # a shell lets what it runs in the background ignore it
        try:
            work()
            code = 0
        except KeyboardInterrupt as end:
            code = getattr(end, "exit_code", 130)
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def die() -> None:
    """As the system's killer of processes does it."""
    os.kill(os.getpid(), signal.SIGKILL)


def at_step(step: int, act: Callable[[], None]) -> None:
    """In this process, `act` between step `step` and the next, a resume point that is due there written before."""
    original = Resumption.on_step_begin

    @functools.wraps(original)
    def watched(self: Resumption, args: Any, state: Any, control: Any, **rest: Any) -> None:
        original(self, args, state, control, **rest)
        if state.global_step == step:
            act()

    Resumption.on_step_begin = watched  # type: ignore[method-assign]


def killed(config: RunConfig, step: int) -> None:
    """Run until `step`, and die there."""

    def work() -> None:
        at_step(step, die)
        run(config)

    assert in_child(work) == -signal.SIGKILL


def finished(config: RunConfig) -> dict[str, Any]:
    """Run to the end in a process of its own, and read the record."""
    assert in_child(lambda: run(config)) == 0
    record: dict[str, Any] = json.loads((run_dir(config) / "result.json").read_text())
    assert record["status"] == "ok", record["error"]
    return record


def assert_same(config: RunConfig, other: RunConfig) -> None:
    """Both runs have left the same: files byte for byte, and all of the record that no time is in."""
    one, two = (run_dir(each) for each in (config, other))
    for name in FILES:
        assert (one / name).read_bytes() == (two / name).read_bytes(), name
    first, second = (json.loads((each / "result.json").read_text()) for each in (one, two))
    assert {key: first[key] for key in SAME} == {key: second[key] for key in SAME}
    assert first["data"] == second["data"] and first["time"]["steps"] == second["time"]["steps"]
    for directory in (one, two):
        assert not (directory / "resume").exists()
