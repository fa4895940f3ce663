"""One forward pass over a batch as a task's kind needs it; nothing below knows the kind, nothing above the model."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from unipet.output.progress import counted
from unipet.output.stopwatch import current_phase
from unipet.tasks import Collate


class Examples(Protocol):
    """Encoded examples: `{"input_ids", "attention_mask", ["token_type_ids"], "labels"}` each."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int, /) -> dict[str, Any]: ...


@dataclass(frozen=True)
class Pass:
    """One batch and what the model made of it; row k is `examples[chosen[k]]`."""

    chosen: list[int]
    inputs: dict[str, Tensor]
    labels: Tensor
    logits: Tensor


def lengths(examples: Examples) -> list[int]:
    """How many tokens each example has."""
    known: list[int] | None = getattr(examples, "lengths", None)
    return known or [len(examples[index]["input_ids"]) for index in range(len(examples))]


def longest_first(examples: Examples, batch_size: int) -> Iterator[list[int]]:
    """Batches of indices of similar length, the longest first: what is too big fails at once."""
    sizes = lengths(examples)
    order = sorted(range(len(sizes)), key=sizes.__getitem__, reverse=True)
    for start in range(0, len(order), batch_size):
        yield order[start : start + batch_size]


@contextmanager
def evaluation_mode(model: nn.Module) -> Iterator[torch.device]:
    """Evaluation mode inside; the mode is left as it was found. Gives the model's device."""
    was_training = model.training
    model.eval()
    try:
        yield next(model.parameters()).device
    finally:
        model.train(was_training)


def passes(model: nn.Module, examples: Examples, collate: Collate, batch_size: int, precision: str) -> Iterator[Pass]:
    """The model's output for every example without gradients, in evaluation mode, in batches of similar length."""
    with evaluation_mode(model) as device:
        for chosen in counted(longest_first(examples, batch_size), len(examples), current_phase()):
            batch = to_device(collate([examples[index] for index in chosen]), device)
            # entered for each batch: a generator that is left half-way must not leave gradients off
            with torch.no_grad(), autocast(device, precision):
                inputs, labels = model_inputs(model, batch)
                logits = model(**inputs).logits
            yield Pass(chosen, inputs, labels, logits)


def autocast(device: torch.device, precision: str) -> AbstractContextManager[Any]:
    """Mixed precision for the forward pass: bfloat16 where `precision` is "bf16", nothing for "fp32"."""
    return torch.autocast(device.type, dtype=torch.bfloat16, enabled=precision == "bf16")


def model_inputs(model: Any, batch: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], Tensor]:
    """(what the model is called with, the labels). An encoder-decoder reads the labels shifted by one, with a mask:
    its decoder's positions are real up to the label that they predict."""
    inputs = {name: value for name, value in batch.items() if name != "labels"}
    labels = batch["labels"]
    if getattr(model.config, "is_encoder_decoder", False) and labels.dim() == 2:
        inputs["decoder_input_ids"] = model.prepare_decoder_input_ids_from_labels(labels=labels)
        inputs["decoder_attention_mask"] = (labels != -100).long()
    return inputs, labels


def real_tokens(inputs: Mapping[str, Tensor]) -> int:
    """How many tokens of a batch are not padding, the decoder's included."""
    masks = (inputs[name] for name in ("attention_mask", "decoder_attention_mask") if name in inputs)
    return sum(int(mask.sum()) for mask in masks)


def to_device(batch: Mapping[str, Tensor], device: torch.device) -> dict[str, Tensor]:
    """The batch on this device."""
    return {name: value.to(device) for name, value in batch.items()}
