"""The scores, against scipy and against the formulas counted out by hand."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from scipy import stats

from unipet.config import TaskConfig
from unipet.errors import UnipetError
from unipet.tasks import score_predictions


def task(kind: str = "classification", classes: int = 2, metrics: tuple[str, ...] = ("accuracy",)) -> TaskConfig:
    names = [f"c{i}" for i in range(classes)] if kind == "classification" else []
    return TaskConfig(name="t", kind=kind, text=["a"], labels=names, metrics=list(metrics))


def one_hot(predictions: list[int], classes: int) -> np.ndarray:
    return np.eye(classes)[predictions] * 3 - 1


@pytest.mark.parametrize("seed", range(5))
def test_binary_scores_against_the_counted_formulas(seed: int) -> None:
    rng = np.random.default_rng(seed)
    guess, truth = rng.integers(0, 2, 50), rng.integers(0, 2, 50)
    scores = score_predictions(
        task(metrics=("f1", "accuracy", "matthews_correlation")), one_hot(guess.tolist(), 2), truth
    )
    tp, tn = int(np.sum(guess & truth)), int(np.sum((1 - guess) & (1 - truth)))
    fp, fn = int(np.sum(guess & (1 - truth))), int(np.sum((1 - guess) & truth))
    assert scores.metrics["accuracy"] == pytest.approx((tp + tn) / 50)
    assert scores.metrics["f1"] == pytest.approx(2 * tp / (2 * tp + fp + fn))
    bottom = math.sqrt((tp + fp) * (tp + fn) * (tn + fp) * (tn + fn))
    assert scores.metrics["matthews_correlation"] == pytest.approx((tp * tn - fp * fn) / bottom)
    assert scores.metric == "f1" and scores.score == scores.metrics["f1"], "the first metric is the score"
    assert scores.predictions == guess.tolist()
    assert scores.per_example == [float(g == t) for g, t in zip(guess, truth, strict=True)]


def test_matthews_of_three_labels() -> None:
    # Worked from the confusion matrix by Gorodkin's formula: c=5 right of s=6, p=(2,2,2), t=(2,3,1).
    guess, truth = [0, 0, 1, 1, 2, 2], np.array([0, 0, 1, 1, 1, 2])
    scores = score_predictions(task(classes=3, metrics=("matthews_correlation",)), one_hot(guess, 3), truth)
    c, s, p, t = 5, 6, (2, 2, 2), (2, 3, 1)
    top = c * s - sum(a * b for a, b in zip(p, t, strict=True))
    bottom = math.sqrt((s * s - sum(a * a for a in p)) * (s * s - sum(b * b for b in t)))
    assert scores.score == pytest.approx(top / bottom)


@pytest.mark.parametrize("seed", range(5))
def test_correlations_against_scipy(seed: int) -> None:
    rng = np.random.default_rng(seed)
    truth = rng.integers(0, 11, 60) / 2  # with ties
    guess = np.round(truth + rng.normal(size=60), 1)
    scores = score_predictions(task("regression", metrics=("pearson", "spearman")), guess[:, None], truth)
    assert scores.metrics["pearson"] == pytest.approx(stats.pearsonr(guess, truth)[0])
    assert scores.metrics["spearman"] == pytest.approx(stats.spearmanr(guess, truth)[0])
    assert scores.predictions == guess.tolist()
    assert scores.per_example == pytest.approx((-((guess - truth) ** 2)).tolist())
    assert score_predictions(task("regression", metrics=("pearson",)), guess, truth).score == scores.score


@pytest.mark.parametrize("scale", [1e-100, 1e100])
def test_correlation_of_extreme_values(scale: float) -> None:
    truth = np.array([1.0, 2.0, 3.0, 5.0])
    assert score_predictions(task("regression", metrics=("pearson",)), truth * scale, truth).score == pytest.approx(1.0)


@pytest.mark.parametrize("metric", ["pearson", "spearman"])
@pytest.mark.parametrize("constant", [0.0, 0.1, 1e9])
def test_constant_predictions_correlate_with_nothing(metric: str, constant: float) -> None:
    truth = np.array([1.0, 2.0, 3.0])
    assert score_predictions(task("regression", metrics=(metric,)), np.full(3, constant), truth).score == 0.0


@pytest.mark.parametrize("metric", ["f1", "matthews_correlation"])
def test_constant_classes_score_zero(metric: str) -> None:
    scores = score_predictions(task(metrics=(metric,)), one_hot([0, 0, 0], 2), np.array([0, 1, 1]))
    assert scores.score == 0.0


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("kind", ["classification", "regression"])
def test_logits_that_are_not_finite(bad: float, kind: str) -> None:
    logits = np.zeros((4, 2) if kind == "classification" else (4, 1))
    logits[1, -1] = bad
    name = "accuracy" if kind == "classification" else "pearson"
    with pytest.raises(UnipetError, match="not finite for 1 of 4"):
        score_predictions(task(kind, metrics=(name,)), logits, np.array([0, 1, 0, 1]))


@pytest.mark.parametrize("shape", [(0, 2), (3, 2), (4, 3), (4,)])
def test_shapes_that_do_not_fit(shape: tuple[int, ...]) -> None:
    labels: Any = np.zeros(0 if shape[0] == 0 else 4, dtype=int)
    with pytest.raises(UnipetError, match="cannot score logits of shape"):
        score_predictions(task(), np.zeros(shape), labels)


def test_the_caller_keeps_what_it_gave() -> None:
    logits, labels = np.array([[0.0, 1.0], [1.0, 0.0]], dtype=np.float32), np.array([1, 1])
    before = logits.copy()
    assert score_predictions(task(), logits, labels).score == 0.5
    assert np.array_equal(before, logits) and logits.dtype == np.float32
