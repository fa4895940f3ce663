"""Methods over tasks: means with intervals, ranks with a critical difference, probability of improvement."""

from __future__ import annotations

import csv
import io
from itertools import product

import numpy as np
import pytest

from tests.support.planted import cell, planted
from unipet.report import statistics
from unipet.report.average_rows import averages_csv, averages_text, improvements_csv
from unipet.report.averages import averages
from unipet.report.collect import Entry
from unipet.report.comparing import compare
from unipet.report.improvement import improvement, resampled
from unipet.report.ranks import critical_value, ranking, ranks

#: Demšar (2006), Table 5a: q for Nemenyi's test at 5 %, for 2 to 10 classifiers.
NEMENYI = {2: 1.960, 3: 2.343, 4: 2.569, 5: 2.728, 6: 2.850, 7: 2.949, 8: 3.031, 9: 3.102, 10: 3.164}


def test_critical_values_are_those_of_the_published_table() -> None:
    assert {k: round(critical_value(k), 3) for k in NEMENYI} == pytest.approx(NEMENYI, abs=0.0011)


def test_demsars_own_example() -> None:
    """Four variants of C4.5 on 14 data sets (Demšar 2006, p. 12-13): χ² 9.28, F 3.69, critical difference 1.25."""
    result = ranking([3.143, 2.000, 2.893, 1.964], 14)
    assert result.chi_square == pytest.approx(9.28, abs=0.01) and result.f == pytest.approx(3.69, abs=0.01)
    assert result.critical == pytest.approx(1.25, abs=0.01) and result.differ
    # the basic C4.5 is worse than none within 1.25 of it: 3.143 - 1.964 = 1.18 is less than 1.25
    assert result.alike == ((3, 1, 2, 0),)


def test_ranks_share_ties_and_lower_is_better_is_turned() -> None:
    assert ranks(np.array([[0.9, 0.5, 0.9, 0.1]])).tolist() == [[1.5, 3.0, 1.5, 4.0]]
    entries = [
        planted(
            score,
            name,
            seed,
            task,
            metric=metric,
            scale="from 1" if metric == "perplexity" else "0 to 1",
            higher=metric != "perplexity",
        )
        for task, metric in (("t1", "accuracy"), ("t2", "perplexity"))
        for name, score in (
            ("good", 0.9 if metric == "accuracy" else 3.0),
            ("bad", 0.5 if metric == "accuracy" else 9.0),
        )
        for seed in (0, 1)
    ]
    (one,) = averages(compare(entries))
    assert [(line.label, line.rank, line.mean) for line in one.lines] == [("good", 1.0, None), ("bad", 2.0, None)]
    assert "the scales of their metrics do not allow one" in averages_text([one])


def world() -> list[Entry]:
    rng = np.random.default_rng(0)
    level = {"a": 0.9, "b": 0.7, "c": 0.5}
    return [
        planted(level[name] + 0.02 * float(rng.normal()), name, seed, task)
        for task, name, seed in product(("t1", "t2", "t3"), level, range(4))
        if (task, name) != ("t3", "c")
    ]


def test_a_method_without_a_score_on_every_task_is_left_out_and_named() -> None:
    (one,) = averages(compare(world()))
    assert [line.label for line in one.lines] == ["a", "b"] and one.missing == {"c": ("t3",)}
    text = averages_text([one])
    assert "left out, with no score on: c (t3)" in text and "warning: 3 tasks are a small sample" in text


def test_the_mean_over_tasks_has_the_interval_of_its_seeds() -> None:
    entries = world()
    (one,) = averages(compare(entries))
    strata = [
        np.array([entry.record.score for entry in entries if (entry.record.method, entry.record.task) == ("a", task)])
        for task in ("t1", "t2", "t3")
    ]
    expected = statistics.stratified([statistics.Stratum(each) for each in strata], "seeds")
    line = one.lines[0]
    assert line.mean == pytest.approx(float(np.mean([each.mean() for each in strata])))
    assert (line.low, line.high) == (pytest.approx(float(expected.low)), pytest.approx(float(expected.high)))
    rows = list(csv.DictReader(io.StringIO(averages_csv([one]))))
    assert [row["method"] for row in rows] == ["a", "b"] and float(rows[0]["mean_rank"]) == 1.0 and rows[0]["t2"]
    assert improvements_csv([one]).splitlines()[1].startswith("tiny,none,a,b,3,1.0,1.0,1.0")


def test_tasks_that_are_not_ranked_are_left_out() -> None:
    entries = world()
    entries += [planted(0.9, name, task="t4", config={"max_length": length}) for name, length in (("a", 7), ("b", 8))]
    (one,) = averages(compare(entries))
    assert one.tasks == ("t1", "t2", "t3") and one.unranked == ("t4",)


def test_the_probability_of_improvement_is_counted_by_hand() -> None:
    first, second = np.array([0.5, 0.7, 0.9]), np.array([0.6, 0.7])
    # 0.5: 0 of 2; 0.7: better than 0.6, equal to 0.7; 0.9: both -> 3.5 of 6. On the other task 1 of 2.
    tasks = [(first, second), (np.array([1.0]), np.array([0.0, 2.0]))]
    found = improvement("a", "b", [(resampled(x, (0, i)), resampled(y, (1, i))) for i, (x, y) in enumerate(tasks)])
    assert found.probability == pytest.approx((3.5 / 6 + 0.5) / 2)
    assert 0 <= found.low <= found.probability <= found.high <= 1
    turned = improvement("b", "a", [(resampled(y, (1, i)), resampled(x, (0, i))) for i, (x, y) in enumerate(tasks)])
    assert turned.probability == pytest.approx(1 - found.probability)


def test_its_interval_is_that_of_a_plain_stratified_bootstrap() -> None:
    rng = np.random.default_rng(1)
    tasks = [(rng.normal(0.3, 1, 10), rng.normal(0, 1, 8)) for _ in range(3)]
    drawn = []
    for _ in range(3000):
        values = []
        for first, second in tasks:
            x, y = rng.choice(first, len(first)), rng.choice(second, len(second))
            values.append(np.mean(x[:, None] > y))
        drawn.append(np.mean(values))
    streams = [((0, i), (1, i)) for i in range(3)]
    pairs = zip(tasks, streams, strict=True)
    found = improvement("a", "b", [(resampled(x, one, 3000), resampled(y, two, 3000)) for (x, y), (one, two) in pairs])
    assert (found.low, found.high) == pytest.approx(tuple(np.quantile(drawn, [0.025, 0.975])), abs=0.02)


def test_holms_procedure_on_a_known_example() -> None:
    """p 0.01, 0.04, 0.03, 0.005: times 3, 1, 2, 4 and never below a smaller one's."""
    assert statistics.holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])


def test_a_method_tuned_on_each_task_is_one_method() -> None:
    """Its variant differs from task to task; where a task has two variants of it, labels tell them apart on all tasks."""
    entries = [
        planted(score, cell(size=size, name=name), seed, task)
        for task, own in (("t", 8), ("u", 16))
        for name, size, score in (("a", own, 0.8), ("b", 8, 0.6))
        for seed in (0, 1)
    ]
    (one,) = averages(compare(entries))
    assert [(line.label, line.mean) for line in one.lines] == [("a", pytest.approx(0.8)), ("b", pytest.approx(0.6))]
    assert not one.missing
    entries += [planted(0.7, cell(size=16, name="a"), seed, "t") for seed in (0, 1)]
    assert averages(compare(entries))[0].lines[0].label == "a · size=16"
