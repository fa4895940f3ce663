"""A report by another metric: scores, direction, scale, and what has not recorded it."""

from __future__ import annotations

import csv
import io

import pytest

from tests.support.planted import planted
from unipet.errors import UnipetError
from unipet.report.aggregate import aggregate
from unipet.report.comparing import compare
from unipet.report.other_metric import by_metric
from unipet.report.table import csv_table

ENTRIES = [
    planted(accuracy, name, seed, metrics={"accuracy": accuracy, "perplexity": other})
    for name, accuracy, other in (("a", 0.9, 5.0), ("b", 0.5, 2.0))
    for seed in (0, 1)
]


def test_the_other_metric_ranks_by_its_own_direction() -> None:
    (group,) = compare(by_metric(ENTRIES, "perplexity"))
    assert [(row.method, row.score, row.metric) for row in group.rows] == [
        ("b", 2.0, "perplexity"),
        ("a", 5.0, "perplexity"),
    ]
    (before,) = compare(ENTRIES)
    assert [row.method for row in before.rows] == ["a", "b"], "the entries themselves are as they were"


def test_runs_that_did_not_record_it_are_left_out_and_a_wrong_name_is_explained() -> None:
    more = [*ENTRIES, planted(0.7, "c", task="u", metrics={"accuracy": 0.7}), planted(None, "d")]
    assert {entry.record.method for entry in by_metric(more, "perplexity")} == {"a", "b", "d"}
    with pytest.raises(
        UnipetError, match=r"--metric acuracy: no run has recorded it. They have: accuracy, perplexity. Did"
    ):
        by_metric(more, "acuracy")


def test_the_rows_have_all_metrics() -> None:
    rows = list(csv.DictReader(io.StringIO(csv_table(aggregate(ENTRIES)))))
    assert [row["other_metrics"] for row in rows] == ["perplexity=5.0", "perplexity=2.0"]
