"""Searches whose runs train nothing: the score is a function of the learning rate, the seed and the split."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from tests.support.running import resolved, said_id, stand_in
from unipet.config import RunConfig
from unipet.runs.record import ErrorOf, Record, blank_record
from unipet.runs.record_files import write_record

FLAGS = ["task=synthetic_verdicts", "model=minilm", "optim.batch_size=10"]
LR = "optim.lr=tag(log,interval(1e-4,1e-1))"
BEST = {"lora": -3.0, "bitfit": -2.0}  # the logarithm of the learning rate that suits a method

Scored = Callable[[RunConfig], float | None]


def by_rate(config: RunConfig) -> float | None:
    """Higher near the method's best learning rate, whatever the seed; above 0.05 training fails."""
    if config.optim.lr > 0.05:
        return None
    distance = abs(math.log10(config.optim.lr) - BEST[str(config.method["name"])])
    return 0.9 - 0.1 * distance + 0.0001 * (config.seed % 7)


def searched(monkeypatch: pytest.MonkeyPatch, score: Scored = by_rate, examples: int = 0) -> list[RunConfig]:
    """Jobs write a record with `score` (None: a failure), and predictions of which that share is right. What was run."""
    ran: list[RunConfig] = []

    def train(config: RunConfig, directory: Path) -> Record:
        ran.append(config)
        record = blank_record(config, str(config.method["name"]), said_id(config))
        record.data.source, record.data.selection.by = "synthetic:made up", config.task.selection
        record.params.trainable, record.params.percent = int(1e6 * config.optim.lr), 0.1
        record.time.train_s, record.time.steps, record.time.device_hours = 1.0, math.ceil(100 * config.trial.until), 0.5
        value = score(config)
        record.data.scoring.scales = {"accuracy": "0 to 1"}
        if value is None:
            record.status, record.error = "failed", ErrorOf("Diverged", "the loss became nan")
        else:
            shown = value if config.trial.scored_on == "selection" else 1 - value  # what is reported says the opposite
            record.status, record.score, record.metric = "ok", shown, "accuracy"
        directory.mkdir(parents=True, exist_ok=True)
        (directory / "config.yaml").write_text(yaml.safe_dump(resolved(config)))
        right = round((value or 0.0) * examples)
        lines = [json.dumps({"id": str(n), "prediction": 1, "score": float(n < right)}) for n in range(examples)]
        if lines:
            (directory / "predictions.jsonl").write_text("".join(f"{line}\n" for line in lines))
        write_record(directory / "result.json", record)
        return record

    stand_in(monkeypatch, train)
    return ran


def sweep_in(here: Path) -> Path:
    """The directory of the only sweep there."""
    (found,) = (here / "runs" / "sweeps").iterdir()
    return found


def trials_run(ran: list[RunConfig]) -> list[RunConfig]:
    """Those that were trials."""
    return [config for config in ran if config.trial.role == "trial"]
