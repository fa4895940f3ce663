"""Two forward passes before one backward pass, under gradient checkpointing: each pass keeps its own masks, sizes and routes.

Checkpointing runs a layer again during the backward pass, after later passes of the model. What that layer's insertions are
told must be what they were told when the layer first ran.
"""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

import unipet
from tests.support.architectures import ARCHS
from tests.support.matrix import assert_same_gradients, randomise, with_loss
from unipet.adaptation.adapted import adaptation

BOTTLENECK = {"function": {"name": "bottleneck", "size": 3}, "position": {"site": "ffn", "form": "sequential"}}
LOW_RANK = {"function": {"name": "low_rank", "size": 3}, "position": "attn.q"}
PREFIX = {"function": {"name": "prefix", "size": 3}, "position": "attn.heads", "composition": "gated"}
METHODS: dict[str, dict[str, Any]] = {
    "pooled gate": {**LOW_RANK, "scaling": "input_gate"},
    "first tokens": {**LOW_RANK, "position": {"site": "attn.q", "tokens": "first:2"}},
    "last tokens, after a block": {**BOTTLENECK, "position": {**BOTTLENECK["position"], "tokens": "last:2"}},
    "gated prefix for last tokens": {**PREFIX, "position": {"site": "attn.heads", "tokens": "last:2"}},
    "gated prefix with a gate": {**PREFIX, "scaling": "input_gate"},
    "matrix joined to the weight": {**LOW_RANK, "function": {"name": "hadamard_product", "size": 3}},
    "mixture of such matrices": {
        **LOW_RANK,
        "function": {"name": "hadamard_product", "size": 3},
        "mixture": {"experts": 4},
    },
    "mixture": {**BOTTLENECK, "mixture": {"experts": 4}},
    "mixture of prefixes": {**PREFIX, "mixture": {"experts": 4}},
    "mixture with a gate": {**LOW_RANK, "mixture": {"experts": 4, "router": "learned", "noise": 1.0}},
    "mixture with a route for each token": {**LOW_RANK, "mixture": {"experts": 4, "router": "per_token"}},
    "mixture with a route for each example": {**LOW_RANK, "mixture": {"experts": 4, "router": "per_example"}},
}
PROMPT = {"function": {"name": "prompt", "size": 2}, "position": "embed", "composition": "concat"}


def adapted(arch: str, insertions: dict[str, Any], reentrant: bool | None) -> Any:
    """A model in training mode, the same at every call; `reentrant` None: without checkpointing."""
    model = ARCHS[arch].build().double()
    with torch.random.fork_rng():
        torch.manual_seed(0)
        unipet.adapt(model, {"name": "x", "insertions": insertions})
    randomise(model)
    model.train()
    if reentrant is not None:
        model.activation_checkpointing_enable({"use_reentrant": reentrant})
    if reentrant:
        model.enable_input_require_grads()
    return model


def batches(arch: str) -> list[dict[str, Tensor]]:
    """Of two sizes, and two of one size whose masks differ."""
    short, long, other = ARCHS[arch].batch(2, 5), ARCHS[arch].batch(3, 7), ARCHS[arch].batch(3, 7, seed=1)
    return [short, long, {name: tensor.flip(0) if "mask" in name else tensor for name, tensor in other.items()}]


def gradients(arch: str, model: Any, together: bool, driven: bool) -> dict[str, Tensor]:
    """Of the sum of the batches' losses: one backward pass for all of them, or one for each."""
    losses = []
    for step, batch in enumerate(batches(arch)):
        if driven:
            adaptation(model).draw(step, seed=0)
        losses.append(with_loss(arch, model, batch).loss)
        if not together:
            losses.pop().backward()
    if together:
        torch.stack(losses).sum().backward()
    return {name: p.grad for name, p in unipet.parameters(model, head=True).items() if p.grad is not None}


