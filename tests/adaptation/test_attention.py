"""attn.heads: the registered attention function computes the papers' gated sums, on every kind of attention."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

import unipet
from tests.support.architectures import ARCHS
from tests.support.attention import Record, own_tensors, recorded, reference, scale_of, visible_to
from tests.support.generating import lively
from tests.support.matrix import close, randomise
from unipet.adaptation.attention import Attention

ARCHITECTURES = ["bert", "gpt2", "gpt_neox", "llama", "mistral", "gemma2", "gemma3", "modernbert", "bart", "t5"]
CASES = [(arch, kind) for arch in ARCHITECTURES for kind in ARCHS[arch].attentions]
#: name -> (scaling, does it scale the keys, too)
GATES = {"plain": (1.0, False), "twice": (2.0, True), "values": ("input_gate", False), "both": ("input_gate", True)}


def method(arch: str, names: list[str], **position: Any) -> dict[str, Any]:
    sites = ["attn.heads", "cross.heads"] if ARCHS[arch].kind == "encoder-decoder" else ["attn.heads"]
    return {
        "name": "test",
        "insertions": {
            name: {
                "function": {"name": "prefix", "size": size, "scale_keys": GATES[name][1]},
                "position": {"site": sites, **position},
                "composition": "gated",
                "scaling": GATES[name][0],
            }
            for size, name in enumerate(names, start=2)
        },
    }


@pytest.mark.parametrize("names", [["plain"], ["plain", "twice", "values", "both"]], ids=["one", "four"])
@pytest.mark.parametrize(("arch", "attention"), CASES)
def test_prefixes_are_gated_sums_per_head(
    arch: str, attention: str, names: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """On grouped heads, fused projections, sliding windows, position biases, capped logits and cross-attention."""
    model, batch = lively(arch, attention=attention), ARCHS[arch].batch(2, 9)
    unipet.adapt(model, method(arch, names))
    randomise(model, std=0.7)
    with recorded(monkeypatch) as calls:
        model(**batch)
    assert len(calls) == (6 if ARCHS[arch].kind == "encoder-decoder" else 2)
    for call in calls:
        real_queries, real_keys = real_tokens(call, batch)
        own = {name: own_tensors(model, name, call.module) for name in names}
        causal = call.module.is_causal or ("decoder_attention_mask" in batch and real_queries.shape[1] == 8)
        scales = {n: scale_of(GATES[n][0], own[n], call.x_BTU, real_queries, causal) for n in names}
        prefixes = [(own[name], scales[name], GATES[name][1], None) for name in names]
        expected = reference(call, prefixes, visible_to(call, real_keys))[real_queries]
        found = call.h_BTHE[real_queries]
        assert close(found, expected)
        probe, tensors = torch.randn_like(found), [t for tensors in own.values() for t in tensors.values()]
        first = torch.autograd.grad((found * probe).sum(), tensors, retain_graph=True)
        second = torch.autograd.grad((expected * probe).sum(), tensors, retain_graph=True)
        assert all(close(one, other) for one, other in zip(first, second, strict=True))


def real_tokens(call: Record, batch: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
    """(B, T) and (B, S) of one call; a decoder's sequence is one token shorter than its encoder's."""
    masks = {mask.shape[1]: mask.bool() for name, mask in batch.items() if name.endswith("attention_mask")}
    return masks[call.q_BHTE.shape[2]], masks[call.k_BGSE.shape[2]]


@pytest.mark.parametrize("attention", ["eager", "sdpa"])
@pytest.mark.parametrize("arch", ["bert", "llama", "t5"])
def test_each_query_sees_the_prefixes_that_its_token_selects(
    arch: str, attention: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Selections may overlap: `first:3` and `last:4` of seven tokens share none, of six or five they share some."""
    model, batch = lively(arch, attention=attention), ARCHS[arch].batch(3, 8)
    spec = method(arch, ["plain", "both"])
    spec["insertions"]["plain"]["position"]["tokens"] = "first:3"
    spec["insertions"]["both"]["position"]["tokens"] = "last:4"
    unipet.adapt(model, spec)
    randomise(model, std=0.7)
    with recorded(monkeypatch) as calls, torch.no_grad():
        model(**batch)
    for call in calls:
        real_queries, real_keys = real_tokens(call, batch)
        own = {name: own_tensors(model, name, call.module) for name in GATES if name in spec["insertions"]}
        causal = call.module.is_causal or ("decoder_attention_mask" in batch and real_queries.shape[1] == 7)
        s = scale_of("input_gate", own["both"], call.x_BTU, real_queries, causal)
        place, count = torch.arange(real_queries.shape[1]), real_queries.sum(1, keepdim=True)
        prefixes = [(own["plain"], 1.0, False, place < 3), (own["both"], s, True, place >= count - 4)]
        prefixes = [(*prefix[:3], prefix[3].expand_as(real_queries)) for prefix in prefixes]
        expected = reference(call, prefixes, visible_to(call, real_keys))
        assert close(call.h_BTHE[real_queries], expected[real_queries])


