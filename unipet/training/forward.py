"""One forward pass over a batch: padding, devices, and the shifted inputs of encoder-decoders."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from unipet.output.progress import counted
from unipet.output.stopwatch import current_phase
from unipet.tasks import Collate
from unipet.training.precision import autocast


class Examples(Protocol):
    """A sequence of encoded examples, each `{"input_ids", "attention_mask", ["token_type_ids"], "labels"}`."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int, /) -> dict[str, Any]: ...


@dataclass(frozen=True)
class Pass:
    """One batch and the model's logits for it; row k belongs to `examples[chosen[k]]`."""

    chosen: list[int]
    inputs: dict[str, Tensor]
    labels: Tensor
    logits: Tensor


def lengths(examples: Examples) -> list[int]:
    """The number of tokens of each example."""
    known: list[int] | None = getattr(examples, "lengths", None)
    return known or [len(examples[index]["input_ids"]) for index in range(len(examples))]


def longest_first(examples: Examples, batch_size: int) -> Iterator[list[int]]:
    """Batches of indices of examples of similar length, the longest first, so that a lack of memory shows at once."""
    sizes = lengths(examples)
    order = sorted(range(len(sizes)), key=sizes.__getitem__, reverse=True)
    for start in range(0, len(order), batch_size):
        yield order[start : start + batch_size]


@contextmanager
def evaluation_mode(model: nn.Module) -> Iterator[torch.device]:
    """Put the model into evaluation mode inside, and restore its mode afterwards. Yields the model's device."""
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
            # entered for each batch, so that gradients are on again if the caller abandons this generator
            with torch.no_grad(), autocast(device, precision):
                inputs, labels = model_inputs(model, batch)
                logits = model(**inputs).logits
            yield Pass(chosen, inputs, labels, logits)


def model_inputs(model: Any, batch: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], Tensor]:
    """(the model's arguments, the labels). For an encoder-decoder, the decoder's input is the labels shifted by one
    position, with a mask over the positions that have a label to predict."""
    inputs = {name: value for name, value in batch.items() if name != "labels"}
    labels = batch["labels"]
    if getattr(model.config, "is_encoder_decoder", False) and labels.dim() == 2 and not labels.is_floating_point():
        inputs["decoder_input_ids"] = model.prepare_decoder_input_ids_from_labels(labels=labels)
        inputs["decoder_attention_mask"] = (labels != -100).long()
    return inputs, labels


def real_tokens(inputs: Mapping[str, Tensor]) -> int:
    """The number of tokens of a batch without padding, including those of the decoder."""
    masks = (inputs[name] for name in ("attention_mask", "decoder_attention_mask") if name in inputs)
    return sum(int(mask.sum()) for mask in masks)


def to_device(batch: Mapping[str, Tensor], device: torch.device) -> dict[str, Tensor]:
    """The batch, moved to this device."""
    return {name: value.to(device) for name, value in batch.items()}
