"""What the tests of generation share: lively tiny models, left-padded prompts, and generating with or without a cache."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

import unipet
from tests.support.architectures import ARCHS
from tests.support.matrix import randomise, spec_of

MODES: dict[str, dict[str, Any]] = {
    "greedy": {},
    "sampling": {"do_sample": True, "top_k": 0},
    "beams": {"num_beams": 3, "num_return_sequences": 2},
}
NEW = 4


def lively(arch: str, **options: Any) -> Any:
    """A tiny model whose next token depends on what it reads (freshly initialised ones repeat themselves)."""
    model = ARCHS[arch].build(**options)
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() > 1:
                parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.2)
    return model


def adapted(arch: str, method: Any, *, std: float = 0.3, implementation: str | None = None, **options: Any) -> Any:
    """The same with a method whose tensors are all random, and the same on every call."""
    model = lively(arch, **options)
    if implementation is not None:
        model.config._attn_implementation = implementation  # past the check that its kernel is installed
    with torch.random.fork_rng():
        torch.manual_seed(0)
        unipet.adapt(model, spec_of(method))
    randomise(model, std)
    return model


def prompts(arch: str, rows: int = 2, length: int = 6) -> dict[str, Tensor]:
    """Row i has length - i real tokens: left-padded for a decoder, right-padded for an encoder."""
    batch = {k: v for k, v in ARCHS[arch].batch(rows, length).items() if not k.startswith("decoder_")}
    return {name: tensor.flip(1) for name, tensor in batch.items()} if ARCHS[arch].kind == "decoder" else batch


def alone(batch: Mapping[str, Tensor], row: int) -> dict[str, Tensor]:
    """One row without its padding."""
    real = batch["attention_mask"][row].bool()
    return {name: tensor[row : row + 1, real] for name, tensor in batch.items()}


def generate(model: Any, batch: Mapping[str, Tensor], *, use_cache: bool = True, new: int = NEW, **options: Any) -> Any:
    """Generate `new` tokens with the logits of each step, from the same random stream on every call."""
    torch.manual_seed(0)
    asked = {"max_new_tokens": new, "min_new_tokens": new, "return_dict_in_generate": True}
    asked |= {"output_logits": True, "output_scores": True}
    return model.generate(**batch, **asked, use_cache=use_cache, **options)


def steps(found: Any) -> Tensor:
    """The logits of every step, (steps, rows, vocabulary)."""
    return torch.stack(found.logits)


@functools.cache
def of_the_base_model(arch: str) -> Tensor:
    """The base model's logits for the first new token."""
    logits: Tensor = generate(lively(arch), prompts(arch), new=1).logits[0]
    return logits
