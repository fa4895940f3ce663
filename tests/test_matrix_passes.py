"""The matrix beyond its behaviour: descriptions, attention implementations, checkpointing and copies. Every method is asked
on architectures of each kind, and one method of each mechanism on one architecture of each structure (matrix_room.py)."""

from __future__ import annotations

from typing import Any

import torch
from batch_room import assert_only_the_row_matters, of_dtype
from matrix_room import (
    ARCHS,
    METHODS,
    adapted,
    before,
    close,
    deep_copy,
    logits,
    matrix,
    randomise,
    same_bits,
    untouched,
    with_loss,
)
from torch import Tensor
from transformers.modeling_layers import GradientCheckpointingLayer

import unipet
from unipet.adaptation import adaptation


@matrix
def test_a_description_is_what_adapting_reports_and_touches_nothing(method: str, arch: str) -> None:
    """From the configuration alone, without weights, and from the model."""
    model = ARCHS[arch].build(weights="rounded")
    described = unipet.describe(METHODS[method], model.config).to_dict()
    assert unipet.describe(METHODS[method], model).to_dict() == described
    state, outside, _ = before(arch)
    assert same_bits(model.state_dict(), state) and untouched(model) == outside
    assert unipet.adapt(model, METHODS[method]).to_dict() == described


@matrix
def test_neither_attention_nor_checkpointing_nor_a_copy_says_or_trains_otherwise(method: str, arch: str) -> None:
    """Attention implementations agree in outputs and gradients, and what test_behaviour.py asks of a row under the first of
    them holds under the others; checkpointing trains the same gradients; a deep copy stands alone. In float64: a random T5
    magnifies float32's rounding beyond any tolerance that could still see a fault."""
    batch, models, results = of_dtype(torch.float64, ARCHS[arch].batch()), [], []
    for attention in ARCHS[arch].attentions:
        torch.manual_seed(0)
        model = adapted(method, arch, std=0.1, attention=attention)
        if models:
            assert_only_the_row_matters(model, arch, attention)
        models.append(model)
        results.append(trained(model.double(), arch, batch))
    for output, gradients in results[1:]:
        assert close(output, results[0][0], 1e-6), "attention implementations"
        assert_same_gradients(gradients, results[0][1], 1e-6)
    _copies_stand_alone(models[-1], arch, batch)
    _trains_the_same_under_checkpointing(models[0], arch, batch)


def trained(model: Any, arch: str, batch: dict[str, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
    """The output on real tokens and the gradient of every tensor that has one, of one pass."""
    out = with_loss(arch, model, batch)
    out.loss.backward()
    own = unipet.parameters(model, head=True)
    return ARCHS[arch].real(batch, out.logits.detach()), {n: p.grad for n, p in own.items() if p.grad is not None}


def assert_same_gradients(found: dict[str, Tensor], expected: dict[str, Tensor], tolerance: float) -> None:
    """Within `tolerance` of the scale of the largest."""
    assert found.keys() == expected.keys() and expected
    scale = max(1.0, *(tensor.abs().max().item() for tensor in expected.values()))
    for name, tensor in expected.items():
        assert torch.allclose(found[name], tensor, rtol=0.0, atol=tolerance * scale), name


def _copies_stand_alone(model: Any, arch: str, batch: dict[str, Tensor]) -> None:
    """Hooks and routes of a deep copy belong to the copy."""
    said, clone = logits(arch, model, batch), deep_copy(model)
    randomise(model, seed=9)
    assert torch.equal(logits(arch, clone, batch), said)


def _trains_the_same_under_checkpointing(model: Any, arch: str, batch: dict[str, Tensor]) -> None:
    model.train()
    passes: list[int] = []
    for layer in (module for module in model.modules() if isinstance(module, GradientCheckpointingLayer)):
        for leaf in (module for module in layer.modules() if not any(module.children())):
            leaf.register_forward_pre_hook(lambda *_: passes.append(1))

    def once() -> tuple[dict[str, Tensor], int]:
        passes.clear()
        model.zero_grad()
        adaptation(model).draw(0, seed=0)
        torch.manual_seed(1)
        return trained(model, arch, batch)[1], len(passes)

    expected, calls = once()
    # The newer name first: transformers 5.23 deprecates the older one.
    enable = getattr(model, "activation_checkpointing_enable", None) or model.gradient_checkpointing_enable
    enable({"use_reentrant": False})
    found, calls_again = once()
    below_head = {name.split("/")[0] for name in expected} - {"head"}
    assert calls_again > calls or not below_head, "no layer was run again, so nothing was checked"
    assert_same_gradients(found, expected, 1e-8)
