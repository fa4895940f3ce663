"""What is made of an insertion's tensors alone is made once for a KV cache, and never from tensors that have changed since."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from transformers import DynamicCache

from tests.support.generating import adapted, generate, prompts, steps
from tests.support.matrix import randomise
from unipet.adaptation.adapted import adaptation
from unipet.calculus.functions.base import Function

#: Methods whose function makes something of its tensors: a network's output, blocks that rotate, slices of shared tensors.
METHODS = ("prefix", "prefix_flat", "oft", "vera")


def made_of(model: Any) -> type[Function]:
    return type(adaptation(model).items[0].parts.function)


def logits(model: Any, batch: dict[str, torch.Tensor], cache: Any) -> torch.Tensor:
    return model(**batch, past_key_values=cache, use_cache=True).logits[:, -1]  # type: ignore[no-any-return]


@pytest.mark.parametrize("method", METHODS)
def test_generation_makes_it_once_and_not_for_every_token(method: str, monkeypatch: pytest.MonkeyPatch) -> None:
    model, calls = adapted("llama", method), []
    generates = made_of(model).generate

    def counted(self: Function, params: Any, shared: Any, widths: Any) -> Any:
        calls.append(params)
        return generates(self, params, shared, widths)

    monkeypatch.setattr(made_of(model), "generate", counted)
    generate(model, prompts("llama"), new=8)
    assert len(calls) <= 2 * len(adaptation(model).items)  # for the pass that begins, and for the one after it


@pytest.mark.parametrize("method", METHODS)
def test_changed_tensors_are_used_at_once(method: str) -> None:
    model, batch = adapted("llama", method), prompts("llama")
    generate(model, batch)
    with torch.no_grad():
        for parameter in adaptation(model).parameters():
            parameter.data.add_(0.1 * torch.randn_like(parameter))  # no version tells of it
    fresh = copy.deepcopy(model)
    assert torch.equal(steps(generate(model, batch)), steps(generate(fresh, batch)))


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("how", ["in place", "another tensor", "a training step"])
def test_a_change_in_the_midst_of_a_kv_cache_counts(method: str, how: str) -> None:
    model, batch = adapted("llama", method).eval(), prompts("llama", rows=1)
    first, later = ({"input_ids": batch["input_ids"][:, part]} for part in (slice(0, 4), slice(4, 5)))
    cache = DynamicCache(config=model.config)
    with torch.no_grad():
        for step in (first, later, later):
            logits(model, step, cache)
    before = copy.deepcopy(cache)
    own = list(adaptation(model).parameters())
    if how == "a training step":  # a fused optimiser counts no version
        model(**batch).logits.square().sum().backward()
        torch.optim.AdamW(own, lr=0.1, fused=True).step()
    elif how == "in place":
        randomise(model, 0.7)
    else:
        for parameter in own:
            parameter.data = parameter.data * -1.5
    with torch.no_grad():
        assert torch.equal(logits(model, later, cache), logits(copy.deepcopy(model), later, before))


def test_inference_mode_and_gradients_keep_nothing_that_is_stale() -> None:
    model, batch = adapted("llama", "oft").eval(), prompts("llama")
    with torch.inference_mode():
        whole = steps(generate(model, batch))
    assert torch.equal(whole, steps(generate(model, batch)))
    model(**batch).logits.sum().backward()  # what inference mode kept would not do here
    assert all(parameter.grad is not None for parameter in adaptation(model).parameters())
