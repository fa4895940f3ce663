"""Metrics for labels, numbers and tags, with numpy, and scipy for ranks and correlations."""

from __future__ import annotations

import warnings
from collections.abc import Sequence

import numpy as np


def accuracy(predictions: np.ndarray, answers: np.ndarray) -> float:
    """The share of correct predictions."""
    return float(np.mean(predictions == answers))


def f1(predictions: np.ndarray, answers: np.ndarray) -> float:
    """F1 of label index 1, as in GLUE; 0.0 if there are no true positives."""
    hits = float(np.sum((predictions == 1) & (answers == 1)))
    total = float(np.sum(predictions == 1) + np.sum(answers == 1))
    return 2 * hits / total if total else 0.0


def matthews_correlation(predictions: np.ndarray, answers: np.ndarray) -> float:
    """Matthews' correlation for any number of labels (Gorodkin 2004): Pearson's correlation of the one-hot matrices, with
    each column centred. 0.0 if predictions or answers are constant."""
    one_hot = np.eye(int(max(predictions.max(), answers.max())) + 1)
    predicted, true = one_hot[predictions], one_hot[answers]  # (n, labels)
    return pearson((predicted - predicted.mean(axis=0)).ravel(), (true - true.mean(axis=0)).ravel())


def pearson(predictions: np.ndarray, answers: np.ndarray) -> float:
    """Pearson's correlation; 0.0 instead of NaN if predictions or answers are constant."""
    from scipy.stats import NearConstantInputWarning, pearsonr

    if np.ptp(predictions) == 0 or np.ptp(answers) == 0:
        return 0.0
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", NearConstantInputWarning)  # the score of nearly constant answers is still valid
        return float(pearsonr(predictions, answers).statistic)


def spearman(predictions: np.ndarray, answers: np.ndarray) -> float:
    """Spearman's correlation, with ties averaged; 0.0 instead of NaN if predictions or answers are constant."""
    from scipy.stats import rankdata

    return pearson(rankdata(predictions), rankdata(answers))


def subset_accuracy(predictions: np.ndarray, answers: np.ndarray) -> float:
    """Of sets of labels, (n, labels) each: the share of examples whose whole set is right."""
    return float(np.mean((predictions == answers).all(axis=1)))


def f1_micro(predictions: np.ndarray, answers: np.ndarray) -> float:
    """Of sets of labels: F1 over all pairs of an example and a label; 0.0 if there are none."""
    return f1(predictions.ravel(), answers.ravel())


def f1_macro(predictions: np.ndarray, answers: np.ndarray) -> float:
    """The mean F1 over all labels that occur in predictions or answers, as for CB in SuperGLUE. Sets of labels are
    (n, labels)."""
    if predictions.ndim == 2:
        occur = np.flatnonzero((predictions + answers).sum(axis=0))
        return float(np.mean([f1(predictions[:, label], answers[:, label]) for label in occur])) if len(occur) else 0.0
    found = np.union1d(predictions, answers)
    return float(np.mean([f1(predictions == label, answers == label) for label in found]))


def spans(tags: Sequence[str]) -> set[tuple[int, int, str]]:
    """(first word, last word, type) of every span in BIO tags, as conlleval reads them: a B- tag, or an I- tag of another
    type, begins a span. Any other tag is outside of spans."""
    found: set[tuple[int, int, str]] = set()
    start, kind = 0, ""
    for i, tag in enumerate([*tags, "O"]):
        begins, _, name = tag.partition("-")
        inside = begins in ("B", "I") and bool(name)
        if kind and (not inside or begins == "B" or name != kind):
            found.add((start, i - 1, kind))
            kind = ""
        if inside and not kind:
            start, kind = i, name
    return found


def span_f1(predicted: Sequence[Sequence[str]], answers: Sequence[Sequence[str]]) -> float:
    """Micro F1 of exactly matching spans over all sentences; 0.0 if there are no spans at all."""
    guessed, right = [spans(tags) for tags in predicted], [spans(tags) for tags in answers]
    hits = sum(len(a & b) for a, b in zip(guessed, right, strict=True))
    total = sum(map(len, guessed)) + sum(map(len, right))
    return 2 * hits / total if total else 0.0
