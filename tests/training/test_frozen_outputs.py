"""Outputs of frozen layers that are kept: the same outputs and gradients as without, on every architecture that allows it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

import unipet
from tests.support.matrix import ARCHS
from unipet.training.frozen_layers import FrozenStack, NotFrozen, frozen_stacks
from unipet.training.frozen_outputs import FrozenOutputs

TEXTS = [name for name, arch in ARCHS.items() if arch.kind in ("encoder", "decoder") and name != "vit"]
BOTH = [name for name, arch in ARCHS.items() if arch.kind == "encoder-decoder"]
WITH_BIAS = {name for name in BOTH if "t5" in name}  # their first layer makes a position bias for all others


PROMPT = {"function": {"name": "prompt", "size": 2}, "position": {"site": "embed"}, "composition": "concat"}


def late(stack: str = "all", **position: Any) -> dict[str, Any]:
    """A method that acts in the last layer alone."""
    place = {"site": ["ffn"], "layers": "last:1", "stack": stack, **position}
    return {"name": "late", "insertions": {"a": {"function": {"name": "low_rank", "size": 3}, "position": place}}}


def adapted(arch: str, method: dict[str, Any]) -> Any:
    model = ARCHS[arch].build()
    unipet.adapt(model, method)
    torch.manual_seed(1)
    for tensor in unipet.parameters(model, head=True).values():
        torch.nn.init.normal_(tensor, 0.0, 0.3)
    return model


def learned(model: Any, arch: str, batch: dict[str, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
    """The logits at real tokens in training mode, and the gradients of a loss. A head's own dropout draws the same each time."""
    model.train()
    model.zero_grad()
    torch.manual_seed(2)
    logits, labels = model(**batch).logits, ARCHS[arch].labels(batch)
    torch.nn.functional.cross_entropy(logits.flatten(0, -2), labels.flatten(), ignore_index=-100).backward()
    gradients = {name: each.grad.clone() for name, each in model.named_parameters() if each.grad is not None}
    return ARCHS[arch].real(batch, logits).detach(), gradients


def some(batch: dict[str, Tensor], rows: list[int]) -> dict[str, Tensor]:
    return {name: value[rows] for name, value in batch.items()}


def assert_the_same_with_kept_outputs(arch: str, method: dict[str, Any]) -> list[FrozenStack]:
    """Filled in other batches than those that train; evaluation to the last bit. Returns the stacks that were kept."""
    model, batch = adapted(arch, method), ARCHS[arch].batch(6, 9)
    stacks = frozen_stacks(model, batch, "fp32")
    mixed = some(batch, [3, 0, 5])
    logits, gradients = learned(model, arch, mixed)
    model.eval()
    plain = model(**batch).logits
    layers = [layer for stack in stacks for layer in stack.layers]
    outputs, ran = FrozenOutputs(model, stacks, 1e9), list[Any]()
    inner = [next(module for module in layer.modules() if not list(module.children())) for layer in layers]
    handles = [module.register_forward_hook(lambda *_: ran.append(1)) for module in inner]
    with outputs.in_use():
        outputs.fill([some(batch, [5, 1, 2, 4]), some(batch, [0, 3])], "fp32")
        assert ran
        ran.clear()
        kept_logits, kept_gradients = learned(model, arch, mixed)
        assert not ran  # the layers were skipped
        model.eval()
        assert torch.equal(model(**batch).logits, plain)
        ran.clear()
        assert torch.equal(model(**batch).logits, plain)
        assert not ran
    for handle in handles:
        handle.remove()
    assert torch.allclose(kept_logits, logits, atol=1e-5, rtol=1e-5)
    assert kept_gradients.keys() == gradients.keys()
    for name, gradient in gradients.items():
        assert torch.allclose(kept_gradients[name], gradient, atol=1e-6, rtol=1e-4), name
    assert all("forward" not in vars(layer) for layer in layers)  # nothing is left behind
    assert torch.equal(model(**batch).logits, plain)
    return stacks


@pytest.mark.parametrize("arch", TEXTS)
def test_one_stack(arch: str) -> None:
    (stack,) = assert_the_same_with_kept_outputs(arch, late())
    assert len(stack.layers) == stack.depth - 1


