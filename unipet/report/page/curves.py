"""Learning curves: what a run's metrics.jsonl tells step by step, thinned to what a page can hold."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from unipet.record import METRICS
from unipet.report.collect import Entry

#: what a curve may show -> what the axis says
MEASURES: dict[str, str] = {
    "loss": "training loss",
    "selection": "score on the selection split",
    "grad_norm": "gradient norm",
    "lr": "learning rate",
}
POINTS = 12_000  # of each measure, on the whole page
FEWEST, MOST = 3, 60  # of one curve


def read_steps(path: Path) -> list[dict[str, Any]]:
    """The lines of a metrics file; a last line that is being written is left for the next look."""
    try:
        text = path.read_text(encoding="utf-8", errors="replace")  # a broken line is no JSON and left out
    except OSError:
        return []
    steps = []
    for line in text.splitlines():
        try:
            row = json.loads(line)
        except ValueError:
            continue
        if isinstance(row, dict) and _finite(row.get("step")):
            steps.append(row)
    return steps


def curve(entry: Entry, points: int = MOST) -> dict[str, list[tuple[float, float]]]:
    """Measure -> (step, value) of one run, at most about `points` of them, the first and the last included."""
    steps = read_steps(entry.directory / METRICS) if entry.directory else []
    found = {
        measure: [(row["step"], row[measure]) for row in steps if _finite(row.get(measure))] for measure in MEASURES
    }
    scores = ((entry.record.get("data") or {}).get("selection") or {}).get("scores") or {}
    found["selection"] = sorted((int(step), score) for step, score in scores.items() if _finite(score))
    return {measure: thinned(line, points) for measure, line in found.items() if line}


def points_per_run(runs: int, points: int = POINTS) -> int:
    """How many points a curve may have on a page with so many runs and so many points in all."""
    return max(FEWEST, min(MOST, points // max(runs, 1)))


def thinned(line: Sequence[tuple[float, float]], points: int) -> list[tuple[float, float]]:
    """Evenly chosen points, both ends among them."""
    if len(line) <= points:
        return list(line)
    last = len(line) - 1
    return [line[round(index * last / (points - 1))] for index in range(points)]


def _finite(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
