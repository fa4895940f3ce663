"""Runs in memory whose scores are planted: what a report must find in them is known."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tests.support.pages import insertion, method
from unipet.report.collect import Entry
from unipet.runs.record import Data, Record, TrialOf


def planted(
    score: float | None,
    given: Mapping[str, Any] | str = "m",
    seed: int = 0,
    task: str = "t",
    *,
    metric: str = "accuracy",
    scale: str = "0 to 1",
    higher: bool = True,
    lr: float = 0.001,
    trial: Mapping[str, Any] | None = None,
    split: int | None = None,
    config: Mapping[str, Any] | None = None,
    **record: Any,
) -> Entry:
    """A finished run of one method (by a name, or as a resolved configuration has it), or one that failed (`score` None)."""
    whole = method(given) if isinstance(given, str) else dict(given)
    made = Record(status="ok" if score is not None else "failed", method=whole["name"], task=task, model="tiny")
    made.budget, made.seed, made.score, made.metric = "none", seed, score, metric if score is not None else None
    made.trial = TrialOf.from_dict(trial or {})
    shots = {"shots": 4, "split_seed": split, "pool": task} if split is not None else {}
    scoring = {"higher_is_better": higher, "scales": {metric: scale}}
    made.data = Data.from_dict({"source": "files:x", "fingerprint": f"{task}{split}", "scoring": scoring, **shots})
    for key, value in record.items():
        setattr(made, key, value)
    few = {"shots": 4, "split_seed": split} if split is not None else {}
    settings = {
        "method": whole,
        "task": {"name": task, **few, **(config or {})},
        "model": {"name": "tiny"},
        "budget": {"name": "none"},
        "optim": {"name": "adamw", "lr": lr, "epochs": 3.0},
        "seed": seed,
    }
    return Entry(made, settings)


def cell(form: str = "parallel", composition: str = "add", size: int = 8, name: str = "bn") -> dict[str, Any]:
    """One cell of a factorial of form, composition and size."""
    return method(
        name,
        position={**insertion()["position"], "form": form},
        composition={"name": composition},
        function={"name": "bottleneck", "size": size, "activation": "relu"},
    )
