"""Scoring a task's answers: the table of metrics, and the computation of `Scores` from a model's outputs."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np

from unipet.config import TaskConfig
from unipet.errors import UnipetError, unknown
from unipet.tasks import data_to_text, metrics
from unipet.tasks.kinds import KINDS
from unipet.tasks.label_sets import members
from unipet.tasks.text_metrics import TEXT_METRICS, References, Texts, TextScore


@dataclass(frozen=True)
class Metric:
    """One metric: the answers that it scores (`Kind.answer`), its function, and whether a higher value is better."""

    answers: tuple[str, ...]
    compute: Callable[..., Any] | None = None  # None: `score_texts` and `score_tags` compute it themselves
    higher_is_better: bool = True
    scale: str = "0 to 1"
    options: Mapping[str, str] = field(default_factory=dict)  # argument -> the key of the task with its value

    def fits(self, kind: str) -> bool:
        """Whether the metric can score a task of this kind."""
        return KINDS[kind].answer in self.answers


_PERCENT = "0 to 100"
METRICS: dict[str, Metric] = {
    "accuracy": Metric(("index", "tags"), metrics.accuracy),
    "f1": Metric(("index", "tags"), metrics.f1),
    "f1_macro": Metric(("index", "label_set"), metrics.f1_macro),
    "f1_micro": Metric(("label_set",), metrics.f1_micro),
    "subset_accuracy": Metric(("label_set",), metrics.subset_accuracy),
    "matthews_correlation": Metric(("index",), metrics.matthews_correlation, scale="-1 to 1"),
    "pearson": Metric(("number",), metrics.pearson, scale="-1 to 1"),
    "spearman": Metric(("number",), metrics.spearman, scale="-1 to 1"),
    "exact_match": Metric(("text",), TEXT_METRICS["exact_match"]),
    "perplexity": Metric(("text",), None, higher_is_better=False, scale="from 1; of the first reference, per token"),
    "ter": Metric(("text",), TEXT_METRICS["ter"], higher_is_better=False, scale="percent of the references' length"),
    "bleu": Metric(("text",), TEXT_METRICS["bleu"], scale=_PERCENT, options={"tokenizer": "bleu_tokenizer"}),
    **{
        name: Metric(("text",), TEXT_METRICS[name], scale=_PERCENT)
        for name in ("chrf", "rouge1", "rouge2", "rougeL", "rougeLsum")
    },
    "meteor": Metric(("text",), data_to_text.meteor, scale=_PERCENT),
    "nist": Metric(("text",), data_to_text.nist, scale="from 0"),
    "cider": Metric(("text",), data_to_text.cider, scale="0 to 10"),
}


@dataclass(frozen=True)
class Scores:
    """The scores of a model's answers. `score` is the value of `metric`, the task's first metric."""

    score: float
    metric: str
    metrics: dict[str, float]
    predictions: list[Any]  # label indices, sets of them, values, texts, or per sentence a label index per word
    per_example: list[float]  # the first metric, if it has a value per example; higher is better
    notes: dict[str, str] = field(default_factory=dict)  # metric -> how it was computed

    def record(self) -> dict[str, Any]:
        """Plain data, for the record."""
        return {
            "higher_is_better": METRICS[self.metric].higher_is_better,
            "scales": {name: METRICS[name].scale for name in self.metrics},
            "notes": self.notes,
        }


def score_predictions(task: TaskConfig, logits: np.ndarray, labels: np.ndarray) -> Scores:
    """Score `logits` (n, labels), or for regression (n, 1) or (n,), against `labels` (n,); for sets of labels (n, labels), of
    which those with a probability above one half (a logit above 0) are predicted.

    Per example: 1.0 for a correct and 0.0 for a wrong label or set, or minus the squared error. Raises UnipetError for no
    examples, shapes that do not match the task, and logits that are not finite.
    """
    regression, several = task.kind == "regression", KINDS[task.kind].answer == "label_set"
    logits, labels = np.asarray(logits, dtype=np.float64), np.asarray(labels)
    if regression and logits.ndim == 2 and logits.shape[1] == 1:
        logits = logits[:, 0]
    expected = (len(labels),) if regression else (len(labels), len(task.labels))
    shape = expected if several else (len(labels),)
    if len(labels) == 0 or labels.shape != shape or logits.shape != expected:
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
    if regression:
        labels = labels.astype(np.float64)
        values = {name: _formula(task, name)(logits, labels) for name in task.metrics}
        return _scores(task, values, logits.tolist(), (-((logits - labels) ** 2)).tolist())
    if several:
        chosen, truth = (logits > 0).astype(np.int64), labels.astype(np.int64)
        values = {name: _formula(task, name)(chosen, truth) for name in task.metrics}
        right = (chosen == truth).all(axis=1).astype(np.float64)
        return _scores(task, values, [members(row) for row in chosen], right.tolist())
    predicted = logits.argmax(axis=1)
    values = {name: _formula(task, name)(predicted, labels) for name in task.metrics}
    return _scores(task, values, predicted.tolist(), (predicted == labels).astype(np.float64).tolist())


def score_tags(task: TaskConfig, predicted: Sequence[Sequence[int | None]], answers: Sequence[Sequence[int]]) -> Scores:
    """Score one label index per word: accuracy over words, F1 over spans of BIO labels.

    A word without tokens has no prediction (None) and is left out of answers and predictions; the notes give their number.
    A truncated word counts as wrong (its prediction is -1), and belongs to no span. Per example: the share of correct
    words, or 1 if no word has tokens. Raises UnipetError if no word of the split has tokens.
    """
    pairs = [
        [(p, t) for p, t in zip(guess, truth, strict=True) if p is not None]
        for guess, truth in zip(predicted, answers, strict=True)
    ]
    hits = [[p == t for p, t in row] for row in pairs]
    scored, words = sum(map(len, hits)), sum(map(len, predicted))
    if not scored:
        raise UnipetError(f"task {task.name}: no word has a token with this base model's tokenizer: nothing to score.")
    values = {}
    for name in task.metrics:
        if name == "accuracy":
            values[name] = sum(map(sum, hits)) / scored
        else:
            guessed = [[task.labels[p] if p >= 0 else "O" for p, _ in row] for row in pairs]
            values[name] = metrics.span_f1(guessed, [[task.labels[t] for _, t in row] for row in pairs])
    note = f"over the {scored} words that have tokens; {words - scored} have none, words that were cut count as wrong"
    each = [sum(row) / len(row) if row else 1.0 for row in hits]
    return _scores(task, values, [list(row) for row in predicted], each, dict.fromkeys(task.metrics, note))


def score_texts(
    task: TaskConfig,
    predictions: Texts,
    references: References,
    losses: tuple[Sequence[float], Sequence[int]] | None = None,
) -> Scores:
    """Score generated texts. Perplexity needs `losses`: each example's summed negative log-likelihood, and its number of
    target tokens. Raises UnipetError for no examples, and for a perplexity that is not finite."""
    if not predictions:
        raise UnipetError(f"task {task.name}: no examples to score.")
    found: dict[str, TextScore] = {}
    for name in task.metrics:
        if name == "perplexity":
            assert losses is not None
            found[name] = _perplexity(*losses)
        else:
            found[name] = _formula(task, name)(predictions, references)
    values = {name: one.corpus for name, one in found.items()}
    notes = {name: one.note for name, one in found.items()}
    return _scores(task, values, list(predictions), found[task.metrics[0]].per_example, notes)


def _perplexity(losses: Sequence[float], counts: Sequence[int]) -> TextScore:
    mean = sum(losses) / max(sum(counts), 1)
    if not mean < 700:  # exp overflows; NaN
        raise UnipetError("evaluation: perplexity is not finite: training diverged. Try a lower optim.lr.")
    each = [-loss / max(count, 1) for loss, count in zip(losses, counts, strict=True)]
    return TextScore(
        math.exp(mean), each, "tokens of the first reference and its end, under the base model's tokenizer"
    )


def _formula(task: TaskConfig, name: str) -> Callable[..., Any]:
    known = {key: one for key, one in METRICS.items() if one.fits(task.kind)}
    if name not in known:
        raise unknown("task.metrics", name, known)
    compute = known[name].compute
    assert compute is not None
    return partial(compute, **{option: getattr(task, key) for option, key in known[name].options.items()})


def _scores(
    task: TaskConfig,
    values: Mapping[str, float],
    predictions: list[Any],
    per_example: list[float],
    notes: Mapping[str, str] | None = None,
) -> Scores:
    first = task.metrics[0]
    return Scores(values[first], first, dict(values), predictions, per_example, dict(notes or {}))