def assert_each_pass_keeps_its_own(arch: str, insertions: dict[str, Any], reentrant: bool, driven: bool) -> None:
    expected = gradients(arch, adapted(arch, insertions, None), together=False, driven=driven)
    found = gradients(arch, adapted(arch, insertions, reentrant), together=True, driven=driven)
    assert any(gradient.abs().max() > 0 for name, gradient in expected.items() if name.startswith("one/"))
    assert_same_gradients(found, expected, 1e-8)


@pytest.mark.parametrize("reentrant", [False, True])
@pytest.mark.parametrize("arch", ["bert", "llama", "bart"])
@pytest.mark.parametrize("name", METHODS)
def test_each_forward_pass_keeps_what_it_told_its_insertions(name: str, arch: str, reentrant: bool) -> None:
    assert_each_pass_keeps_its_own(arch, {"one": METHODS[name]}, reentrant, driven=False)


@pytest.mark.parametrize("reentrant", [False, True])
@pytest.mark.parametrize("arch", ["bert", "bart"])
def test_each_step_keeps_the_routes_that_a_training_loop_drew(arch: str, reentrant: bool) -> None:
    assert_each_pass_keeps_its_own(arch, {"one": METHODS["mixture"]}, reentrant, driven=True)


@pytest.mark.parametrize("reentrant", [False, True])
@pytest.mark.parametrize("arch", ["bert", "llama", "bart"])
def test_a_prompt_of_each_pass_is_where_its_own_rows_begin(arch: str, reentrant: bool) -> None:
    """A gate averages over the user's tokens, which stand around the added ones."""
    insertions = {"one": METHODS["pooled gate"], "prompt": PROMPT}
    assert_each_pass_keeps_its_own(arch, insertions, reentrant, driven=False)


def test_views_belong_to_their_pass() -> None:
    """A pass with two stacked views, then one with one view, then one backward pass."""

    def once(reentrant: bool | None, together: bool) -> dict[str, Tensor]:
        model = adapted("bert", {"one": METHODS["mixture"]}, reentrant)
        inserted, (first, second, _) = adaptation(model), batches("bert")
        inserted.draw(0, seed=0)
        with inserted.views(2):
            loss = model(**{name: torch.cat([value, value]) for name, value in first.items()}).logits.square().sum()
        if not together:
            loss.backward()
            loss = loss.detach()
        (loss + model(**second).logits.square().sum()).backward()
        return {name: p.grad for name, p in unipet.parameters(model).items() if p.grad is not None}

    expected = once(None, together=False)
    for reentrant in (False, True):
        assert_same_gradients(once(reentrant, together=True), expected, 1e-8)


def test_checkpointing_that_begins_after_adapting_or_ends_before_ejecting_leaves_nothing_behind() -> None:
    model = adapted("bert", {"one": METHODS["pooled gate"]}, False)
    functions = functions_of(model)
    with_loss("bert", model, batches("bert")[0]).loss.backward()
    assert functions_of(model) != functions
    unipet.eject(model)
    assert functions_of(model) == functions


def functions_of(model: nn.Module) -> list[Any]:
    """What the layers are checkpointed by."""
    found = [getattr(module, "_gradient_checkpointing_func", None) for module in model.modules()]
    return [function for function in found if function is not None]


def test_what_a_gate_reports_learns_under_checkpointing() -> None:
    def gradient(reentrant: bool | None) -> dict[str, Tensor]:
        model, batch = adapted("bert", {"one": METHODS["mixture with a gate"]}, reentrant), batches("bert")[0]
        adaptation(model).draw(0, seed=0)
        model(**batch)
        torch.cat([use.probabilities_NM[:, 0] for use in adaptation(model).context.uses]).sum().backward()
        return {name: p.grad for name, p in unipet.parameters(model).items() if p.grad is not None}

    expected = gradient(None)
    assert any("router" in name and tensor.any() for name, tensor in expected.items())
    assert_same_gradients(gradient(False), expected, 1e-9)
