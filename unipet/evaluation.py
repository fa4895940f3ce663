"""Running a model over encoded examples without learning: logits in the examples' own order."""

from __future__ import annotations

import math
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor, nn

from unipet.adaptation import adaptation
from unipet.config import RunConfig
from unipet.errors import UnipetError
from unipet.merging import merge
from unipet.tasks import Encoded, Scores, TaskData, score_predictions


class Examples(Protocol):
    """Encoded examples: `{"input_ids", "attention_mask", ["token_type_ids"], "labels"}` each."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int, /) -> dict[str, Any]: ...


Collate = Callable[[list[dict[str, Any]]], dict[str, Tensor]]


def autocast(device: torch.device, precision: str) -> AbstractContextManager[Any]:
    """Mixed precision for the forward pass: bfloat16 where `precision` is "bf16", nothing for "fp32"."""
    return torch.autocast(device.type, dtype=torch.bfloat16, enabled=precision == "bf16")


def lengths(examples: Examples) -> list[int]:
    """How many tokens each example has."""
    known: list[int] | None = getattr(examples, "lengths", None)
    return known or [len(examples[index]["input_ids"]) for index in range(len(examples))]


def predict(
    model: nn.Module,
    examples: Examples,
    collate: Collate,
    batch_size: int,
    precision: str,
) -> tuple[np.ndarray, np.ndarray]:
    """Logits (n, outputs) as float32 and labels (n,), row i belonging to `examples[i]`.

    Runs in evaluation mode without gradients, in batches of similar length, and leaves the mode as it found it.
    Raises `UnipetError` when a logit is not finite.
    """
    device = next(model.parameters()).device
    sizes = lengths(examples)
    order = sorted(range(len(sizes)), key=sizes.__getitem__, reverse=True)  # longest first: too big fails at once
    rows: list[Tensor] = []
    labels: list[Tensor] = []
    was_training = model.training
    model.eval()
    try:
        with torch.no_grad(), autocast(device, precision):
            for start in range(0, len(order), batch_size):
                batch = collate([examples[index] for index in order[start : start + batch_size]])
                labels.append(batch.pop("labels"))
                inputs = {name: value.to(device) for name, value in batch.items()}
                rows.append(model(**inputs).logits.float().cpu())
    finally:
        model.train(was_training)
    back = torch.empty(len(order), dtype=torch.long)
    back[torch.tensor(order, dtype=torch.long)] = torch.arange(len(order))
    logits = torch.cat(rows)[back]
    if not torch.isfinite(logits).all():
        raise UnipetError("evaluation: the trained model's outputs are not finite numbers. Try a lower optim.lr.")
    return logits.numpy(), torch.cat(labels)[back].numpy()


def score_split(
    config: RunConfig, model: Any, data: TaskData, encoded: Encoded, collate: Collate
) -> tuple[Scores, list[dict[str, Any]]]:
    """The scores of the evaluation split, and one row per example for `predictions.jsonl`."""
    logits, labels = predict(model, encoded.evaluation, collate, config.optim.eval_batch_size, config.precision)
    scores = score_predictions(config.task, logits, labels)
    if not math.isfinite(scores.score):
        raise UnipetError(f"evaluation: {scores.metric} is {scores.score}: the predictions or the labels do not vary.")
    rows = [
        {"id": row["id"], "label": row["label"], "prediction": prediction, "score": value, "logits": outputs}
        for row, prediction, value, outputs in zip(
            data.evaluation, scores.predictions, scores.per_example, logits.tolist(), strict=True
        )
    ]
    return scores, rows


def check_lengths(encoded: Encoded, model: Any) -> None:
    """An example longer than the model's positions would be an index error deep inside the model."""
    positions = getattr(model.config, "max_position_embeddings", None)
    if positions is None:
        return
    embeddings = getattr(getattr(model, model.base_model_prefix, None), "embeddings", None)
    padding = getattr(getattr(embeddings, "position_embeddings", None), "padding_idx", None)
    limit = positions if padding is None else positions - padding - 1  # RoBERTa counts positions from padding_idx + 1
    longest = max(max(lengths(encoded.train)), max(lengths(encoded.evaluation)))
    if longest > limit:
        raise UnipetError(
            f"task.max_length: an example has {longest} tokens, the base model takes {limit}. "
            f"Set task.max_length={limit}."
        )


def check_mixture(model: nn.Module, examples: Examples, collate: Collate, batch_size: int) -> None:
    """Bake a trained mixture, in place, and compare its outputs on one batch: what was scored must be what is kept.

    Does nothing to a method without mixtures. Raises `UnipetError` when the outputs differ by more than rounding.
    """
    if not adaptation(model).mixed:
        return
    some = [examples[index] for index in range(min(batch_size, len(examples)))]
    before, _ = predict(model, some, collate, batch_size, "fp32")
    merge(model, partial=True)
    after, _ = predict(model, some, collate, batch_size, "fp32")
    difference = float(np.abs(after - before).max())
    if difference > 1e-3 * max(1.0, float(np.abs(before).max())):
        raise UnipetError(
            f"merging: the merged mixture's outputs differ by {difference:.3g} from those that were scored."
        )
