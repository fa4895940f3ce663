"""The history of training: the lines of `metrics.jsonl`, and the names of their values in a tracker.

A line is `{"step": 12, "loss": ..., "lr": ..., ...}`, with `loss/task` and `loss/NAME` for the regularisers of an objective,
or `{"step": 60, "selection/accuracy": ...}` for a scored checkpoint.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from unipet.errors import UnipetError
from unipet.output.json_reader import MIB, read_bounded

MOST = 512 * MIB  # of a metrics file
TERM = "loss/"  # then the name of one term of the loss: the task's, or a regulariser's with its weight
WEIGHT = "weight/"  # then the name of a regulariser: its weight in the step before the line
SELECTION = "selection/"  # then the metric that chooses the checkpoint


def read_steps(path: Path) -> list[dict[str, Any]]:
    """The lines of a metrics file, or [] if it is missing or cannot be read. A last line that is still being written is left
    out."""
    try:
        text = read_bounded(path, MOST).decode("utf-8")
    except (UnipetError, UnicodeDecodeError):
        return []
    steps = []
    for line in text.splitlines():
        try:
            row = json.loads(line)
        except (ValueError, RecursionError):
            continue
        if isinstance(row, dict) and finite(row.get("step")):
            steps.append(row)
    return steps


def tracked(row: Mapping[str, Any]) -> dict[str, Any]:
    """One line with a tracker's names: `train/loss`, `train/lr`, ...; a name that already has a group stays."""
    return {key if "/" in key else f"train/{key}": value for key, value in row.items() if key != "step"}


def finite(value: Any) -> bool:
    """Whether a value is a finite number."""
    try:
        return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    except OverflowError:  # a whole number that no float can be
        return False
