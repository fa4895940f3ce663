"""A run's score on resampled examples, computed again from its predictions.

Where a metric is a mean of per-example scores, resampling is a weighted mean. Where it belongs to the corpus (F1, Matthews,
correlations, BLEU) it is computed anew for every resample, from what each example adds to the corpus's counts: exactly what
the metric gives for the drawn examples, without scoring thousands of corpora. `RESAMPLED` has a row for every metric that can be.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from unipet.errors import UnipetError
from unipet.report.ratios import Rescore, ratio, set_f1_macro, set_f1_micro, span_f1, tag_accuracy
from unipet.report.statistics import RESAMPLES, resamples
from unipet.runs.prediction_lines import Lines, read_lines
from unipet.runs.record_files import PREDICTIONS
from unipet.tasks.bleu_tokenizers import DEFAULT, sentence_bleu
from unipet.tasks.text_tokens import spaced

TOLERANCE = 1e-5  # of the recorded score, relative: the predictions must give it


@dataclass(frozen=True)
class Answers:
    """The predictions of one run: the examples' ids, in order, and the score of any resample of them."""

    ids: tuple[str, ...]
    rescore: Rescore
    whole: np.ndarray | None = None  # where the score is the mean of whole numbers (N,), these: sums of them are exact


def answers(
    directory: Path | None, metric: str, score: float, labels: Sequence[str], bleu_tokenizer: str = DEFAULT
) -> Answers | str:
    """The answers of the run in `directory`; a text says why they cannot be used.

    `labels` are the task's label names, which spans need; `bleu_tokenizer` is the task's. The predictions must give
    the recorded `score` again.
    Raises `UnipetError`, naming the file and line, for a file that is damaged.
    """
    path = None if directory is None else directory / PREDICTIONS
    if path is None or not path.is_file():
        return f"no {PREDICTIONS}"
    lines = read_lines(path)
    build = _builder(metric, lines)
    if build is None:
        return f"{metric} cannot be computed on resampled examples"
    try:
        rescore = build(lines, labels) if metric != "bleu" else _bleu(lines, labels, bleu_tokenizer)
        again = float(rescore(np.ones((1, len(lines))))[0])
    except (KeyError, TypeError, ValueError, IndexError) as error:
        raise UnipetError(
            f"{path}: cannot be scored by {metric} ({type(error).__name__}: {error}). Run it again."
        ) from None
    if abs(again - score) > TOLERANCE * max(1.0, abs(score)):
        return f"{PREDICTIONS} gives {metric} {again:.6g}, the record says {score:.6g}"
    return Answers(tuple(str(line["id"]) for line in lines), rescore, _whole(lines) if build is _mean else None)


def rescore_all(runs: Sequence[Answers], count: int = RESAMPLES) -> list[np.ndarray]:
    """Each run's score on the same `count` resamples of the examples, which all of them answered."""
    (examples,) = {len(run.ids) for run in runs}
    exact = [at for at, run in enumerate(runs) if run.whole is not None]
    table = np.array([runs[at].whole for at in exact]).T  # (N, runs): one product for all of them
    scores = np.empty((len(runs), count))
    done = 0
    for drawn in resamples(examples, count):
        block = slice(done, done := done + len(drawn))
        if exact:
            scores[exact, block] = (drawn @ table / drawn.sum(1, keepdims=True)).T
        for at, run in enumerate(runs):
            if run.whole is None:
                scores[at, block] = run.rescore(drawn)
    return list(scores)


def _whole(lines: Lines) -> np.ndarray | None:
    scores = np.array([line["score"] for line in lines], dtype=np.float64)
    return scores if bool((scores == np.rint(scores)).all()) else None


def _builder(metric: str, lines: Lines) -> Callable[[Lines, Sequence[str]], Rescore] | None:
    """The row of `metric`; sentences of tags and sets of labels, which have logits, have rows of their own."""
    if not isinstance(lines[0].get("prediction"), list):
        return RESAMPLED.get(metric)
    return RESAMPLED.get(f"{metric} of {'sets' if 'logits' in lines[0] else 'tags'}")


def _mean(lines: Lines, labels: Sequence[str]) -> Rescore:
    scores = np.array([line["score"] for line in lines], dtype=np.float64)
    return lambda drawn: drawn @ scores / drawn.sum(1)


def _pairs(lines: Lines) -> tuple[np.ndarray, np.ndarray]:
    return np.array([line["prediction"] for line in lines]), np.array([line["label"] for line in lines])


def _f1(lines: Lines, labels: Sequence[str]) -> Rescore:
    guess, truth = (one == 1 for one in _pairs(lines))
    return ratio(np.stack([2.0 * (guess & truth), 1.0 * guess + truth], axis=1))


def _confusion(lines: Lines) -> Callable[[np.ndarray], np.ndarray]:
    """Drawn examples -> (B, K, K): how often the first label was predicted where the second is right."""
    guess, truth = _pairs(lines)
    size = int(max(guess.max(), truth.max())) + 1
    cells = np.eye(size * size)[guess * size + truth]
    return lambda drawn: (drawn @ cells).reshape(-1, size, size)


