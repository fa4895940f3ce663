"""How a prefix stands in its stack: positions and position bias behind it, gates over all positions, and prefixes that the
base model's own projections make."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

import unipet
from tests.support.architectures import ARCHS
from tests.support.oracle_reading import PRESENT, base_model, oracle
from unipet.adaptation.adapted import adaptation
from unipet.calculus.functions.base import Widths
from unipet.calculus.scaling import InputGate, Tokens

SIZE = 4


def method(function: Any = "prefix", composition: Any = "gated", scaling: Any = 1.0, **position: Any) -> dict[str, Any]:
    options = {"name": function} if isinstance(function, str) else function
    one = {
        "function": {"size": SIZE, **options},
        "position": {"site": "attn.heads", **position},
        "composition": composition,
        "scaling": scaling,
    }
    return {"name": "test", "unfreeze": [], "insertions": {"attention": one}}


def adapted(arch: str, spec: dict[str, Any]) -> Any:
    model = ARCHS[arch].build()
    unipet.adapt(model, spec)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in unipet.parameters(model).values():
            parameter.copy_(torch.randn(parameter.shape, generator=generator))
    return model


SHIFTED = {"name": "gated", "shift_positions": True}


@pytest.mark.parametrize("arch", ["gpt2", "opt", "llama", "qwen2", "gpt_neox", "gemma"])
def test_a_prefix_that_is_a_text_s_cache_continues_the_text(arch: str) -> None:
    """Keys and values that the base model computed for a text, with positions behind them, are the text."""
    base, ids = ARCHS[arch].build(), torch.randint(5, 60, (2, SIZE + 5))
    ids[:, :SIZE] = ids[:1, :SIZE]
    expected = base(input_ids=ids).logits[:, SIZE:]
    cache = base(input_ids=ids[:1, :SIZE], use_cache=True).past_key_values
    model = ARCHS[arch].build()
    unipet.adapt(model, method(composition=SHIFTED))
    with torch.no_grad():
        for insertion in adaptation(model).items:
            layer = cache.layers[insertion.site.layer]
            for name, parameter in insertion.bank.named_tensors():
                parameter.copy_((layer.keys if name == "keys" else layer.values)[0].transpose(0, 1).flatten(1))
    assert torch.allclose(model(input_ids=ids[:, SIZE:]).logits, expected, atol=1e-6)
    plain = ARCHS[arch].build()
    unipet.adapt(plain, method())
    with torch.no_grad():
        for name, parameter in unipet.parameters(plain).items():
            parameter.copy_(unipet.parameters(model)[name])
    assert not torch.allclose(plain(input_ids=ids[:, SIZE:]).logits, expected, atol=2e-5)


@pytest.mark.parametrize("arch", ["bert", "roberta", "distilbert"])
def test_an_encoder_s_positions_move_too(arch: str) -> None:
    """As if every position embedding stood `size` rows earlier."""
    model, plain, batch = adapted(arch, method(composition=SHIFTED)), adapted(arch, method()), ARCHS[arch].batch()
    table = next(m for path, m in plain.named_modules() if path.endswith("position_embeddings"))
    with torch.no_grad():
        table.weight.copy_(table.weight.roll(-SIZE, 0))
    found, expected = model(**batch).logits, plain(**batch).logits
    assert torch.allclose(found, expected, atol=1e-6)


@pytest.mark.parametrize("arch", ["gpt2", "llama", "opt", "bart", "mbart", "marian"])
def test_generation_with_moved_positions(arch: str) -> None:
    model, batch = adapted(arch, method(composition=SHIFTED)), ARCHS[arch].batch(rows=1)
    text = {name: batch[name] for name in ("input_ids", "attention_mask")}
    length = {"max_new_tokens": 6, "min_new_tokens": 6, "do_sample": False}
    assert torch.equal(model.generate(**text, **length), model.generate(**text, **length, use_cache=False))


@pytest.mark.parametrize("arch", ["t5", "flan_t5", "mt5"])
def test_generation_with_a_moved_bias(arch: str) -> None:
    spec = method(composition={"name": "gated", "shift_bias": True})
    model, plain, batch = adapted(arch, spec), adapted(arch, method()), ARCHS[arch].batch()
    assert not torch.allclose(model(**batch).logits, plain(**batch).logits, atol=1e-3)
    text = {name: batch[name] for name in ("input_ids", "attention_mask")}
    length = {"max_new_tokens": 6, "min_new_tokens": 6, "do_sample": False}
    assert torch.equal(model.generate(**text, **length), model.generate(**text, **length, use_cache=False))


@pytest.mark.parametrize(
    ("arch", "rule", "message"),
    [
        ("vit", "shift_positions", "no positions"),
        ("bert", "shift_bias", "no relative position bias"),
    ],
)
def test_what_a_stack_does_not_have_cannot_move(arch: str, rule: str, message: str) -> None:
    model = ARCHS[arch].build()
    with pytest.raises(unipet.UnipetError, match=message):
        unipet.adapt(model, method(composition={"name": "gated", rule: True}))
    assert not hasattr(model, "_unipet") and all(p.requires_grad for p in model.parameters())


@pytest.mark.skipif(not PRESENT, reason="no ../shared/oracles beside this checkout (UNIPET_ORACLES)")
@pytest.mark.parametrize("name", ["peft_bart_lm_prefix_2l", "peft_bart_lm_prefix_3l"])
def test_peft_s_prefix_of_an_encoder_decoder(name: str) -> None:
    """Decoder self-attention only; its layer i reads the reference's layer 2i mod L, so that gradients add up there."""
    which = oracle(name)
    model = base_model(which)
    unipet.adapt(model, method({"name": "prefix", "size": 5}, SHIFTED, stack="decoder"))
    table = which.tensors["delta/prefix.decoder_self/embedding"]
    width = 32
    slots: dict[str, slice] = {}
    for insertion in adaptation(model).items:
        assert insertion.site.layer is not None
        count = table.shape[1] // width
        for slot, own in insertion.bank.named_tensors():
            first = (4 * insertion.site.layer % count + (slot == "values")) * width
            slots[f"attention/{insertion.site.name}/{slot}"] = slice(first, first + width)
            with torch.no_grad():
                own.copy_(table[:, first : first + width])
    logits = model(**which.inputs()).logits
    mask = which.tensors["input/valid_mask"].bool()
    assert (logits - which.tensors["out/logits"])[mask].abs().max() <= which.tolerance["out_abs"]
    (logits * which.tensors["probe"]).sum().backward()
    gradient = torch.zeros_like(table)
    for key, parameter in unipet.parameters(model).items():
        assert parameter.grad is not None
        gradient[:, slots[key]] += parameter.grad
    expected = which.tensors["grad/prefix.decoder_self/embedding"]
    assert (gradient - expected).abs().max() <= which.tolerance["grad_abs"]