@pytest.mark.parametrize("attention", ["eager", "sdpa"])
def test_no_mask_means_to_the_wrapper_what_it_means_to_the_wrapped(attention: str) -> None:
    """sdpa: causal from the first key (so that a static cache's empty slots are hidden), all for one query; eager: all."""
    model = lively("llama", attention=attention)
    unipet.adapt(model, method("llama", ["plain"]))
    with torch.no_grad():
        for name, parameter in unipet.parameters(model).items():
            parameter.fill_(-1e4 if name.endswith("keys") else 0.0)  # a prefix that takes no mass
    module, wrapped = model.model.layers[0].self_attn, Attention(attention)
    plain = wrapped._inner(module)
    for queries, keys in [(3, 7), (1, 7), (5, 5)]:
        q, k, v = torch.rand(2, 4, queries, 8), torch.rand(2, 2, keys, 8), torch.rand(2, 2, keys, 8)
        expected = plain(module, q, k, v, None, scaling=0.5)[0]
        assert close(wrapped(module, q, k, v, None, scaling=0.5)[0], expected)


@pytest.mark.parametrize("arch", ["bert", "gpt2", "bart", "t5"])
def test_changing_the_implementation_afterwards_is_an_error(arch: str) -> None:
    model, batch = ARCHS[arch].build(), ARCHS[arch].batch()
    unipet.adapt(model, method(arch, ["plain"]))
    model(**batch)
    model.set_attn_implementation("eager")
    with pytest.raises(unipet.UnipetError, match=r"changed after `adapt`.*eject.*set_attn_implementation.*adapt"):
        model(**batch)


def everything(model: nn.Module) -> dict[str, Any]:
    return {
        "hooks": [name for name, m in model.named_modules() if m._forward_hooks or m._forward_pre_hooks],
        "grad": [p.requires_grad for p in model.parameters()],
        "marks": [name for name, m in model.named_modules() if any("unipet" in key for key in vars(m))],
    }


def test_what_cannot_be_wrapped_is_refused_before_any_change() -> None:
    model = ARCHS["gpt2"].build()
    model.config._attn_implementation = "flex_attention"
    before = everything(model)
    with pytest.raises(unipet.UnipetError, match=r"'flex_attention' of GPT2Config.*'sdpa' or 'eager'"):
        unipet.adapt(model, "mam")
    assert everything(model) == before and model.config._attn_implementation == "flex_attention"
    unipet.adapt(model, "lora")  # needs no attention function


class OwnAttention(nn.Module):
    """An attention module of somebody's own, which transformers' interface never sees."""

    def __init__(self, inner: nn.Module):
        super().__init__()
        self.inner, self.config = inner, inner.config

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        return self.inner(*args, **kwargs)


def test_attention_outside_the_interface_is_refused() -> None:
    model = ARCHS["llama"].build()
    model.model.layers[1].self_attn = OwnAttention(model.model.layers[1].self_attn)
    before = everything(model)
    with pytest.raises(unipet.UnipetError, match=r"layers\.1\.self_attn \(OwnAttention\).*AttentionInterface"):
        unipet.adapt(model, method("llama", ["plain"]))
    assert everything(model) == before and model.config._attn_implementation == "sdpa"
