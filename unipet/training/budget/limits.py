"""When training ends: at the optimiser step that reaches the first limit. Only a limit in hours is not known beforehand."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from typing import Any

from unipet.config import BudgetConfig, RunConfig
from unipet.training.forward import Examples


def count_steps(examples: int, config: RunConfig, batch_tokens: Iterable[int] = ()) -> tuple[int, str]:
    """The number of optimiser steps, and what ends training: "epochs", "max_steps" or "max_tokens".

    `batch_tokens` is an endless iterator over the numbers of tokens per batch, without padding. It is read only if
    `budget.max_tokens` is set. The step that reaches the limit is the last one, so training exceeds the limit by less
    than one batch.
    """
    steps, ended_by = math.ceil(config.optim.epochs * math.ceil(examples / config.optim.batch_size)), "epochs"
    steps = max(steps, 1)
    if config.budget.max_steps is not None and config.budget.max_steps < steps:
        steps, ended_by = config.budget.max_steps, "max_steps"
    if config.budget.max_tokens is not None:
        spent = 0
        for step, tokens in enumerate(batch_tokens, start=1):
            spent += tokens
            if step >= steps:
                break
            if spent >= config.budget.max_tokens:
                return step, "max_tokens"
    return steps, ended_by


def batch_tokens(examples: Examples, batches: Iterable[list[int]], encoder_decoder: bool) -> Iterator[int]:
    """The tokens of each batch without padding, as `forward.real_tokens` counts them: for an encoder-decoder, those of
    source and target."""
    for batch in batches:
        yield sum(_tokens(examples[index], encoder_decoder) for index in batch)


def _tokens(example: dict[str, Any], both: bool) -> int:
    mask, labels = example["attention_mask"], example["labels"]
    rows = mask if isinstance(mask[0], list) else [mask]  # a row for each choice
    own = sum(map(sum, rows))
    target = isinstance(labels, list) and isinstance(labels[0], int)  # and not one number for each label
    return own + (sum(label != -100 for label in labels) if both and target else 0)


def seconds_allowed(budget: BudgetConfig) -> float | None:
    """The wall seconds of training that `gpu_hours` allows, shared by all devices of the run; None without a limit."""
    return None if budget.gpu_hours is None else budget.gpu_hours * 3600 / budget.gpus
