"""What the tests of the offline page share: runs made by hand, with compositions, curves and failures."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import yaml

EVIL = "<script>window.hacked = 1</script><img src=x onerror='window.hacked = 1'>"


def insertion(**changes: Any) -> dict[str, Any]:
    """One insertion as a resolved configuration has it, with any of its dimensions changed."""
    return {
        "function": {"name": "bottleneck", "size": 8, "activation": "relu"},
        "position": {"site": ["ffn"], "form": "parallel", "layers": "all", "optional": False},
        "composition": {"name": "add"},
        "scaling": {"name": "constant", "value": 1.0},
        **changes,
    }


def sequential() -> dict[str, Any]:
    return {**insertion()["position"], "form": "sequential"}


def method(name: str, **changes: Any) -> dict[str, Any]:
    return {
        "name": name,
        "insertions": {"ffn": insertion(**changes)},
        "unfreeze": ["head"],
        "objective": {},
    }


def write_run(root: Path, given: dict[str, Any], seed: int = 0, score: float | None = 0.5, **changes: Any) -> Path:
    """A run's directory: record, configuration, learning curve."""
    task, budget, lr = changes.pop("task", "words"), changes.pop("budget", "none"), changes.pop("lr", 0.001)
    trainable, steps, synthetic = (
        changes.pop("trainable", 1000),
        changes.pop("steps", 12),
        changes.pop("synthetic", False),
    )
    name = f"{given['name']}-{task}-{budget}-{seed}-{len(list(root.glob('*')))}" if root.exists() else "first"
    record = {
        "status": "ok" if score is not None else "failed",
        "run_id": name,
        "method": given["name"],
        "task": task,
        "model": "tiny",
        "budget": budget,
        "seed": seed,
        "score": score,
        "metric": "accuracy" if score is not None else None,
        "params": {"trainable": trainable, "percent": trainable / 1e5},
        "time": {"train_s": 2.0 + seed},
        "memory": {"peak_gib": 0.5},
        "insertions": [],
        "error": None if score is not None else {"type": "UnipetError", "message": "the loss became nan at step 3"},
        "versions": {"torch": "2.13.0", "machine": {"device": "a machine", "cores": 2}},
        "data": {"source": "synthetic:words seed 0" if synthetic else "files:words", "fingerprint": task},
        "finished": "2026-01-01T00:00:00+00:00",
        **changes,
    }
    config = {
        "method": given,
        "task": {"name": task},
        "model": {"name": "tiny"},
        "budget": {"name": budget},
        "optim": {"name": "adamw", "lr": lr},
        "seed": seed,
    }
    directory = root / f"run{len(list(root.glob('*'))) if root.exists() else 0}"
    directory.mkdir(parents=True)
    (directory / "result.json").write_text(json.dumps(record))
    (directory / "config.yaml").write_text(yaml.safe_dump(config, sort_keys=False))
    curve = [{"step": step, "loss": 1.0 / step, "lr": lr, "grad_norm": 1.0} for step in range(1, steps + 1)]
    (directory / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in curve))
    return directory


def write_study(root: Path) -> Path:
    """Four methods that differ in one or two dimensions, two seeds, two budgets, a failure, and text that is no markup."""
    kinds = {
        "plain": {},
        "later": {"position": sequential()},
        "strong": {"scaling": {"name": "constant", "value": 4.0}},
        "both": {"position": sequential(), "scaling": {"name": "constant", "value": 4.0}},
    }
    for at, (name, changes) in enumerate(kinds.items()):
        for seed in (0, 1):
            given = method(name, **changes)
            write_run(root, given, seed, 0.6 + 0.05 * at + 0.01 * seed, trainable=10 ** (3 + at))
            write_run(root, given, seed, 0.7 + 0.03 * at, budget="steps_100", synthetic=True, task="made_up")
    write_run(root, method("plain"), 2, None, error={"type": "ValueError", "message": EVIL})
    write_run(
        root, method(EVIL, mixture={"experts": 2}, scaling={"name": "learned", "start": 1.0}), 0, 0.4, trainable=500
    )
    return root
