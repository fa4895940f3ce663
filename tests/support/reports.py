"""What the tests of the report share: finished runs on disk, made by hand, whose differences are known."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from unipet.report.collect import collect
from unipet.report.comparing import Group, compare

EXAMPLES = 400
RATES = {"good": 0.80, "alike": 0.79, "bad": 0.60}


def write_run(root: Path, method: str, seed: int = 0, rate: float | None = None, **changes: Any) -> Path:
    """A finished run whose examples are right at `rate`, and what it leaves on disk."""
    task, budget = changes.pop("task", "t"), changes.pop("budget", {"name": "none", "max_steps": None})
    predict, metric = changes.pop("predictions", True), changes.pop("metric", "accuracy")
    rate, rng = (
        RATES.get(method, 0.5) if rate is None else rate,
        np.random.default_rng([seed, *map(ord, method + task)]),
    )
    labels = np.arange(EXAMPLES) % 2
    hard = np.random.default_rng(7).random(EXAMPLES)  # the same examples are hard for every method
    right = 0.9 * hard + 0.1 * rng.random(EXAMPLES) < rate
    score = float(right.mean())
    data = {"source": "files:x", "fingerprint": "f0", "train": 10, "evaluation": EXAMPLES} | changes.pop("data", {})
    higher = metric != "perplexity"
    data["scoring"] = {"higher_is_better": higher, "scales": {metric: "0 to 1" if higher else "from 1"}}
    record = {
        "status": "ok",
        "run_id": f"{method}-{task}-{seed}-{budget['name']}",
        "method": method,
        "task": task,
        "model": "m",
        "budget": budget["name"],
        "seed": seed,
        "score": score,
        "metric": metric,
        "data": data,
        "time": {"train_s": 1.0},
        "params": {"trainable": 100 * len(method), "percent": 0.1 * len(method)},
        "finished": "2026-01-01T00:00:00+00:00",
    }
    record |= changes.pop("record", {})
    config = {
        "method": {"name": method},
        "task": {"name": task, "selection": "none", "data_dir": method} | changes.pop("config", {}),
        "model": {"name": "m"},
        "budget": budget,
        "seed": seed,
        "optim": {"lr": 0.1, "epochs": 3.0},
    }
    assert not changes
    directory = root / f"{method}-{task}-{seed}-{budget['name']}"
    directory.mkdir(parents=True)
    (directory / "result.json").write_text(json.dumps(record))
    (directory / "config.yaml").write_text(yaml.safe_dump(config))
    if predict:
        guess = np.where(right, labels, 1 - labels)
        lines = [
            {"id": str(i), "prediction": int(guess[i]), "label": int(labels[i]), "score": float(right[i])}
            for i in range(EXAMPLES)
        ]
        (directory / "predictions.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return directory


def two_tasks(root: Path) -> list[Group]:
    """Three methods on one task, two of them on another, three seeds each."""
    for method in RATES:
        for seed in range(3):
            write_run(root, method, seed)
            if method != "alike":
                write_run(root, method, seed, task="u_2", data={"source": "synthetic:x"})
    return compare(collect(root))
