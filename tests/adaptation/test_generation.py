"""generate() on adapted models: the KV cache, padding, merging, loading and the selectors change no token."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import unipet
from tests.support.architectures import ARCHS
from tests.support.generating import MODES, NEW, adapted, alone, generate, lively, of_the_base_model, prompts, steps
from tests.support.matrix import METHODS, REASONS, close, model_of, randomise

ROUNDING = 1e-4  # of the largest score, over five steps of another order of float32 additions
GENERATORS = ("gpt2", "llama", "qwen3", "bart", "t5")


def looks_ahead(method: str) -> bool:
    """`last:k` is about the last tokens of what a call sees: the prompt's with a cache, the newest without one."""
    return any(str(one.position.tokens).startswith("last") for one in METHODS[method].insertions)


EVERY = [(m, a) for m in METHODS for a in GENERATORS if REASONS[m, a] is None]
PAIRS = [(m, a) for m, a in EVERY if not looks_ahead(m)]
# Prompts are longer than the window of 4; Gemma alternates it with full attention. Flan-T5's feed-forward block is gated.
PAIRS += [(m, a) for m in ("unipelt", "mam", "lora") for a in ("mistral", "gemma2", "flan_t5")]


def folds(method: str, arch: str) -> bool:
    """Whether the report says that all of it does, and there is something to fold."""
    rows = unipet.describe(METHODS[method], model_of(arch)).insertions
    return bool(rows) and all(row.foldable for row in rows)


@pytest.mark.parametrize(("method", "arch"), PAIRS)
def test_neither_the_cache_nor_padding_nor_company_changes_a_token(method: str, arch: str) -> None:
    model, batch = adapted(arch, method), prompts(arch)
    for mode, options in MODES.items():
        cached, whole = generate(model, batch, **options), generate(model, batch, use_cache=False, **options)
        assert torch.equal(cached.sequences, whole.sequences), mode
        if mode == "beams":
            assert close(cached.sequences_scores, whole.sequences_scores, ROUNDING)
        else:
            assert close(steps(cached), steps(whole), ROUNDING), mode
        if mode == "greedy":
            together = cached
    if all(one.function.reads != "ids" for one in METHODS[method].insertions):  # those know some tokens only
        assert not torch.allclose(together.logits[0], of_the_base_model(arch), atol=0.01), "it does nothing here"
    single = generate(model, alone(batch, 1))
    assert torch.equal(single.sequences[0, -NEW:], together.sequences[1, -NEW:])
    assert close(steps(single)[:, 0], steps(together)[:, 1], ROUNDING)


@pytest.mark.parametrize("method", ["prefix", "unipelt"])
@pytest.mark.parametrize("arch", ["gpt2", "llama", "mistral", "bart", "t5"])
def test_prefix_columns_never_enter_the_cache(arch: str, method: str) -> None:
    batch = prompts(arch)
    cache = generate(adapted(arch, method), batch).past_key_values
    plain = generate(lively(arch), batch).past_key_values
    decoder = ARCHS[arch].kind == "decoder"
    assert cache.get_seq_length() == (6 if decoder else 1) + NEW - 1  # the last token is never read
    parts = [(cache, plain)]
    if not decoder:
        parts = [
            (getattr(cache, name), getattr(plain, name)) for name in ("self_attention_cache", "cross_attention_cache")
        ]
    for found, expected in parts:
        assert len(found.layers) == len(expected.layers) == 2
        for one, other in zip(found.layers, expected.layers, strict=True):
            assert one.keys.shape == other.keys.shape and one.values.shape == other.values.shape


@pytest.mark.parametrize(("method", "arch"), [pair for pair in EVERY if folds(*pair)])
def test_merging_changes_no_token(method: str, arch: str) -> None:
    model, batch = adapted(arch, method).double(), prompts(arch)
    inserted = {mode: generate(model, batch, **options) for mode, options in MODES.items()}
    unipet.merge(model)
    assert not hasattr(model, "_unipet")
    for mode, options in MODES.items():
        merged = generate(model, batch, **options)
        assert torch.equal(merged.sequences, inserted[mode].sequences), mode
        if mode != "beams":
            assert close(steps(merged), steps(inserted[mode]), 1e-7)


