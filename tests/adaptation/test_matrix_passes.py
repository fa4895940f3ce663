"""The matrix beyond its behaviour: descriptions, merging and loading in float32, attention implementations, checkpointing
and copies, of every pair."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers.modeling_layers import GradientCheckpointingLayer

import unipet
from tests.support.batches import assert_only_the_row_matters, of_dtype
from tests.support.matrix import (
    ARCHS,
    METHODS,
    adapted,
    asking,
    assert_same_gradients,
    before,
    close,
    deep_copy,
    every_pair,
    logits,
    merges_or_says_why_not,
    randomise,
    same_bits,
    untouched,
    with_loss,
)
from unipet.adaptation.adapted import adaptation


@every_pair
def test_a_description_touches_nothing_is_what_adapting_reports_and_what_merging_does(method: str, arch: str) -> None:
    """From the configuration alone, without weights, and from the model; all of it in float32."""
    asks = functools.partial(asking, method, arch)
    model, batch = ARCHS[arch].build(weights="rounded"), ARCHS[arch].batch()
    with asks("a configuration and a model are described alike"):
        described = unipet.describe(METHODS[method], model.config).to_dict()
        assert unipet.describe(METHODS[method], model).to_dict() == described
    with asks("a description touches nothing"):
        state, outside, _ = before(arch)
        assert same_bits(model.state_dict(), state) and untouched(model) == outside
    with asks("adapting reports what was described"):
        report = unipet.adapt(model, METHODS[method])
        assert report.to_dict() == described
    randomise(model, std=0.1)  # T5 does not scale its logits: larger values would test float32, not the fold
    unmerged = logits(arch, model, batch)
    with asks("it merges, or says why not"):
        merges_or_says_why_not(model, report)
    with asks("merged in float32, it says the same"):
        # Folding is one float32 rounding of each weight; T5, which does not scale its logits, magnifies it.
        unscaled = model.config.model_type in ("t5", "mt5")
        assert close(logits(arch, model, batch), unmerged, 1e-4 if unscaled else 1e-5)


@every_pair
def test_loaded_into_the_same_base_model_it_says_the_same(method: str, arch: str, tmp_path: Path) -> None:
    model, fresh, batch = adapted(method, arch), ARCHS[arch].build(), ARCHS[arch].batch()
    with asking(method, arch, "saved and loaded, it has the same bits"):
        unipet.save(model, tmp_path / "adapter")
        unipet.load(fresh, tmp_path / "adapter")
        assert same_bits(unipet.parameters(fresh, head=True), unipet.parameters(model, head=True))
    with asking(method, arch, "saved and loaded, it says the same"):
        assert torch.equal(logits(arch, fresh, batch), logits(arch, model, batch))


@every_pair
def test_neither_attention_nor_checkpointing_nor_a_copy_says_or_trains_otherwise(method: str, arch: str) -> None:
    """Attention implementations agree in outputs and gradients, and what test_behaviour.py asks of a row under the first of
    them holds under the others; checkpointing trains the same gradients; a deep copy stands alone. In float64: a random T5
    magnifies float32's rounding beyond any tolerance that could still see a fault."""
    asks = functools.partial(asking, method, arch)
    batch, models, results = of_dtype(torch.float64, ARCHS[arch].batch()), [], []
    for attention in ARCHS[arch].attentions:
        torch.manual_seed(0)
        model = adapted(method, arch, std=0.1, attention=attention)
        if models:
            with asks(f"neither padding nor company changes what it says of a row under {attention}"):
                assert_only_the_row_matters(model, arch, attention)
        models.append(model)
        results.append(trained(model.double(), arch, batch))
    for output, gradients in results[1:]:
        with asks("attention implementations say the same"):
            assert close(output, results[0][0], 1e-6)
        with asks("attention implementations train the same"):
            assert_same_gradients(gradients, results[0][1], 1e-6)
    with asks("a deep copy stands alone"):
        _copies_stand_alone(models[-1], arch, batch)
    with asks("gradient checkpointing trains the same"):
        _trains_the_same_under_checkpointing(models[0], arch, batch)


def trained(model: Any, arch: str, batch: dict[str, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
    """The output on real tokens and the gradient of every tensor that has one, of one pass."""
    out = with_loss(arch, model, batch)
    out.loss.backward()
    own = unipet.parameters(model, head=True)
    return ARCHS[arch].real(batch, out.logits.detach()), {n: p.grad for n, p in own.items() if p.grad is not None}


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