def test_a_gate_may_average_over_padding() -> None:
    gate = InputGate(pool="all")
    params = {"gate.weight": torch.randn(1, 8), "gate.bias": torch.randn(1)}
    u, real = torch.randn(2, 5, 8), torch.tensor([[1, 1, 1, 0, 0], [1, 1, 1, 1, 1]]).bool()
    expected = torch.sigmoid(u @ params["gate.weight"].T + params["gate.bias"]).mean(1, keepdim=True)
    for causal in (False, True):
        assert not gate.per_token(causal)
        assert torch.allclose(gate.factor(params, 4, u, Tokens.of(real, causal)), torch.as_tensor(expected))
    with pytest.raises(unipet.UnipetError, match="pool: all averages over all tokens"):
        gate.factor(params, 4, u, Tokens.of(real, True, cached=True))
    assert set(gate.slots(Widths(8, 8))) == {"gate"}


def projected(name: str) -> dict[str, Any]:
    return method({"name": "projected_prefix"}, "add", {"name": "learned", "start": 0.0}) | {"name": name}


def by_hand(q_BHTE: Tensor, attention: Any, tokens: Tensor, gate: Tensor) -> Tensor:
    keys, values = (F.linear(tokens, getattr(attention, f"{x}_proj").weight) for x in "kv")
    width = attention.head_dim
    groups = attention.num_key_value_groups
    k, v = (t.view(len(t), -1, width).transpose(0, 1).repeat_interleave(groups, 0) for t in (keys, values))
    weights = (q_BHTE @ k.transpose(-1, -2) * width**-0.5).softmax(-1)
    return gate * (weights @ v).transpose(1, 2).flatten(2)


def test_tokens_through_the_frozen_projections() -> None:
    """g · softmax(q (P W_kᵀ)ᵀ/√E)(P W_vᵀ), added to the heads; nothing at the start."""
    model, batch = ARCHS["llama"].build(), ARCHS["llama"].batch()
    before = model(**batch).logits
    report = unipet.adapt(model, projected("zero"))
    assert report.insertions[0].identity_at_start
    assert torch.equal(model(**batch).logits, before)
    generator = torch.Generator().manual_seed(1)
    own = unipet.parameters(model)
    with torch.no_grad():
        for parameter in own.values():
            parameter.copy_(torch.randn(parameter.shape, generator=generator))
    inserted = adaptation(model).items[0]
    seen: list[tuple[Any, ...]] = []
    handle = inserted.register_forward_hook(lambda module, args, output: seen.append((*args, output)))
    model(**batch)
    handle.remove()
    h, _, heads, output = seen[0]
    attention = model.model.layers[0].self_attn
    path = "attention/model.layers.0.self_attn"
    expected = by_hand(heads.q_BHTE, attention, own[f"{path}/tokens"], own[f"{path}/scale"])
    assert torch.allclose(output - h, expected, atol=1e-5)


@pytest.mark.parametrize("arch", ["bert", "gpt2", "gpt_neox", "llama", "bart", "t5", "gemma"])
@pytest.mark.parametrize("composition", ["add", "gated"])
def test_projected_tokens_are_a_prefix(arch: str, composition: str) -> None:
    """Keys and values that the projections make, as a prefix of its own, compute the same."""
    roles: dict[str, Any] = {"site": ["attn.heads", "cross.heads"], "optional": ["cross.heads"]}
    model = adapted(arch, method({"name": "projected_prefix"}, composition, **roles))
    twin = ARCHS[arch].build()
    unipet.adapt(twin, method({"name": "prefix"}, composition, **roles))
    with torch.no_grad():
        for one, other in zip(adaptation(model).items, adaptation(twin).items, strict=True):
            params = one.params()
            for slot, parameter in other.bank.named_tensors():
                parameter.copy_(params[slot])
    batch = ARCHS[arch].batch()
    found, expected = model(**batch).logits, twin(**batch).logits
    assert torch.allclose(found, expected, atol=1e-5 * max(1.0, expected.abs().max().item()))
    found.square().mean().backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in unipet.parameters(model).values())
