"""A prefix stands in front of a KV cache while an attention module computes, and nobody else ever finds it there."""

from __future__ import annotations

import copy
import pickle
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import DynamicCache, EncoderDecoderCache
from transformers.cache_utils import DynamicLayer

import unipet
from benchmarks.operators import Operators
from tests.support.generating import adapted, generate, lively, prompts, steps
from tests.support.matrix import randomise, spec_of
from unipet.adaptation import attention, attention_call, ready_prefix
from unipet.adaptation.prefixed_layer import PrefixedLayer

LENGTH = 6


def start(model: Any) -> tuple[Any, int]:
    """The cache of a prompt that has been read, and the prompt's length."""
    batch, cache = prompts("llama", rows=2, length=LENGTH), DynamicCache(config=model.config)
    return model(input_ids=batch["input_ids"], past_key_values=cache, use_cache=True).past_key_values, LENGTH


def step(model: Any, cache: Any, number: int = 1) -> Tensor:
    """The logits after more tokens."""
    rows = cache.layers[0].keys.shape[0]
    tokens = torch.arange(5, 5 + rows * number).view(rows, number)
    found: Tensor = model(input_ids=tokens, past_key_values=cache, use_cache=True).logits
    return found


def half_the_keys(model: Any, cache: Any) -> Any:
    cache.layers[0].keys.mul_(0.5)
    return cache


def crop(model: Any, cache: Any) -> Any:
    cache.crop(-1)
    return cache


def change_rows(model: Any, cache: Any) -> Any:
    cache.batch_select_indices(torch.tensor([1, 0]))
    return cache


def more_rows(model: Any, cache: Any) -> Any:
    cache.batch_repeat_interleave(2)
    return cache


def change_the_prefix(model: Any, cache: Any) -> Any:
    for parameter in trained(model):
        parameter.mul_(0.5)
    return cache


def several_tokens(model: Any, cache: Any) -> Any:
    step(model, cache, 3)
    return cache


def without_the_method(model: Any, cache: Any) -> Any:
    with unipet.disabled(model):
        step(model, cache)
    return cache


def with_gradients(model: Any, cache: Any) -> Any:
    with torch.enable_grad():
        step(model, cache)
    return cache


def copied_and_changed(model: Any, cache: Any) -> Any:
    return half_the_keys(model, copy.deepcopy(cache))


def other_values(model: Any, cache: Any) -> Any:
    for layer in cache.layers:
        layer.values = layer.values * 0.5
    return cache


def nothing(model: Any, cache: Any) -> Any:
    return cache


BETWEEN: list[Callable[[Any, Any], Any]] = [
    nothing,
    half_the_keys,
    crop,
    change_rows,
    more_rows,
    change_the_prefix,
    several_tokens,
    without_the_method,
    with_gradients,
    copied_and_changed,
    other_values,
]


def trained(model: Any) -> list[Tensor]:
    return [parameter for parameter in model.parameters() if parameter.requires_grad]