@pytest.mark.parametrize(("method", "arch"), [("adamix", "gpt2"), ("adamix_lora", "t5")])
def test_a_mixture_is_one_function_in_generation(method: str, arch: str) -> None:
    """Evaluation averages the experts: no randomness, and baking changes nothing."""
    model, batch = adapted(arch, method), prompts(arch)
    first = generate(model, batch)
    torch.manual_seed(99)
    assert torch.equal(steps(generate(model, batch)), steps(first))
    unipet.merge(model, partial=True)
    assert close(steps(generate(model, batch)), steps(first))


@pytest.mark.parametrize(("method", "arch"), [("unipelt", "llama"), ("mam", "bart"), ("adamix", "t5")])
def test_a_loaded_adapter_generates_the_same(method: str, arch: str, tmp_path: Path) -> None:
    model, batch = adapted(arch, method), prompts(arch)
    unipet.save(model, tmp_path)
    fresh = lively(arch)
    unipet.load(fresh, tmp_path)
    assert torch.equal(steps(generate(fresh, batch)), steps(generate(model, batch)))


@pytest.mark.parametrize("padded", [True, False])
@pytest.mark.parametrize("arch", ["gpt2", "llama", "mistral", "bart", "t5"])
def test_a_static_cache_changes_no_token(arch: str, padded: bool) -> None:
    """Without padding its empty slots are hidden by no mask but by position."""
    model, batch = adapted(arch, "unipelt" if ARCHS[arch].kind == "decoder" else "mam"), prompts(arch)
    if not padded:
        batch = {name: tensor[:1] for name, tensor in batch.items()}
    static, dynamic = generate(model, batch, cache_implementation="static"), generate(model, batch)
    assert torch.equal(static.sequences, dynamic.sequences) and close(steps(static), steps(dynamic))


def one(function: Any, composition: str = "add", scaling: Any = 1.0, **position: Any) -> dict[str, Any]:
    insertion = {"function": function, "position": position, "composition": composition, "scaling": scaling}
    return {"name": "test", "insertions": {"one": insertion}}


PREFIX = {"name": "prefix", "size": 3}


@pytest.mark.parametrize("arch", ["gpt2", "llama", "mistral", "t5"])
@pytest.mark.parametrize("site", ["layer", "attn.heads"])
def test_the_first_tokens_are_the_same_with_and_without_a_cache(site: str, arch: str) -> None:
    heads = site == "attn.heads"
    selected = {"site": site, "tokens": "first:4"}
    spec = one(PREFIX if heads else "vector", "gated" if heads else "add", **selected)
    model, batch = adapted(arch, spec), prompts(arch)
    cached, whole = generate(model, batch), generate(model, batch, use_cache=False)
    assert torch.equal(cached.sequences, whole.sequences) and close(steps(cached), steps(whole))
    assert close(steps(generate(model, alone(batch, 1)))[:, 0], steps(cached)[:, 1]), "padding is not counted"
    everywhere = adapted(arch, one(PREFIX if heads else "vector", "gated" if heads else "add", site=site))
    assert not torch.allclose(steps(generate(everywhere, batch))[-1], steps(cached)[-1], atol=0.01)


def test_the_last_tokens_are_those_of_the_prompt() -> None:
    """What a cache-less pass over prompt and answer computes with the vector added at the prompt's last two tokens."""
    model, batch = adapted("llama", one("vector", site="layer", layers=[0], tokens="last:2")), prompts("llama")
    value = next(iter(unipet.parameters(model).values()))
    found = generate(model, batch)
    plain, added = lively("llama"), torch.zeros(1, 6 + NEW, 1)
    added[:, 4:6] = 1.0
    plain.model.layers[0].register_forward_hook(lambda module, args, out: out + added[:, : out.shape[1]] * value)
    mask = nn.functional.pad(batch["attention_mask"], (0, NEW), value=1)
    positions = (mask.cumsum(1) - 1).clamp(min=0)
    with torch.no_grad():
        logits = plain(input_ids=found.sequences, attention_mask=mask, position_ids=positions).logits
    assert close(steps(found).transpose(0, 1), logits[:, 5 : 5 + NEW])


def test_a_gate_over_the_sequence_says_that_a_cache_hides_it() -> None:
    spec = one("low_rank", scaling={"name": "input_gate", "pool": "sequence"}, site="attn.q")
    model, batch = adapted("llama", spec), prompts("llama")
    assert generate(model, batch, use_cache=False).sequences.shape == (2, 6 + NEW)
    assert generate(model, batch, new=1).sequences.shape == (2, 7), "the first pass sees the whole prompt"
    with pytest.raises(unipet.UnipetError, match=r"KV cache.*use_cache=False.*pool=token"):
        generate(model, batch)


