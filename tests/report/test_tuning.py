"""Tuning-effort curves: the best score that n trials may expect, from the trials that were run."""

from __future__ import annotations

import csv
import io
from itertools import product
from pathlib import Path

import numpy as np
import pytest

from tests.support.searching import FLAGS, LR, by_rate, searched
from unipet.cli.main import main
from unipet.report.collect import Entry, trials
from unipet.report.tuning import curves, curves_csv, curves_text, expected_best
from unipet.runs.record import Record, TrialOf


def test_the_estimator_is_the_mean_over_every_draw() -> None:
    scores = np.array([0.7, 0.2, 0.5, 0.5])
    for n, value in enumerate(expected_best(scores), 1):
        assert value == pytest.approx(np.mean([max(draw) for draw in product(scores, repeat=n)]))
    many = expected_best(np.array([[0.1, 0.3], [0.4, 0.2]]))
    assert many.tolist() == [pytest.approx([0.2, 0.25]), pytest.approx([0.3, 0.35])]


def entry(number: int, score: float | None, method: str = "lora", **trial: object) -> Entry:
    said = {
        "scored_on": "selection",
        "role": "trial",
        "search": "random",
        "number": number,
        "study": f"method={method}",
    }
    record = Record(method=method, task="t", model="m", metric="accuracy", status="failed" if score is None else "ok")
    record.score, record.trial = score, TrialOf.from_dict(said | trial)
    return Entry(record)


def test_a_trial_without_a_score_counts_as_the_worst() -> None:
    (curve,) = curves([entry(0, 0.5), entry(1, None), entry(2, 0.9)])
    assert curve.scoreless == 1 and curve.expected == tuple(expected_best(np.array([0.5, 0.5, 0.9])))
    assert "trials without a score, which count as the worst one: lora on t (1)" in curves_text([curve])
    assert curves([entry(0, None)]) == []


def test_seeds_are_averaged_and_rungs_left_out() -> None:
    (curve,) = curves([entry(0, 0.4), entry(0, 0.6), entry(1, 0.9), entry(1, 0.2, until=0.5)])
    assert curve.expected == tuple(expected_best(np.array([0.5, 0.9])))


@pytest.mark.parametrize("search", ["halving", "racing"])
def test_a_trial_that_was_stopped_counts_with_its_last_rung(search: str) -> None:
    (curve,) = curves(
        [
            *(entry(0, score, search=search, until=until) for score, until in ((0.4, 1 / 3), (0.6, 1.0), (0.8, 1.0))),
            entry(1, 0.5, search=search, until=1 / 3),
            *(entry(2, score, search=search, until=until) for score, until in ((0.9, 1.0), (0.7, 1 / 3))),
        ]
    )
    assert curve.expected == tuple(expected_best(np.array([0.7, 0.5, 0.9])))
    assert curve.stopped == 1 and not curve.as_ran
    text = curves_text([curve])
    assert "trials that were stopped early, which count with the score of their last rung: lora on t (1)" in text
    assert curves_csv([curve]).splitlines()[1].endswith(",1")


def test_a_model_based_search_is_shown_as_it_ran() -> None:
    entries = [entry(n, score, search="optuna") for n, score in ((2, 0.5), (0, 0.4), (1, 0.7), (3, 0.8))]
    (curve,) = curves(entries)
    assert curve.expected == (0.4, 0.7, 0.7, 0.8) and curve.label == "lora (optuna, as it ran)"
    text = curves_text([curve])
    assert "0.7000" in text and "[" not in text, "without an interval"


def test_an_error_that_is_to_be_small_has_its_best_at_the_bottom() -> None:
    entries = [entry(0, 3.0), entry(1, 1.0), entry(2, 2.0)]
    for each in entries:
        each.record.data.scoring.higher_is_better = False
    (curve,) = curves(entries)
    assert list(curve.expected) == sorted(curve.expected, reverse=True) and curve.expected[0] == pytest.approx(2.0)
    assert all(low <= value <= high for low, value, high in zip(curve.low, curve.expected, curve.high, strict=True))


def test_the_interval_holds_the_truth_for_one_trial() -> None:
    """For n = 1 the curve is the mean, of which the percentile bootstrap is known to cover nearly what it says."""
    rng, inside = np.random.default_rng(0), 0
    for _ in range(60):
        (curve,) = curves([entry(n, float(score)) for n, score in enumerate(rng.uniform(0, 1, 30))])
        inside += curve.low[0] <= 0.5 <= curve.high[0]
    assert inside >= 50


def test_a_report_shows_the_curve_of_every_method(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    ran = searched(monkeypatch)
    assert main(["train", "-m", *FLAGS, "method=lora,bitfit", LR, "search=random", "search.trials=4"]) == 0
    capsys.readouterr()
    assert main(["report", "runs", "--tuning", "tuning.csv", "--figures", "figures", "--html", "page.html"]) == 0
    page = (tmp_path / "page.html").read_text()
    assert '<section id="tuning"' in page and "n=4" in page and "n=8" not in page
    out = capsys.readouterr().out
    assert (
        "what n trials may expect on the selection split" in out
        and "best accuracy: synthetic_verdicts (synthetic)" in out
    )
    rows = list(csv.DictReader(io.StringIO((tmp_path / "tuning.csv").read_text())))
    assert {(row["method"], row["trials"]) for row in rows} == {
        (m, str(n)) for m in ("lora", "bitfit") for n in (1, 2, 3, 4)
    }
    scores = [by_rate(c) for c in ran if c.trial.role == "trial" and c.method["name"] == "bitfit"]
    worst = min(score for score in scores if score is not None)
    wanted = expected_best(np.array([worst if score is None else score for score in scores]))
    said = [float(row["expected_best"]) for row in rows if row["method"] == "bitfit"]
    assert (
        said == pytest.approx(list(wanted))
        and curves_csv(curves(trials(tmp_path / "runs"))) == (tmp_path / "tuning.csv").read_text()
    )
    assert (tmp_path / "figures" / "tuning.pdf").is_file() and (tmp_path / "figures" / "tuning.png").is_file()
