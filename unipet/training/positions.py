"""How many tokens a base model can read: the number of its positions, compared with the lengths that a task asks for."""

from __future__ import annotations

from typing import Any

from unipet.config import TaskConfig
from unipet.errors import UnipetError
from unipet.tasks import Encoded, EncodedRows, kind_of


def position_limit(model: Any) -> int | None:
    """The longest sequence that `model` (with or without weights) can read. None if its configuration sets no limit."""
    positions: int | None = getattr(model.config, "max_position_embeddings", None)
    if positions is None:
        return None
    embeddings = getattr(getattr(model, model.base_model_prefix, None), "embeddings", None)
    padding = getattr(getattr(embeddings, "position_embeddings", None), "padding_idx", None)
    return positions if padding is None else positions - padding - 1  # RoBERTa counts positions from padding_idx + 1


def check_max_length(task: TaskConfig, model: Any) -> None:
    """Raise `UnipetError` if `task.max_length` lets texts become longer than the positions of `model`."""
    limit = position_limit(model)
    if limit is not None and task.max_length > limit and not kind_of(task.kind).generates:
        raise UnipetError(
            f"task.max_length: {task.max_length} given; the base model can read at most {limit} tokens. "
            f"Set task.max_length={limit}."
        )


def check_lengths(encoded: Encoded, model: Any, task: TaskConfig) -> None:
    """Raise `UnipetError` if an example, or the text generated for it, can have more tokens than `model` has positions."""
    limit = position_limit(model)
    if limit is None:
        return
    splits = [split for split in (encoded.train, encoded.evaluation, encoded.selection) if split is not None]
    longest = max(max([*split.lengths, *split.target_lengths]) for split in splits)
    generates = kind_of(task.kind).generates
    if longest > limit:
        what = "task.max_source and task.max_target" if generates else "task.max_length"
        raise UnipetError(
            f"{what}: an example has {longest} tokens, the base model takes {limit}. "
            + (f"Lower {what}." if generates else f"Set task.max_length={limit}.")
        )
    if generates:
        for split in splits[1:]:
            _check_generated(split, model.config.max_position_embeddings, task)


def _check_generated(examples: EncodedRows, limit: int, task: TaskConfig) -> None:
    """Raise `UnipetError` if prompt and generated text together can be longer than `limit`."""
    new = task.decoding.max_new_tokens or task.max_target
    if task.kind == "causal_generation":
        new += max(len(examples.prompt(i)) for i in range(len(examples)))
    if new > limit:
        raise UnipetError(
            f"task.decoding.max_new_tokens: prompt and generated text may reach {new} tokens, the base model takes "
            f"{limit}. Lower task.max_source, task.max_target or task.decoding.max_new_tokens."
        )