def put_it_in_front_for_every_token(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(attention, "with_ready_prefix", lambda *given: None)
    monkeypatch.setattr(attention_call, "begin_behind", lambda *given: None)


@pytest.mark.parametrize("tokens", [0, 2])
@pytest.mark.parametrize("implementation", ["sdpa", "eager"])
@pytest.mark.parametrize("between", BETWEEN, ids=lambda one: one.__name__)
@torch.no_grad()
def test_whatever_happens_to_the_cache_between_two_tokens(
    between: Callable[[Any, Any], Any], implementation: str, tokens: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The logits are those of a call that puts the prefix in front for every token."""

    def run() -> tuple[list[Tensor], Any]:
        model = adapted("llama", "prefix", implementation=implementation).eval()
        cache, _ = start(model)
        found = [step(model, cache) for _ in range(tokens)]
        cache = between(model, cache)
        return [*found, step(model, cache), step(model, cache)], cache

    ready, cache = run()
    put_it_in_front_for_every_token(monkeypatch)
    expected, other = run()
    for one, two in zip(ready, expected, strict=True):
        torch.testing.assert_close(one, two, rtol=0, atol=1e-6)
    for own, theirs in zip(cache.layers, other.layers, strict=True):
        assert own.keys.shape == theirs.keys.shape
        torch.testing.assert_close(own.keys, theirs.keys, rtol=0, atol=1e-6)
        torch.testing.assert_close(own.values, theirs.values, rtol=0, atol=1e-6)


@torch.no_grad()
def test_two_adaptations_with_prefixes_share_a_cache_and_not_their_prefixes() -> None:
    model = lively("llama").eval()
    for name in ("one", "two"):
        unipet.adapt(model, spec_of("prefix"), name=name)
    randomise(model, 0.3)
    cache, _ = start(model)
    found = []
    for name in ("one", "one", "two", "two", "one"):
        unipet.use(model, name)
        apart = copy.deepcopy(cache)
        for layer in apart.layers:  # one that nobody has seen
            layer.keys, layer.values = layer.keys.clone(), layer.values.clone()
        found.append((step(model, cache), step(model, apart)))
    for one, two in found:
        torch.testing.assert_close(one, two, rtol=0, atol=1e-6)


@pytest.mark.parametrize("arch", ["llama", "gpt2", "bart"])
@torch.no_grad()
def test_a_token_copies_the_cache_once(arch: str) -> None:
    """As the base model does, from the first on: counted, not timed."""

    def copies(model: Any) -> int:
        counts = []
        for new in (1, 6):
            with Operators() as operators:
                generate(model.eval(), prompts(arch), new=new)
            counts.append(sum(count for name, count in operators.counts.items() if "cat" in str(name)))
        return counts[1] - counts[0]

    assert copies(adapted(arch, "prefix")) == copies(lively(arch)) > 0


@torch.no_grad()
def test_nothing_of_a_cache_outlives_it_and_nothing_of_ours_is_stored_with_it(tmp_path: Path) -> None:
    model = adapted("llama", "prefix").eval()
    cache, _ = start(model)
    assert all(type(layer) is PrefixedLayer for layer in cache.layers), "the prompt is behind it"
    step(model, cache), step(model, cache)
    assert all(type(layer) is PrefixedLayer for layer in cache.layers)
    whole = [weakref.ref(each) for layer in cache.layers for each in layer._whole]
    torch.save([(layer.keys, layer.values) for layer in cache.layers], tmp_path / "cache")
    for (keys, values), layer in zip(torch.load(tmp_path / "cache", weights_only=True), cache.layers, strict=True):
        assert torch.equal(keys, layer.keys) and torch.equal(values, layer.values)
    stored = pickle.loads(pickle.dumps(cache))
    for other in (copy.deepcopy(cache), stored):
        assert all(type(layer) is DynamicLayer for layer in other.layers)
        assert other.get_seq_length() == cache.get_seq_length() == LENGTH + 2
    other = copy.deepcopy(model)
    torch.testing.assert_close(step(other, stored), step(model, cache))
    del cache, layer, keys, values
    assert all(one() is None for one in whole)


@pytest.mark.parametrize("tokens", [1, 3])
@torch.no_grad()
def test_keys_of_cross_attention_are_kept_as_long_as_they_are(tokens: int) -> None:
    model = adapted("bart", "prefix").eval()
    batch = prompts("bart")
    encoded = model.get_encoder()(input_ids=batch["input_ids"])
    cache = EncoderDecoderCache(DynamicCache(), DynamicCache())
    for token in range(tokens):
        ids = torch.full((len(batch["input_ids"]), 1), 5 + token)
        cache = model(encoder_outputs=encoded, decoder_input_ids=ids, past_key_values=cache).past_key_values
    sites = [module._unipet_heads for module in model.modules() if hasattr(module, "_unipet_heads")]
    kept = [site.cross_keys for site in sites if site.cross_keys is not None]
    assert len(kept) == len(cache.cross_attention_cache.layers) > 0
    assert all(type(layer) is PrefixedLayer for layer in cache.self_attention_cache.layers)
    assert all(type(layer) is DynamicLayer for layer in cache.cross_attention_cache.layers)
    del cache
    assert all(site.cross_keys is None for site in sites)


@pytest.mark.parametrize("part", ["keys", "values"])
@pytest.mark.parametrize("replaced", [True, False])
@torch.no_grad()
def test_changed_keys_or_values_of_cross_attention_are_read(
    part: str, replaced: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    def run() -> Tensor:
        model = adapted("bart", "prefix").eval()
        batch = prompts("bart")
        encoded, cache = model.get_encoder()(input_ids=batch["input_ids"]), None
        for token in range(4):
            ids = torch.full((len(batch["input_ids"]), 1), 5 + token)
            found = model(encoder_outputs=encoded, decoder_input_ids=ids, past_key_values=cache)
            cache = found.past_key_values
            for layer in cache.cross_attention_cache.layers if token == 2 else ():
                if replaced:
                    setattr(layer, part, getattr(layer, part) * 0.5)
                else:
                    getattr(layer, part).mul_(0.5)
        logits: Tensor = found.logits
        return logits

    ready = run()
    put_it_in_front_for_every_token(monkeypatch)
    torch.testing.assert_close(ready, run(), rtol=0, atol=1e-6)


@pytest.mark.parametrize("arch", ["llama", "bart"])
def test_inference_mode_generates_the_same(arch: str) -> None:
    model = adapted(arch, "prefix").eval()
    expected = steps(generate(model, prompts(arch), new=6))
    with torch.inference_mode():
        assert torch.equal(steps(generate(model, prompts(arch), new=6)), expected)


@torch.no_grad()
def test_another_model_finds_no_prefix_in_the_cache() -> None:
    model = adapted("llama", "prefix").eval()
    cache, _ = start(model)
    step(model, cache), step(model, cache)
    same, bare = copy.deepcopy(cache), lively("llama").eval()
    torch.testing.assert_close(step(bare, cache), step(bare, same), rtol=0, atol=0)
    assert all(type(layer) is DynamicLayer for layer in cache.layers)


@torch.no_grad()
def test_a_pass_that_failed_leaves_nothing_before_the_next(monkeypatch: pytest.MonkeyPatch) -> None:
    model = adapted("llama", "prefix").eval()
    cache, _ = start(model)
    step(model, cache), step(model, cache)
    sites = [module._unipet_heads for module in model.modules() if hasattr(module, "_unipet_heads")]

    def fails(layer: Any, *given: Any) -> None:
        assert layer._site().goes_on_with(layer._prefix, layer._cache())
        raise MemoryError

    monkeypatch.setattr(PrefixedLayer, "update", fails)
    with pytest.raises(MemoryError):
        step(model, cache)
    monkeypatch.undo()
    assert all(site.inside is None for site in sites) and sites[0].insertions[0].current.reading is None
    assert cache.get_seq_length() == LENGTH + 2
    fresh, _ = start(model)
    other, _ = start(copy.deepcopy(model))
    torch.testing.assert_close(step(model, fresh), step(copy.deepcopy(model), other))


@torch.no_grad()
def test_a_module_that_asks_its_cache_for_lengths_finds_no_prefix_there() -> None:
    class Asking(torch.nn.Module):
        def forward(self, hidden_states: Tensor, past_key_values: Any = None) -> Any:
            return past_key_values.get_seq_length(), hidden_states

    class Silent(torch.nn.Module):
        def forward(self, hidden_states: Tensor, past_key_values: Any = None) -> Any:
            return past_key_values.update(hidden_states, hidden_states, 0)

    assert not ready_prefix.may_read_cache(Asking()) and ready_prefix.may_read_cache(Silent())
