"""What a tracked run says of itself: its configuration with one key per design dimension, and a summary of fixed keys."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from unipet.design import design

#: The keys of every tracked run's summary, and where a record has them. A dashboard may rely on them; null: not known.
SUMMARY: dict[str, tuple[str, ...]] = {
    "score": ("score",),
    "metric": ("metric",),
    "stopped_by": ("stopped_by",),
    "params/trainable": ("params", "trainable"),
    "params/pct": ("params", "percent"),
    "params/stored": ("params", "stored"),
    "params/merged": ("params", "merged"),
    "mem/peak_gib": ("memory", "peak_gib"),
    "mem/pred_gib": ("memory", "predicted_gib"),
    "time/train_s": ("time", "train_s"),
    "time/total_s": ("time", "total_s"),
    "time/step_ms": ("time", "step_ms"),
    "time/steps": ("time", "steps"),
    "time/tokens_per_s": ("time", "tokens_per_s"),
}

COMPARED = "compared"  # key of the configuration: what a run is compared as, where several tasks share one chart


def score_key(task: str) -> str:
    """The summary's key for the score on one task: a chart over several tasks can tell them apart by it."""
    return f"score/{task}"


def flat_summary(record: Mapping[str, Any]) -> dict[str, Any]:
    """Every key of `SUMMARY`, `metrics/NAME` for each metric, and `score/TASK` where the record names its task."""
    found: dict[str, Any] = {}
    for key, path in SUMMARY.items():
        value: Any = record
        for part in path:
            value = value.get(part) if isinstance(value, Mapping) else None
        found[key] = value
    if record.get("task") and record.get("score") is not None:
        found[score_key(str(record["task"]))] = record["score"]
    return found | {f"metrics/{name}": value for name, value in (record.get("metrics") or {}).items()}


def mirrored_config(resolved: Mapping[str, Any], run_id: str, tags: Sequence[str]) -> dict[str, Any]:
    """What a tracked run says of itself: the nested configuration, `design.*` (one key per dimension), id, tags, and
    `compared`: method, task, base model and budget as one text."""
    names = {part: (resolved.get(part) or {}).get("name", "?") for part in ("method", "task", "model", "budget")}
    names |= dict(tag.split(":", 1) for tag in tags if tag.startswith("model:"))  # `auto` is many base models
    said = {"design": design(resolved.get("method") or {}), "run_id": run_id, "tags": list(tags)}
    return {**resolved, **said, COMPARED: " | ".join(map(str, names.values()))}
