"""Evaluating a model on encoded examples: answers in the order of the examples, and their scores."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from unipet.config import RunConfig
from unipet.errors import UnipetError
from unipet.tasks import (
    LOSS,
    METRICS,
    Collate,
    Encoded,
    EncodedRows,
    Readout,
    Row,
    Scores,
    TaskData,
    collate,
    kind_of,
    read_rows,
    readout,
    score_predictions,
    score_tags,
    score_texts,
    selection_metric,
)
from unipet.training.forward import Examples, passes
from unipet.training.generation import generate_texts, target_losses


def predict(
    model: nn.Module,
    examples: Examples,
    collate: Collate,
    batch_size: int,
    precision: str,
    read: Readout = read_rows,
) -> tuple[np.ndarray, np.ndarray]:
    """Logits (n, outputs) in float32 and labels (n,) of all answers; `read` takes them from the model's output.

    With one answer per example, row i belongs to `examples[i]`. With one answer per token, rows are in the order of
    batches. Raises `UnipetError` if a logit is not finite.
    """
    rows: list[Tensor] = []
    labels: list[Tensor] = []
    order: list[int] = []
    for one in passes(model, examples, collate, batch_size, precision):
        logits, answers = read(one.logits, one.inputs, one.labels)
        rows.append(logits.float().cpu())
        labels.append(answers.cpu())
        order += one.chosen
    logits, answers = torch.cat(rows), torch.cat(labels)
    if len(logits) == len(order):
        back = torch.empty(len(order), dtype=torch.long)
        back[torch.tensor(order, dtype=torch.long)] = torch.arange(len(order))
        logits, answers = logits[back], answers[back]
    if not torch.isfinite(logits).all():
        raise UnipetError("evaluation: the trained model's outputs are not finite numbers. Try a lower optim.lr.")
    return logits.numpy(), answers.numpy()


def score_split(
    config: RunConfig, model: Any, rows: Sequence[Row], encoded: EncodedRows, tokenizer: Any
) -> tuple[Scores, list[dict[str, Any]]]:
    """The scores of one split, and one row per example for `predictions.jsonl`. Raises `UnipetError` if the score is not
    finite."""
    task, size, precision = config.task, config.optim.eval_batch_size, config.precision
    batch, read = collate(tokenizer), readout(task, tokenizer)
    kind = kind_of(task.kind)
    extra: list[dict[str, Any]] = [{} for _ in rows]
    if kind.generates:
        texts = generate_texts(model, encoded, tokenizer, batch, task, size, precision)
        losses = None
        if "perplexity" in task.metrics:
            losses = target_losses(model, encoded, batch, read, size, precision)
        scores = score_texts(task, texts, [row["references"] for row in rows], losses)
        extra = [{"references": row["references"]} for row in rows]
    elif kind.answer == "tags":
        scores = score_tags(
            task, predict_tags(model, rows, encoded, batch, size, precision), [row["label"] for row in rows]
        )
        extra = [{"label": row["label"]} for row in rows]
    else:
        logits, labels = predict(model, encoded, batch, size, precision, read)
        scores = score_predictions(task, logits, labels)
        extra = [{"label": row["label"], "logits": outputs} for row, outputs in zip(rows, logits.tolist(), strict=True)]
    if not math.isfinite(scores.score):
        raise UnipetError(f"evaluation: {scores.metric} is {scores.score}: the predictions or the labels do not vary.")
    return scores, [
        {"id": row["id"], "prediction": prediction, "score": value, **more}
        for row, prediction, value, more in zip(rows, scores.predictions, scores.per_example, extra, strict=True)
    ]


def selection_score(
    config: RunConfig, model: Any, data: TaskData, encoded: Encoded, tokenizer: Any
) -> Callable[[], float]:
    """A function that scores the selection split by `selection_metric`, negated if lower is better. It never reads the
    evaluation split, which is reported."""
    assert encoded.selection is not None
    split, metric = encoded.selection, selection_metric(config.task)
    if metric == LOSS:
        return lambda: -mean_target_loss(config, model, split, tokenizer)
    sign = 1.0 if higher_is_better(metric) else -1.0
    one = replace(config, task=replace(config.task, metrics=[metric]))
    return lambda: sign * score_split(one, model, data.selection, split, tokenizer)[0].score


def higher_is_better(metric: str) -> bool:
    """Whether a higher value is better, for a metric that chooses checkpoints."""
    return metric != LOSS and METRICS[metric].higher_is_better


def mean_target_loss(config: RunConfig, model: Any, encoded: EncodedRows, tokenizer: Any) -> float:
    """The mean negative log-likelihood per target token, in nats, without decoding. Raises `UnipetError` if it is not
    finite."""
    batch, read = collate(tokenizer), readout(config.task, tokenizer)
    losses, counts = target_losses(model, encoded, batch, read, config.optim.eval_batch_size, config.precision)
    mean = sum(losses) / sum(counts)
    if not math.isfinite(mean):
        raise UnipetError("evaluation: the loss of the selection split is not finite. Try a lower optim.lr.")
    return mean


def predict_tags(
    model: nn.Module, rows: Sequence[Row], examples: EncodedRows, collate: Collate, batch_size: int, precision: str
) -> list[list[int | None]]:
    """One predicted label index per word, in the order of the examples: -1 for a word that max_length truncated, None for
    a word without tokens."""
    found: list[list[int | None]] = [[-1] * len(row["text"]) for row in rows]
    for one in passes(model, examples, collate, batch_size, precision):
        best = one.logits.argmax(-1).cpu()
        for k, index in enumerate(one.chosen):
            tags = best[k][one.labels[k].cpu() != -100].tolist()
            for word, tag in zip(examples.labelled(index), tags, strict=True):
                found[index][word] = tag
            for word in examples.wordless(index):
                found[index][word] = None
    return found
