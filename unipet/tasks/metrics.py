"""How an answer is scored: numpy only, one table from metric names to formulas."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from unipet.config import TaskConfig
from unipet.errors import UnipetError, unknown

Metric = Callable[[np.ndarray, np.ndarray], float]  # (predictions, answers), both of shape (n,)


def accuracy(predictions: np.ndarray, answers: np.ndarray) -> float:
    """The share of predicted indices that are right."""
    return float(np.mean(predictions == answers))


def f1(predictions: np.ndarray, answers: np.ndarray) -> float:
    """F1 of label index 1, as GLUE counts it; 0.0 when nothing positive is both predicted and right."""
    hits = float(np.sum((predictions == 1) & (answers == 1)))
    total = float(np.sum(predictions == 1) + np.sum(answers == 1))
    return 2 * hits / total if total else 0.0


def matthews_correlation(predictions: np.ndarray, answers: np.ndarray) -> float:
    """Matthews' correlation, for any number of labels (Gorodkin); 0.0 when predictions or answers are constant."""
    size = int(max(predictions.max(), answers.max())) + 1
    predicted = np.eye(size)[predictions]  # (n, size)
    true = np.eye(size)[answers]
    predicted, true = predicted - predicted.mean(axis=0), true - true.mean(axis=0)
    return _ratio(float(np.sum(predicted * true)), float(np.sum(predicted**2)), float(np.sum(true**2)))


def pearson(predictions: np.ndarray, answers: np.ndarray) -> float:
    """Pearson's correlation; 0.0 rather than NaN when predictions or answers are constant."""
    if np.ptp(predictions) == 0 or np.ptp(answers) == 0:
        return 0.0
    x, y = predictions - predictions.mean(), answers - answers.mean()
    x, y = x / np.abs(x).max(), y / np.abs(y).max()  # so that very large or small values neither overflow nor vanish
    return _ratio(float(np.sum(x * y)), float(np.sum(x**2)), float(np.sum(y**2)))


def spearman(predictions: np.ndarray, answers: np.ndarray) -> float:
    """Pearson's correlation of the ranks, ties averaged; 0.0 rather than NaN when either side is constant."""
    return pearson(_ranks(predictions), _ranks(answers))


CLASSIFICATION: dict[str, Metric] = {"accuracy": accuracy, "f1": f1, "matthews_correlation": matthews_correlation}
REGRESSION: dict[str, Metric] = {"pearson": pearson, "spearman": spearman}
METRICS: dict[str, dict[str, Metric]] = {"classification": CLASSIFICATION, "regression": REGRESSION}


@dataclass(frozen=True)
class Scores:
    """What a model's answers are worth: `score` is the value of `metric`, the task's first metric."""

    score: float
    metric: str
    metrics: dict[str, float]
    predictions: list[int] | list[float]  # label indices, or the predicted values
    per_example: list[float]  # higher is better: 1.0 / 0.0 for right / wrong, or minus the squared error


def score_predictions(task: TaskConfig, logits: np.ndarray, labels: np.ndarray) -> Scores:
    """Score `logits` (n, labels), or for regression (n, 1) or (n,), against `labels` (n,).

    Raises UnipetError for no examples, shapes that do not fit the task, and logits that are not finite.
    """
    regression = task.kind == "regression"
    logits, labels = np.asarray(logits, dtype=np.float64), np.asarray(labels)
    if regression and logits.ndim == 2 and logits.shape[1] == 1:
        logits = logits[:, 0]
    expected = (len(labels),) if regression else (len(labels), len(task.labels))
    if len(labels) == 0 or labels.ndim != 1 or logits.shape != expected:
        raise UnipetError(
            f"task {task.name}: cannot score logits of shape {logits.shape} against labels of shape {labels.shape}; "
            f"needed: at least one example and logits of shape {expected}."
        )
    if not np.isfinite(logits).all():
        bad = int(np.sum(~np.isfinite(logits.reshape(len(labels), -1)).all(axis=1)))
        raise UnipetError(
            f"task {task.name}: the model's output is not finite for {bad} of {len(labels)} examples (training "
            "diverged). Lower optim.lr, or set precision=fp32."
        )
    known = METRICS[task.kind]
    for name in task.metrics:
        if name not in known:
            raise unknown("task.metrics", name, known)
    if regression:
        labels = labels.astype(np.float64)
        values = {name: known[name](logits, labels) for name in task.metrics}
        return _scores(task, values, logits.tolist(), (-((logits - labels) ** 2)).tolist())
    predicted = logits.argmax(axis=1)
    values = {name: known[name](predicted, labels) for name in task.metrics}
    return _scores(task, values, predicted.tolist(), (predicted == labels).astype(np.float64).tolist())


def _scores(task: TaskConfig, values: dict[str, float], predictions: list, per_example: list[float]) -> Scores:
    first = task.metrics[0]
    return Scores(values[first], first, values, predictions, per_example)


def _ratio(covariance: float, x: float, y: float) -> float:
    if x <= 0 or y <= 0:
        return 0.0
    return float(np.clip(covariance / np.sqrt(x) / np.sqrt(y), -1.0, 1.0))


def _ranks(values: np.ndarray) -> np.ndarray:
    """Ranks from 1, equal values sharing the mean of their ranks."""
    _, where, counts = np.unique(values, return_inverse=True, return_counts=True)
    ends = np.cumsum(counts)
    return (ends - (counts - 1) / 2)[where]
