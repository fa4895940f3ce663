"""Learning curves: what a run's metrics.jsonl tells step by step, thinned to what a page can hold."""

from __future__ import annotations

from collections.abc import Sequence

from unipet.report.collect import Entry
from unipet.runs.record_files import METRICS
from unipet.training.history import SELECTION, finite, read_steps

#: what a curve may show -> what the axis says
MEASURES: dict[str, str] = {
    "loss": "training loss",
    "selection": "score on the selection split",
    "grad_norm": "gradient norm",
    "lr": "learning rate",
}
POINTS = 12_000  # of each measure, on the whole page
FEWEST, MOST = 3, 60  # of one curve


def curve(entry: Entry, points: int = MOST) -> dict[str, list[tuple[float, float]]]:
    """Measure -> (step, value) of one run, at most about `points` of them, the first and the last included."""
    steps = read_steps(entry.directory / METRICS) if entry.directory else []
    curves = {
        measure: [(row["step"], row[measure]) for row in steps if finite(row.get(measure))] for measure in MEASURES
    }
    scores = entry.record.data.selection.scores
    written = [
        (row["step"], value)
        for row in steps
        for key, value in row.items()
        if key.startswith(SELECTION) and finite(value)
    ]
    curves["selection"] = written or sorted((int(step), score) for step, score in scores.items() if finite(score))
    return {measure: thinned(line, points) for measure, line in curves.items() if line}


def points_per_run(runs: int, points: int = POINTS) -> int:
    """How many points a curve may have on a page with so many runs and so many points in all."""
    return max(FEWEST, min(MOST, points // max(runs, 1)))


def thinned(line: Sequence[tuple[float, float]], points: int) -> list[tuple[float, float]]:
    """Evenly chosen points, both ends among them."""
    if len(line) <= points:
        return list(line)
    last = len(line) - 1
    return [line[round(index * last / (points - 1))] for index in range(points)]
