"""Trained rows of a token embedding, and of the output layer that is tied to it."""

from __future__ import annotations

from typing import Any

import pytest
import torch

import unipet
from tests.support.architectures import ARCHS
from unipet.adaptation.adapted import adaptation

IDS = [9, 7, 30, 2]
TEXT = [name for name, arch in ARCHS.items() if arch.kind != "image"]
BOTH = ["embed.tokens", "head.tokens"]


def method(site: Any = None, ids: Any = IDS, **position: Any) -> dict[str, Any]:
    position = {"site": site or BOTH, "optional": ["head.tokens"] if site is None else False, **position}
    return {
        "name": "test",
        "unfreeze": [],
        "insertions": {"rows": {"function": {"name": "rows", "ids": ids}, "position": position}},
    }


def batch_with_ids(arch: str) -> dict[str, torch.Tensor]:
    batch = ARCHS[arch].batch()
    for name, tensor in batch.items():
        if name.endswith("input_ids"):
            tensor[:, 1], tensor[0, 2] = 9, 30
    return batch


@pytest.mark.parametrize("arch", TEXT)
def test_as_if_the_rows_of_the_weight_were_others(arch: str) -> None:
    """At the embedding and, where it is tied, at the output layer; one tensor for all."""
    model, changed, batch = ARCHS[arch].build(), ARCHS[arch].build(), batch_with_ids(arch)
    with torch.no_grad():  # a position bias that wants a gradient makes sdpa choose another kernel
        before = model(**batch).logits
        unipet.adapt(model, method())
        assert torch.equal(model(**batch).logits, before)
    ((name, rows),) = unipet.parameters(model).items()
    assert name == "rows/shared/rows" and rows.shape == (len(IDS), changed.get_input_embeddings().weight.shape[1])
    with torch.no_grad():
        rows.copy_(torch.randn(rows.shape))
        weights = {id(w): w for w in (changed.get_submodule(i.site.path).weight for i in adaptation(model).items)}
        for weight in weights.values():
            weight[torch.tensor(IDS)] += rows
    found, expected = model(**batch).logits, changed(**batch).logits
    assert (expected - before).abs().max() > 1e-5
    assert torch.allclose(found, expected, atol=1e-6 * max(10.0, expected.abs().max().item()))
    found.square().sum().backward()
    expected.square().sum().backward()
    gradient = sum(weight.grad[torch.tensor(IDS)] for weight in weights.values())
    assert rows.grad is not None
    assert torch.allclose(rows.grad, gradient, rtol=1e-3, atol=1e-4 * max(1.0, gradient.abs().max().item()))


def test_without_the_output_layer_scores_keep_the_base_model_s_rows() -> None:
    model, batch = ARCHS["gpt2"].build(), batch_with_ids("gpt2")
    unipet.adapt(model, method("embed.tokens"))
    with torch.no_grad():
        unipet.parameters(model)["rows/shared/rows"].normal_()
    hidden = model.transformer(**batch).last_hidden_state
    assert torch.equal(model(**batch).logits, hidden @ model.lm_head.weight.T)
    assert [i.site.path for i in adaptation(model).items] == ["transformer.wte"]


@pytest.mark.parametrize("arch", ["gpt2", "bart"])
def test_generation_with_and_without_a_cache(arch: str) -> None:
    model, batch = ARCHS[arch].build(), batch_with_ids(arch)
    unipet.adapt(model, method())
    with torch.no_grad():
        unipet.parameters(model)["rows/shared/rows"].normal_()
    text = {name: batch[name][:1] for name in ("input_ids", "attention_mask")}
    length = {"max_new_tokens": 6, "min_new_tokens": 6, "do_sample": False}
    assert torch.equal(model.generate(**text, **length), model.generate(**text, **length, use_cache=False))


def test_they_do_not_fold() -> None:
    model = ARCHS["bert"].build()
    unipet.adapt(model, method())
    with pytest.raises(unipet.UnipetError, match="a few rows of an embedding"):
        unipet.merge(model)


@pytest.mark.parametrize(
    ("arch", "given", "message"),
    [
        ("bert", {"ids": []}, r"ids: \[\] given; allowed: token ids, each once"),
        ("bert", {"ids": [3, 3]}, r"ids: \[3, 3\] given; allowed: token ids, each once"),
        ("bert", {"ids": [64]}, "64 is no token, the vocabulary has 0-63"),
        ("bert", {"site": "ffn"}, "Use embed.tokens"),
        ("bert", {"site": "head.tokens"}, "Use embed.tokens"),
        ("llama", {"site": BOTH}, "'head.tokens' matches nothing"),
        ("vit", {"site": "embed.tokens"}, "it reads images"),
    ],
)
def test_mistakes(arch: str, given: dict[str, Any], message: str) -> None:
    with pytest.raises(unipet.UnipetError, match=message):
        unipet.adapt(ARCHS[arch].build(), method(**given))


def test_other_functions_there_read_what_the_embedding_yields() -> None:
    spec = method("embed.tokens")
    spec["insertions"]["rows"]["function"] = "low_rank"
    with pytest.raises(unipet.UnipetError, match=r"x is token ids\. Use form: sequential"):
        unipet.adapt(ARCHS["bert"].build(), spec)