def test_a_gate_of_an_encoder_may_average_while_its_decoder_generates() -> None:
    spec = one("low_rank", scaling={"name": "input_gate", "pool": "sequence"}, site="attn.q", stack="encoder")
    model, batch = adapted("bart", spec), prompts("bart")
    assert torch.equal(generate(model, batch).sequences, generate(model, batch, use_cache=False).sequences)


@pytest.mark.parametrize("position", [{"site": ["cross.k", "cross.v"], "tokens": "first:3"}, {"site": ["cross.k"]}])
@pytest.mark.parametrize("arch", ["bart", "t5"])
def test_beams_repeat_the_encoder_s_tokens(arch: str, position: dict[str, Any]) -> None:
    """Cross-attention's keys run over the encoder's tokens, one row per beam, while the encoder ran once per example."""
    scaling = {"name": "input_gate"} if "tokens" not in position else 1.0
    model, batch = adapted(arch, one("low_rank", scaling=scaling, **position)), prompts(arch)
    for options in MODES.values():
        cached, whole = generate(model, batch, **options), generate(model, batch, use_cache=False, **options)
        assert torch.equal(cached.sequences, whole.sequences)
    states = model.get_encoder()(**batch)
    model.get_encoder()(input_ids=torch.ones(5, 3, dtype=torch.long), attention_mask=torch.ones(5, 3))
    again = generate(model, {"attention_mask": batch["attention_mask"]}, encoder_outputs=states)
    assert torch.equal(again.sequences, generate(model, batch).sequences), "an encoder pass in between leaves its mask"


def test_selecting_tokens_needs_to_know_the_real_ones() -> None:
    model = adapted("llama", one("vector", site="layer", tokens="first:2"))
    with pytest.raises(unipet.UnipetError, match=r"2-D attention_mask.*default cache"):
        generate(model, prompts("llama"), cache_implementation="static")
    with pytest.raises(unipet.UnipetError, match=r"2-D attention_mask, not one of shape \(1, 1, 4, 4\)"):
        model(torch.ones(1, 4, dtype=torch.long), attention_mask=torch.ones(1, 1, 4, 4, dtype=torch.bool).tril())
    gated = adapted("llama", "unipelt")  # a gate per token reads nothing but its token
    ids = prompts("llama")["input_ids"][:1]
    with torch.no_grad():
        triangle = torch.ones(1, 1, 6, 6, dtype=torch.bool).tril()
        assert torch.allclose(gated(ids, attention_mask=triangle).logits, gated(ids).logits, atol=1e-5)


@pytest.mark.parametrize("attention", ["eager", "sdpa"])
@pytest.mark.parametrize("arch", ["gpt2", "llama", "mistral", "gemma3"])
def test_a_cache_may_grow_by_several_tokens_at_once(arch: str, attention: str) -> None:
    model = adapted(arch, "unipelt", attention=attention)
    ids = torch.arange(5, 15)[None]
    with torch.no_grad():
        whole = model(ids).logits
        first = model(ids[:, :4], use_cache=True)
        second = model(ids[:, 4:7], past_key_values=first.past_key_values, use_cache=True)
        third = model(ids[:, 7:], past_key_values=second.past_key_values)
    assert close(torch.cat([first.logits, second.logits, third.logits], 1), whole)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize(
    ("method", "arch"), [("unipelt", "llama"), ("mam", "t5"), ("lora", "gpt2"), ("adamix", "bart")]
)
def test_half_precision_base_models_generate(method: str, arch: str, dtype: torch.dtype) -> None:
    model, batch = lively(arch), prompts(arch)
    unipet.adapt(model, method)
    randomise(model, std=0.05)
    expected = steps(generate(model, batch))
    half = lively(arch).to(dtype)
    unipet.adapt(half, method)
    for name, parameter in unipet.parameters(half).items():
        assert parameter.dtype == torch.float32
        parameter.data.copy_(unipet.parameters(model)[name])
    found = steps(generate(half, batch))
    assert found.isfinite().all() and close(found[0], expected[0], 0.05)
    cached, whole = generate(half, batch, new=2), generate(half, batch, new=2, use_cache=False)
    assert close(steps(cached), steps(whole), 0.05)
