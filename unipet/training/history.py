"""What a training leaves step by step: the lines of `metrics.jsonl`, and what a tracker calls their values.

A line is `{"step": 12, "loss": ..., "lr": ..., ...}`, or `{"step": 60, "selection/accuracy": ...}` where a checkpoint was scored.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

SELECTION = "selection/"  # then the metric that chooses the checkpoint


def read_steps(path: Path) -> list[dict[str, Any]]:
    """The lines of a metrics file, [] without one; a last line that is being written is left for the next look."""
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        return []
    steps = []
    for line in text.splitlines():
        try:
            row = json.loads(line)
        except ValueError:
            continue
        if isinstance(row, dict) and finite(row.get("step")):
            steps.append(row)
    return steps


def tracked(row: Mapping[str, Any]) -> dict[str, Any]:
    """One line as a tracker has it: `train/loss`, `train/lr`, ...; what has a group of its own keeps it."""
    return {key if "/" in key else f"train/{key}": value for key, value in row.items() if key != "step"}


def finite(value: Any) -> bool:
    """Whether a value is a finite number."""
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