def _f1_macro(lines: Lines, labels: Sequence[str]) -> Rescore:
    confusion = _confusion(lines)

    def rescore(drawn: np.ndarray) -> np.ndarray:
        counts = confusion(drawn)
        total = counts.sum(1) + counts.sum(2)  # (B, K)
        each = np.divide(
            2 * np.einsum("bkk->bk", counts), total, out=np.zeros_like(total), where=total > 0
        )  # a label that a resample lacks has no F1
        return each.sum(1) / (total > 0).sum(1)

    return rescore


def _matthews(lines: Lines, labels: Sequence[str]) -> Rescore:
    confusion = _confusion(lines)

    def rescore(drawn: np.ndarray) -> np.ndarray:
        counts = confusion(drawn)
        n, hits = counts.sum((1, 2)), np.einsum("bkk->b", counts)
        guess, truth = counts.sum(2), counts.sum(1)
        spread = np.sqrt((n**2 - (guess**2).sum(1)) * (n**2 - (truth**2).sum(1)))
        return np.divide(n * hits - (guess * truth).sum(1), spread, out=np.zeros(len(n)), where=spread > 0)

    return rescore


def _pearson(lines: Lines, labels: Sequence[str]) -> Rescore:
    guess, truth = (one.astype(np.float64) for one in _pairs(lines))
    return lambda drawn: _correlation(drawn, guess[None], truth[None])


def _spearman(lines: Lines, labels: Sequence[str]) -> Rescore:
    places = [np.unique(one, return_inverse=True) for one in _pairs(lines)]
    return lambda drawn: _correlation(drawn, *(_ranks(drawn, place, len(values)) for values, place in places))


def _ranks(drawn: np.ndarray, place: np.ndarray, values: int) -> np.ndarray:
    """(B, N): each example's rank within its resample, ties averaged; `place` is its value's among all values."""
    order = np.argsort(place, kind="stable")
    starts = np.searchsorted(place[order], np.arange(values))
    counts = np.add.reduceat(drawn[:, order], starts, axis=1)  # (B, values)
    return (np.cumsum(counts, axis=1) - (counts - 1) / 2)[:, place]


def _correlation(drawn: np.ndarray, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Weighted Pearson correlation (B,) of x and y (B or 1, N); 0 where one of them is constant."""
    total = drawn.sum(1, keepdims=True)
    x = x - (drawn * x).sum(1, keepdims=True) / total
    y = y - (drawn * y).sum(1, keepdims=True) / total
    spread = np.sqrt((drawn * x**2).sum(1) * (drawn * y**2).sum(1))
    return np.divide((drawn * x * y).sum(1), spread, out=np.zeros(len(drawn)), where=spread > 0)


def _bleu(lines: Lines, labels: Sequence[str], tokenizer: str = DEFAULT) -> Rescore:
    """A sentence's matches, totals and lengths add up to the corpus's; sacrebleu makes BLEU of the sums."""
    from sacrebleu.metrics import BLEU

    sentence = sentence_bleu(tokenizer)
    counts = []
    for line in lines:
        found = sentence.sentence_score(line["prediction"], list(line["references"]))
        counts.append([*found.counts, *found.totals, found.sys_len, found.ref_len])
    table = np.array(counts, dtype=np.float64)

    def one(sums: Sequence[int]) -> float:
        return float(BLEU.compute_bleu(sums[:4], sums[4:8], sums[8], sums[9], smooth_method="exp").score)

    return lambda drawn: np.array([one(sums) for sums in (drawn @ table).round().astype(int).tolist()])


def _ter(lines: Lines, labels: Sequence[str]) -> Rescore:
    from sacrebleu.metrics import TER

    sentence = TER()
    found = [
        sentence.sentence_score(spaced(line["prediction"]), list(map(spaced, line["references"]))) for line in lines
    ]
    return ratio(np.array([[one.num_edits, one.ref_length] for one in found], dtype=np.float64), 100.0)


#: metric -> how; a metric that is not here (chrf, nist, perplexity) is tested over seeds alone, and the report says so.
RESAMPLED: dict[str, Callable[[Lines, Sequence[str]], Rescore]] = {
    **dict.fromkeys(("accuracy", "exact_match", "rouge1", "rouge2", "rougeL", "rougeLsum", "meteor", "cider"), _mean),
    "accuracy of tags": tag_accuracy,
    "f1": _f1,
    "f1 of tags": span_f1,
    "f1_macro": _f1_macro,
    "f1_macro of sets": set_f1_macro,
    "f1_micro of sets": set_f1_micro,
    "subset_accuracy of sets": _mean,
    "matthews_correlation": _matthews,
    "pearson": _pearson,
    "spearman": _spearman,
    "bleu": _bleu,
    "ter": _ter,
}
