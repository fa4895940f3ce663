"""The matrix where inputs, attention implementations and checkpointing vary: none of them may change a result."""

from __future__ import annotations

from typing import Any

import torch
from matrix_room import ARCHS, adapted, close, logits, matrix, without_cache
from torch import Tensor, nn
from transformers.modeling_layers import GradientCheckpointingLayer

import unipet
from unipet.adaptation import adaptation


def widened(batch: dict[str, Tensor]) -> dict[str, Tensor]:
    """More padding to the right of every sequence, an encoder's and a decoder's alike."""
    return {
        name: nn.functional.pad(tensor, (0, 5 if name.startswith("decoder") else 3)) for name, tensor in batch.items()
    }


def padded_left(batch: dict[str, Tensor]) -> dict[str, Tensor]:
    """The same sequences against the right edge, with positions as `generate` counts them."""
    real = batch["attention_mask"].sum(1).tolist()
    left = {
        name: torch.stack([row.roll(len(row) - n) for row, n in zip(tensor, real, strict=True)])
        for name, tensor in batch.items()
    }
    return left | {"position_ids": (left["attention_mask"].cumsum(1) - 1).clamp(min=0)}


def alone(batch: dict[str, Tensor], row: int) -> dict[str, Tensor]:
    """One example without its company, and without padding if it is text."""
    if "input_ids" not in batch:
        return {name: tensor[row : row + 1] for name, tensor in batch.items()}

    def length(name: str) -> int:
        return int(batch["decoder_attention_mask" if name.startswith("decoder") else "attention_mask"][row].sum())

    return {name: tensor[row : row + 1, : length(name)] for name, tensor in batch.items()}


def regrouped(batch: dict[str, Tensor]) -> dict[str, Tensor]:
    """The last example before the first, without the others."""
    return {name: tensor[[-1, 0]] for name, tensor in batch.items()}


def trained(model: Any, arch: str, batch: dict[str, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
    """The output on real tokens and the gradient of every tensor that has one, of one pass."""
    out = model(**batch, **without_cache(arch), labels=ARCHS[arch].labels(batch))
    out.loss.backward()
    own = unipet.parameters(model, head=True)
    return ARCHS[arch].real(batch, out.logits.detach()), {n: p.grad for n, p in own.items() if p.grad is not None}


def assert_same_gradients(found: dict[str, Tensor], expected: dict[str, Tensor], tolerance: float) -> None:
    """Within `tolerance` of the scale of the largest."""
    assert found.keys() == expected.keys() and expected
    scale = max(1.0, *(tensor.abs().max().item() for tensor in expected.values()))
    for name, tensor in expected.items():
        assert torch.allclose(found[name], tensor, rtol=0.0, atol=tolerance * scale), name


@matrix
def test_neither_padding_nor_company_nor_attention_nor_checkpointing_matters(method: str, arch: str) -> None:
    """A row's output depends neither on how far and on which side its batch is padded nor on the other rows, with each
    attention implementation; these agree, in outputs and gradients; and checkpointing trains the same gradients.

    In float64: a random T5 magnifies float32's rounding beyond any tolerance that could still see a fault. Only padding and
    company of decoders in float32: transformers' eager attention makes NaN in float64 of a row that sees no token.
    """
    batch, models, results = ARCHS[arch].batch(), [], []
    exact = {name: tensor.double() if tensor.is_floating_point() else tensor for name, tensor in batch.items()}
    decoder = ARCHS[arch].kind == "decoder"
    for attention in ARCHS[arch].attentions:
        torch.manual_seed(0)
        model = adapted(method, arch, std=0.1, attention=attention)
        models.append(model)
        if decoder:
            assert_only_the_row_matters(model, arch, batch, logits(arch, model, batch), attention)
        results.append(trained(model.double(), arch, exact))
        if not decoder:
            assert_only_the_row_matters(model, arch, exact, results[-1][0], attention)
    for output, gradients in results[1:]:
        assert close(output, results[0][0], 1e-6), "attention implementations"
        assert_same_gradients(gradients, results[0][1], 1e-6)
    _trains_the_same_under_checkpointing(models[0], arch, exact)


def assert_only_the_row_matters(model: Any, arch: str, batch: dict[str, Tensor], expected: Tensor, which: str) -> None:
    """Not its padding, and not its company: the middle row alone, the others in another order, all of them padded
    otherwise."""
    tolerance = 1e-7 if expected.dtype == torch.float64 else 1e-5  # eager attention takes its softmax in float32
    mask = batch.get("decoder_attention_mask", batch.get("attention_mask"))
    one_each = mask is None or ARCHS[arch].kind == "encoder"  # a class, not a word for each token
    first, middle, last = expected.split([1, 1, 1] if one_each else mask.sum(1).tolist())
    assert close(logits(arch, model, alone(batch, 1)), middle, tolerance), f"{which}: alone"
    others = regrouped(widened(batch) if "input_ids" in batch else batch)
    assert close(logits(arch, model, others), torch.cat([last, first]), tolerance), (
        f"{which}: other padding and company"
    )
    if ARCHS[arch].kind == "decoder":
        assert close(logits(arch, model, padded_left(batch)), expected, tolerance), f"{which}: left padding"


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
