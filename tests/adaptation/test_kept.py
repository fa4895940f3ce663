"""What is made of an insertion's tensors alone is made once for a KV cache, and never from tensors that have changed since."""

from __future__ import annotations

import copy
import gc
from typing import Any
from weakref import ref

import pytest
import torch
from torch import nn
from transformers import DynamicCache

from tests.support.generating import adapted, generate, prompts, steps
from tests.support.matrix import randomise
from unipet.adaptation.adapted import adaptation
from unipet.calculus.composition.of_weight import Normalise
from unipet.calculus.functions.base import Function

#: Methods whose function makes something of its tensors: a network's output, what rotates, slices of shared tensors.
METHODS = ("prefix", "prefix_flat", "oft", "boft", "hra", "vera", "psoft", "delora")
#: Another, whose composition does: the norms of the weight's rows.
WITH_NORMS = (*METHODS, "dora")


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


@pytest.mark.parametrize("method", WITH_NORMS)
def test_changed_tensors_are_used_at_once(method: str) -> None:
    model, batch = adapted("llama", method), prompts("llama")
    generate(model, batch)
    with torch.no_grad():
        for parameter in adaptation(model).parameters():
            parameter.data.add_(0.1 * torch.randn_like(parameter))  # no version tells of it
    fresh = copy.deepcopy(model)
    assert torch.equal(steps(generate(model, batch)), steps(generate(fresh, batch)))


@pytest.mark.parametrize("method", WITH_NORMS)
@pytest.mark.parametrize("how", ["in place", "another tensor", "a training step", "a step in training mode"])
def test_a_change_in_the_midst_of_a_kv_cache_counts(method: str, how: str) -> None:
    model, batch = adapted("llama", method).eval(), prompts("llama", rows=1)
    first, later = ({"input_ids": batch["input_ids"][:, part]} for part in (slice(0, 4), slice(4, 5)))
    cache = DynamicCache(config=model.config)
    with torch.no_grad():
        for step in (first, later, later):
            logits(model, step, cache)
    before = copy.deepcopy(cache)
    own = list(adaptation(model).parameters())
    if "step" in how:  # a fused optimiser counts no version
        model.train("mode" in how)
        model(**batch).logits.square().sum().backward()
        torch.optim.AdamW(own, lr=0.1, fused=True).step()
        model.eval()
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


def test_norms_are_made_once_and_again_when_the_base_model_changes(monkeypatch: pytest.MonkeyPatch) -> None:
    model, batch, made = adapted("llama", "dora").eval(), prompts("llama", rows=1), []
    before = Normalise.made

    def counted(self: Normalise, own: Any, at: Any) -> Any:
        made.append(at)
        return before(self, own, at)

    monkeypatch.setattr(Normalise, "made", counted)
    item, cache = adaptation(model).items[0], DynamicCache(config=model.config)
    later = {"input_ids": batch["input_ids"][:, 4:5]}
    with torch.no_grad():
        logits(model, {"input_ids": batch["input_ids"][:, :4]}, cache)
        passes = len(made)
        logits(model, later, cache)
        assert passes == len(adaptation(model).items) == len(made)
        assert item.base is not None
        item.base.module.weight.mul_(1.5)
        logits(model, later, cache)
        assert len(made) == passes + 1, "of the one weight that has changed"
        item.base.module.weight = nn.Parameter(item.base.module.weight.clone(), requires_grad=False)
        again = copy.deepcopy(cache)
        assert torch.equal(logits(model, later, cache), logits(copy.deepcopy(model), later, again))
        assert len(made) == passes + 2 + passes


def test_weights_of_the_base_model_are_not_kept_alive() -> None:
    model, batch = adapted("llama", "dora").eval(), prompts("llama", rows=1)
    generate(model, batch)
    module = adaptation(model).items[0].base.module
    weight = ref(module.weight)
    module.weight = nn.Parameter(module.weight.detach().clone(), requires_grad=False)
    gc.collect()
    assert weight() is None
