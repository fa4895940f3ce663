"""Whether an evaluation depends on what it must not depend on: padding, the size of a batch, the order of rows, the cache.

A few examples are evaluated in several ways that differ in one of these alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from unipet.adaptation.adapted import CONTAINER, adaptation
from unipet.adaptation.certificate import NOT_APPLICABLE, Check, compared
from unipet.adaptation.proofs import difference, dtype_of, tolerance
from unipet.config import TaskConfig
from unipet.tasks import Collate, EncodedRows, Readout, answers_in, kind_of
from unipet.training.forward import evaluation_mode, model_inputs, to_device
from unipet.training.generation import generated_logits

EXAMPLES = 4  # that are looked at: the shortest, the longest, and some between
AMONG = 256  # of so many examples from the beginning of the split
NEW_TOKENS = 12  # that are generated for each of two of them
COPIES = 3  # of one example, in a batch without padding
_PADDING = {"attention_mask": 0, "token_type_ids": 0, "labels": -100}  # besides the ids'

Feature = dict[str, Any]


@dataclass(frozen=True)
class Probe:
    """A few examples of the split that was scored, and what evaluates them."""

    examples: EncodedRows
    chosen: tuple[int, ...]  # their places in the split, shortest first
    collate: Collate
    read: Readout
    pad: int  # the tokenizer's padding

    @classmethod
    def of(cls, examples: EncodedRows, collate: Collate, read: Readout, pad: int) -> Probe:
        """The shortest and the longest of the first examples, and some between."""
        order = sorted(range(min(AMONG, len(examples))), key=examples.lengths.__getitem__)
        steps = range(min(EXAMPLES, len(order)))
        chosen = dict.fromkeys(order[step * (len(order) - 1) // max(1, len(steps) - 1)] for step in steps)
        return cls(examples, tuple(chosen), collate, read, pad)

    @property
    def features(self) -> list[Feature]:
        """The examples."""
        return [self.examples[index] for index in self.chosen]

    def outputs(self, model: Any, features: Sequence[Feature] | None = None) -> list[Tensor]:
        """The logits (answers, outputs) of each of `features` in one batch, in the precision of the weights; by default those
        of all examples."""
        features = self.features if features is None else features
        with evaluation_mode(model) as device, torch.no_grad():
            batch = to_device(self.collate(list(features)), device)
            inputs, labels = model_inputs(model, batch)
            logits, _ = self.read(model(**inputs).logits, inputs, labels)
        counts = [answers_in(labels[row : row + 1], self.read) for row in range(len(labels))]
        return list(logits.float().cpu().split(counts))


def check_invariance(model: nn.Module, probe: Probe, together: Sequence[Tensor]) -> dict[str, Check]:
    """`padding`, `batch_size` and `row_order` of the evaluation. `together` are the probe's outputs in one batch."""
    if (reason := draws(model)) is not None:
        return dict.fromkeys(("padding", "batch_size", "row_order"), Check(NOT_APPLICABLE, reason))
    limit = tolerance(dtype_of(model), together)
    features = probe.features
    alone = probe.outputs(model, features[:1])
    several = probe.outputs(model, [features[0]] * COPIES)
    turned = probe.outputs(model, features[::-1])[::-1]
    room = probe.examples.lengths[probe.chosen[-1]] - probe.examples.lengths[probe.chosen[0]]
    if room:
        padded = probe.outputs(model, [_padded(features[0], room, probe.pad)])
        padding = compared(
            difference(alone, padded), limit, f"{room} tokens of padding behind an example change its outputs"
        )
    else:
        padding = Check(NOT_APPLICABLE, "all examples have the same length")
    size = compared(
        difference(alone * COPIES, several), limit, f"an example in a batch of {COPIES} is not what it is alone"
    )
    order = compared(difference(together, turned), limit, "the rows of a batch in another order give others")
    return {"padding": padding, "batch_size": size, "row_order": order}


def check_cache(model: Any, probe: Probe, tokenizer: Any, task: TaskConfig) -> Check:
    """Whether the first tokens that the model generates are the same with and without the cache of keys and values."""
    if not kind_of(task.kind).generates:
        return Check(NOT_APPLICABLE, "the task generates no text")
    if (reason := draws(model)) is not None:
        return Check(NOT_APPLICABLE, reason)
    some = (probe.chosen[0], probe.chosen[-1])
    count = min(NEW_TOKENS, task.decoding.max_new_tokens or task.max_target)
    cached, plain = (
        generated_logits(model, probe.examples, some, tokenizer, probe.collate, task, count, cache)
        for cache in (True, False)
    )
    limit = tolerance(dtype_of(model), plain)
    check = compared(difference(plain, cached), limit, f"the first {count} generated tokens with the cache and without")
    check.text = check.text or f"{count} tokens for {len(some)} examples"
    return check


class Some:
    """Some of the examples of a split."""

    def __init__(self, examples: EncodedRows, chosen: Sequence[int]) -> None:
        self._examples, self._chosen = examples, list(chosen)
        self.lengths = [examples.lengths[index] for index in self._chosen]

    def __len__(self) -> int:
        return len(self._chosen)

    def __getitem__(self, index: int) -> Feature:
        return self._examples[self._chosen[index]]

    def prompt(self, index: int) -> list[int]:
        """As that of the split."""
        return self._examples.prompt(self._chosen[index])

    def labelled(self, index: int) -> list[int]:
        """As that of the split."""
        return self._examples.labelled(self._chosen[index])

    def wordless(self, index: int) -> list[int]:
        """As that of the split."""
        return self._examples.wordless(self._chosen[index])


def draws(model: nn.Module) -> str | None:
    """Why two evaluations of the same batch may differ; None where they may not."""
    items = adaptation(model).items if hasattr(model, CONTAINER) else []
    if any(item.parts.mixture is not None and item.parts.mixture.draws_in_evaluation for item in items):
        return "its evaluation draws experts, so no two passes agree"
    return None


def _padded(feature: Feature, count: int, pad: int) -> Feature:
    """An example with so many tokens of padding behind every sequence of it."""

    def longer(name: str, value: Any) -> Any:
        filling = {"input_ids": pad, **_PADDING}.get(name)
        if not isinstance(value, list) or filling is None or isinstance(value[0], float):  # a number for each label
            return value
        return [longer(name, row) for row in value] if isinstance(value[0], list) else [*value, *[filling] * count]

    return {name: longer(name, value) for name, value in feature.items()}
