"""Scores of resampled examples that are ratios of sums over examples: those of tags, and of sets of labels."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from unipet.runs.prediction_lines import Lines

Rescore = Callable[[np.ndarray], np.ndarray]  # how often each example is drawn (B, N) -> scores (B,)


def ratio(parts: np.ndarray, scale: float = 1.0) -> Rescore:
    """Of two sums over examples, `parts` (N, 2); 0 where the second is 0."""

    def rescore(drawn: np.ndarray) -> np.ndarray:
        sums = drawn @ parts
        return scale * np.divide(sums[:, 0], sums[:, 1], out=np.zeros(len(sums)), where=sums[:, 1] != 0)

    return rescore


def _tags(lines: Lines) -> list[list[tuple[int, int]]]:
    """(predicted, right) label index of every word that has tokens, by sentence."""
    both = (zip(line["prediction"], line["label"], strict=True) for line in lines)
    return [[(guess, truth) for guess, truth in row if guess is not None] for row in both]


def tag_accuracy(lines: Lines, labels: Sequence[str]) -> Rescore:
    """The share of words with the right tag."""
    hits = [[sum(guess == truth for guess, truth in row), len(row)] for row in _tags(lines)]
    return ratio(np.array(hits, dtype=np.float64))


def span_f1(lines: Lines, labels: Sequence[str]) -> Rescore:
    """F1 of spans of tags."""
    from unipet.tasks.metrics import spans

    counts = []
    for row in _tags(lines):
        guess, truth = (spans([labels[pair[side]] if pair[side] >= 0 else "O" for pair in row]) for side in (0, 1))
        counts.append([2.0 * len(guess & truth), float(len(guess) + len(truth))])
    return ratio(np.array(counts))


def _cells(lines: Lines) -> np.ndarray:
    """(N, labels, 2): twice the hits of each label, and how often it was predicted plus how often it is right."""
    found = np.zeros((len(lines), len(lines[0]["logits"]), 2))
    for own, line in zip(found, lines, strict=True):
        guess, truth = line["prediction"], line["label"]
        own[sorted({*guess} & {*truth}), 0] = 2
        own[guess, 1] += 1
        own[truth, 1] += 1
    return found


def set_f1_micro(lines: Lines, labels: Sequence[str]) -> Rescore:
    """F1 over all pairs of an example and a label."""
    return ratio(_cells(lines).sum(axis=1))


def set_f1_macro(lines: Lines, labels: Sequence[str]) -> Rescore:
    """The mean F1 over the labels that occur in a resample."""
    cells = _cells(lines)

    def rescore(drawn: np.ndarray) -> np.ndarray:
        sums = np.einsum("bn,nlk->blk", drawn.astype(np.float64), cells)
        occur = sums[..., 1] > 0  # a label that a resample lacks has no F1
        each = np.divide(sums[..., 0], sums[..., 1], out=np.zeros(occur.shape), where=occur)
        return np.divide(each.sum(1), occur.sum(1), out=np.zeros(len(drawn)), where=occur.any(1))

    return rescore
