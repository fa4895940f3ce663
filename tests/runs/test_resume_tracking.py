"""The tracked run of a job that was killed or interrupted: one, with every step once."""

from __future__ import annotations

import contextlib
import json
import signal
import sqlite3
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.resuming import at_step, config_in, die, finished, in_child
from tests.support.running import LOW_RANK, run_dir
from unipet.config import RunConfig, TrackingConfig
from unipet.runs.run import run

WITH_SELECTION = {"task__selection": "train_holdout", "task__selection_size": 8}


def interrupted_twice(config: RunConfig) -> list[dict[str, Any]]:
    """Kill the run, interrupt it, finish it; the lines of its metrics."""
    assert in_child(lambda: (at_step(6, die), run(config))) == -signal.SIGKILL
    assert in_child(lambda: (at_step(7, lambda: signal.raise_signal(signal.SIGTERM)), run(config))) == 143
    assert finished(config)["resumed"] == [5, 8]
    return [json.loads(line) for line in (run_dir(config) / "metrics.jsonl").read_text().splitlines()]


def told(lines: list[dict[str, Any]]) -> Counter[tuple[int, str]]:
    """How often each value of each step was told."""
    return Counter((line["step"], key.rpartition("/")[2]) for line in lines for key in line if key != "step")


def wandb_records(content: bytes) -> Iterator[bytes]:
    """The records of an offline run's file: LevelDB's log format, behind a head of seven bytes."""
    block, at, parts = 2**15, 7, b""
    while at + 7 <= len(content):
        if block - at % block < 7:  # the rest of a block that no record's head fits in
            at += block - at % block
            continue
        size, kind = int.from_bytes(content[at + 4 : at + 6], "little"), content[at + 6]
        parts += content[at + 7 : at + 7 + size]
        at += 7 + size
        if kind in (1, 4):  # whole, or the last part
            yield parts
            parts = b""


def test_wandb_offline(tmp_path: Path) -> None:
    import wandb
    from wandb.proto import wandb_internal_pb2

    wandb.teardown()  # the service of an earlier test would outlive the killed processes, and hold on to their run
    config = config_in(tmp_path, LOW_RANK, "runs", "5 steps", tracking=TrackingConfig(name="wandb"), **WITH_SELECTION)
    lines = interrupted_twice(config)
    (path,) = (tmp_path / "runs" / "wandb").glob("offline-run-*/run-*.wandb")
    seen, exits = [], []
    for data in wandb_records(path.read_bytes()):
        record = wandb_internal_pb2.Record()
        record.ParseFromString(data)
        if record.HasField("history"):
            row = {"/".join(item.nested_key) or item.key: json.loads(item.value_json) for item in record.history.item}
            step = row.pop("_step")
            seen.append({"step": step} | {key: value for key, value in row.items() if not key.startswith("_")})
        if record.HasField("exit"):
            exits.append(record.exit.exit_code)
    assert told(seen) == told(lines) and max(told(seen).values()) == 1
    losses = {line["step"]: line["loss"] for line in lines if "loss" in line}
    assert {row["step"]: row["train/loss"] for row in seen if "train/loss" in row} == pytest.approx(losses)
    assert exits == [0]


def test_trackio(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRACKIO_DIR", str(tmp_path / "trackio"))
    config = config_in(tmp_path, LOW_RANK, "runs", "5 steps", tracking=TrackingConfig(name="trackio"), **WITH_SELECTION)
    lines = interrupted_twice(config)
    (path,) = (tmp_path / "trackio").glob("*.db")
    with contextlib.closing(sqlite3.connect(path)) as base:
        rows = [(step, json.loads(values)) for step, values in base.execute("select step, metrics from metrics")]
    last = [values for _, values in rows if "status" in values]
    assert [values["status"] for values in last] == ["ok"]
    seen = [{"step": step, **values} for step, values in rows if "status" not in values]
    assert told(seen) == told(lines) and max(told(seen).values()) == 1
