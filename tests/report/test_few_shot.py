"""Few-shot runs: methods are paired by split and seed, and several splits are the sample that a test speaks of."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.support.reports import EXAMPLES, write_run
from unipet.report import statistics
from unipet.report.collect import collect
from unipet.report.comparing import Group, compare
from unipet.report.verdicts import verdicts_text

SCORES = {"good": [[0.9, 0.8], [0.7, 0.8], [0.9, 0.9]], "bad": [[0.6, 0.6], [0.65, 0.65], [0.5, 0.6]]}


def world(root: Path, scores: Mapping[str, list[list[float]]] = SCORES, **config: Any) -> Group:
    for method, splits in scores.items():
        for split, seeds in enumerate(splits):
            for seed, rate in enumerate(seeds):
                data = {"pool": "p0", "fingerprint": f"f{split}", "train": 6 + split, "shots": 3, "split_seed": split}
                write_run(
                    *(root / f"split{split}", method, seed, rate),
                    data=data,
                    config={"shots": 3, "split_seed": split, "data_dir": "d", **config},
                    record={"run_id": f"{method}-{split}-{seed}"},
                )
    (group,) = compare(collect(root))
    return group


def test_splits_and_seeds_are_one_row_and_are_paired(tmp_path: Path) -> None:
    group = world(tmp_path)
    assert group.ranked and not group.differences, group.differences
    assert {row.method: (row.scored, row.runs) for row in group.rows} == {"good": (6, 6), "bad": (6, 6)}
    assert all(row.variant == "" for row in group.rows)
    (pair,) = group.pairs
    assert (pair.seeds, pair.splits, pair.examples, pair.basis) == (6, 3, EXAMPLES, "seeds and examples")
    text = verdicts_text([group])
    assert "paired over 3 few-shot splits (6 runs of each method) and 400 examples" in text


def test_the_test_is_over_the_means_of_the_splits(tmp_path: Path) -> None:
    group = world(tmp_path)
    (pair,) = group.pairs
    scores = {row.method: np.array(row.scores) for row in group.rows}
    differences = np.sort(scores["good"] - scores["bad"])
    assert pair.difference == pytest.approx(differences.mean())
    for entry_file in tmp_path.rglob("predictions.jsonl"):
        entry_file.unlink()
    (group,) = compare(collect(tmp_path))
    (pair,) = group.pairs
    found: dict[str, dict[tuple[int, int], float]] = {"good": {}, "bad": {}}
    for entry in collect(tmp_path):
        record = entry.record
        found[str(record.method)][record.data.split_seed or 0, record.seed or 0] = record.score or 0.0
    means = [np.mean([found["good"][split, seed] - found["bad"][split, seed] for seed in (0, 1)]) for split in range(3)]
    expected = statistics.over_seeds(np.array(means))
    assert (pair.basis, pair.low, pair.high) == (
        "seeds",
        pytest.approx(float(expected.low)),
        pytest.approx(float(expected.high)),
    )


def test_another_number_of_shots_is_another_protocol(tmp_path: Path) -> None:
    world(tmp_path, {"good": SCORES["good"]})
    write_run(
        tmp_path / "more",
        "bad",
        data={"pool": "p0", "fingerprint": "f9", "train": 10, "shots": 5, "split_seed": 0},
        config={"shots": 5, "split_seed": 0, "data_dir": "d"},
        record={"run_id": "more"},
    )
    (group,) = compare(collect(tmp_path))
    assert not group.ranked and any("task.shots differs: " in text for text in group.differences)