@pytest.mark.parametrize("arch", BOTH)
def test_an_encoder_below_a_decoder_that_trains(arch: str) -> None:
    stacks = {stack.name: stack for stack in assert_the_same_with_kept_outputs(arch, late("decoder"))}
    assert stacks.keys() == ({"encoder"} if arch in WITH_BIAS else {"encoder", "decoder"})
    assert len(stacks["encoder"].layers) == stacks["encoder"].depth


def test_a_head_alone() -> None:
    """Every layer is frozen."""
    (stack,) = assert_the_same_with_kept_outputs("bert", {"name": "head", "insertions": {}, "unfreeze": ["head"]})
    assert len(stack.layers) == stack.depth


@pytest.mark.parametrize(
    "method",
    [
        late(layers="all"),
        {**late(), "unfreeze": ["bias"]},
        {**late(), "unfreeze": ["embeddings"]},
        {"name": "p", "insertions": {"a": PROMPT}},
    ],
    ids=["first layer", "biases", "embeddings", "virtual tokens"],
)
def test_nothing_is_kept_where_the_first_layer_depends_on_what_trains(method: dict[str, Any]) -> None:
    model = adapted("bert", method)
    with pytest.raises(NotFrozen, match="trainable tensors act in the first layer"):
        frozen_stacks(model, ARCHS["bert"].batch(), "fp32")


def test_position_biases_are_handed_from_layer_to_layer() -> None:
    """T5's decoder alone: its layers read a bias that the first one makes."""
    arch = replace(ARCHS["t5"], options={**ARCHS["t5"].options, "num_layers": 2})
    model = arch.build()
    unipet.adapt(model, late("encoder"))
    with pytest.raises(NotFrozen, match="the layers of the encoder hand each other more than hidden states"):
        frozen_stacks(model, arch.batch(), "fp32")


def test_dropout_is_named_and_its_draws_are_left_alone() -> None:
    arch = replace(ARCHS["bert"], options={**ARCHS["bert"].options, "hidden_dropout_prob": 0.1})
    model = arch.build()
    unipet.adapt(model, late())
    before = torch.get_rng_state()
    with pytest.raises(NotFrozen, match=r"random in training \(hidden_dropout_prob=0.1\). Set model.dropout=0"):
        frozen_stacks(model, arch.batch(), "fp32")
    assert torch.equal(torch.get_rng_state(), before)
    assert not model.training


def test_padding_on_the_left_and_generation_run_as_they_are() -> None:
    model, batch = adapted("llama", late()), ARCHS["llama"].batch(3, 7)
    stacks = frozen_stacks(model, batch, "fp32")
    text = {"input_ids": batch["input_ids"][:1], "attention_mask": batch["attention_mask"][:1]}
    said = model.generate(**text, max_new_tokens=6, do_sample=False, pad_token_id=0)
    flipped = {name: value.flip(1) for name, value in batch.items()}
    model.train()
    plain = model(**flipped).logits
    outputs = FrozenOutputs(model, stacks, 1e9)
    with outputs.in_use():
        outputs.fill([flipped, batch], "fp32")
        assert outputs.bytes == int(batch["attention_mask"].sum()) * 32 * 4  # none of the flipped ones
        assert torch.equal(model(**flipped).logits, plain)
        model.eval()
        for _ in range(2):
            assert torch.equal(model.generate(**text, max_new_tokens=6, do_sample=False, pad_token_id=0), said)


def test_evaluation_keeps_no_more_than_the_limit() -> None:
    model, batch = adapted("bert", late()), ARCHS["bert"].batch(4, 6)
    outputs = FrozenOutputs(model, frozen_stacks(model, batch, "fp32"), 4 * 6 * 32 * 4)
    with outputs.in_use():
        for rows in ([0, 1, 2, 3], [1, 0, 3, 2]):
            model(**some(batch, rows))
    assert outputs.bytes == 4 * 6 * 32 * 4


def test_an_insertion_that_writes_into_the_stream_leaves_kept_outputs_alone() -> None:
    method = {
        "name": "stream",
        "insertions": {
            "a": {"function": {"name": "low_rank", "size": 3}, "position": {"site": "layer", "layers": "last:1"}}
        },
    }
    assert_the_same_with_kept_outputs("llama", method)
    method["insertions"]["a"]["position"]["site"] = "attn.post"
    assert_the_same_with_kept_outputs("llama", method)
