"""Readouts: from a model's logits, of any shape, to one row of logits per answer, for the loss and the scores.

Shapes: B batch, L tokens, V vocabulary, C answers, N answers counted in a batch.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from unipet.config import TaskConfig
from unipet.tasks.prompt import mask_token, verbalizer_ids

if TYPE_CHECKING:
    from torch import Tensor

#: (logits, inputs, labels) -> (answers' logits (N, C), their labels (N,))
Readout = Callable[["Tensor", "Mapping[str, Tensor]", "Tensor"], "tuple[Tensor, Tensor]"]


def rows(logits: Tensor, inputs: Mapping[str, Tensor], labels: Tensor) -> tuple[Tensor, Tensor]:
    """One answer per example: the logits unchanged."""
    return logits, labels


def tokens(logits: Tensor, inputs: Mapping[str, Tensor], labels: Tensor) -> tuple[Tensor, Tensor]:
    """One answer per labelled token: logits (B, L, V) and labels (B, L), without tokens labelled -100."""
    real = labels != -100
    return logits[real], labels[real]


def next_tokens(logits: Tensor, inputs: Mapping[str, Tensor], labels: Tensor) -> tuple[Tensor, Tensor]:
    """One answer per labelled token of a decoder, read at the position before the token."""
    return tokens(logits[:, :-1], inputs, labels[:, 1:])


def answers_in(labels: Tensor, read: Readout) -> int:
    """The number of answers N that `read` takes from a batch with these labels, (B,), (B, L) or, for sets, (B, C)."""
    if labels.dim() == 1 or labels.is_floating_point():
        return len(labels)
    return int(((labels[:, 1:] if read is next_tokens else labels) != -100).sum())


def readout(task: TaskConfig, tokenizer: Any) -> Readout:
    """The readout of a task's kind. Raises UnipetError for a verbalizer that is not one token."""
    if task.kind == "masked_prompt":
        mask_token(tokenizer)
        mask, words = tokenizer.mask_token_id, verbalizer_ids(tokenizer, task)

        def at_mask(logits: Tensor, inputs: Mapping[str, Tensor], labels: Tensor) -> tuple[Tensor, Tensor]:
            return logits[inputs["input_ids"] == mask][:, words], labels

        return at_mask
    if task.kind == "causal_prompt":
        following = verbalizer_ids(tokenizer, task)

        def after_prompt(logits: Tensor, inputs: Mapping[str, Tensor], labels: Tensor) -> tuple[Tensor, Tensor]:
            ends = inputs["attention_mask"].sum(1) - 1  # prompts are padded on the right
            return logits.gather(1, ends.view(-1, 1, 1).expand(-1, 1, logits.shape[-1]))[:, 0, following], labels

        return after_prompt
    found: dict[str, Readout] = {"token_classification": tokens, "seq2seq": tokens, "causal_generation": next_tokens}
    return found.get(task.kind, rows)
