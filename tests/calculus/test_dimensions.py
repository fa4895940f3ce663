"""The dimensions one by one: what each value computes, against the formula written out."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import unipet
from tests.support.insertions import adapted, method, only, output
from tests.support.tiny import TINY, tiny_batch
from unipet.calculus.functions.base import Heads
from unipet.calculus.functions.prefix import Prefix


def explicit_mixture(
    prefix: Prefix, heads: Heads, own: dict[str, Tensor], scores: Tensor, h: Tensor, delta: Tensor
) -> Tensor:
    """(1-λ)h + λΔ (He et al. 2022, eq. 7-10), λ the prefix's share of the softmax: of Σ exp(q·k/√E) over both."""
    keys = prefix.columns(own, heads.kv_heads, False)[0]
    mass = torch.logsumexp(heads.q_BHTE @ keys.transpose(-1, -2) * heads.factor, dim=-1)
    share = torch.sigmoid(mass - torch.logsumexp(scores, -1)).unsqueeze(-1)
    return (1 - share) * h + share * delta


# -- functions -------------------------------------------------------------------------------------------------------


def test_low_rank_is_two_matrices() -> None:
    model = adapted(method(function={"name": "low_rank", "size": 3}))
    names = unipet.parameters(model)
    assert list(names) == [f"one/encoder.layer.{i}.attention.self.query/{s}" for i in (0, 1) for s in ("down", "up")]
    insertion, x, h = only(model), torch.randn(2, 5, 32), torch.randn(2, 5, 32)
    down, up = list(names.values())[:2]
    assert torch.allclose(insertion(h, x), h + x @ down.T @ up.T, atol=1e-6)


@pytest.mark.parametrize("form", ["parallel", "sequential"])
def test_bottleneck_reads_x_or_h_by_form(form: str) -> None:
    model = adapted(
        method(function={"name": "bottleneck", "size": 3}, position={"site": "ffn", "form": form}, scaling=4.0)
    )
    insertion, x, h = only(model), torch.randn(2, 5, 32), torch.randn(2, 5, 32)
    p = insertion.params()
    u = x if form == "parallel" else h
    inner = torch.relu(u @ p["down.weight"].T + p["down.bias"])
    assert torch.allclose(insertion(h, x), h + 4 * (inner @ p["up.weight"].T + p["up.bias"]), atol=1e-5)


def test_vector_multiplies_by_one_plus_itself() -> None:
    model = adapted(method(function="vector", position="ffn.mid", composition="multiply"))
    insertion, h = only(model), torch.randn(2, 5, 48)
    assert torch.allclose(insertion(h, h), h * (1 + insertion.params()["value"]))


def test_gated_prefix_is_the_explicit_mixture_of_he_et_al() -> None:
    """Prepending keys and values equals (1-λ)h + λΔ, with λ the softmax mass on the prefix (eq. 7-10)."""
    prefix = Prefix(size=5)
    q, k, v = (torch.randn(2, 4, 7, 8, dtype=torch.float64) for _ in range(3))
    params = {slot: torch.randn(5, 32, dtype=torch.float64) for slot in ("keys", "values")}
    heads = Heads(q, 8**-0.5, 4)
    scores = q @ k.transpose(-1, -2) * 8**-0.5
    scores[1, :, :, 5:] = -math.inf  # padding
    h = scores.softmax(-1) @ v
    delta = prefix.delta(heads, params, False).view(2, 7, 4, 8).transpose(1, 2)
    explicit = explicit_mixture(prefix, heads, params, scores, h, delta)
    columns_k, columns_v = (t.expand(2, -1, -1, -1) for t in prefix.columns(params, 4, False))
    joint = torch.cat([q @ columns_k.transpose(-1, -2) * 8**-0.5, scores], -1).softmax(-1)
    assert torch.allclose(explicit, joint @ torch.cat([columns_v, v], 2), atol=1e-12)


@pytest.mark.parametrize("attention", ["eager", "sdpa"])
@pytest.mark.parametrize("scaling", [1.0, 0.5, "learned", "learned_vector", "input_gate"])
def test_the_attention_wrapper_computes_the_explicit_mixture(attention: str, scaling: Any) -> None:
    """The same inside a model, with every scaling, against a recomputation from the layer's own projections."""
    spec = method(function={"name": "prefix", "size": 5}, position="attn.heads", composition="gated", scaling=scaling)
    model = adapted(spec, attention=attention)
    batch, seen = tiny_batch(), {}
    layer = model.encoder.layer[0].attention
    layer.self.register_forward_hook(lambda m, a, kw, out: seen.update(x=a[0], h=out[0]), with_kwargs=True)
    output(model, batch)
    x, insertion = seen["x"], only(model)
    split = [
        m(x).view(*x.shape[:2], 4, 8).transpose(1, 2) for m in (layer.self.query, layer.self.key, layer.self.value)
    ]
    q, k, v = split
    scores = q @ k.transpose(-1, -2) * 8**-0.5
    scores = scores.masked_fill(batch["attention_mask"][:, None, None] == 0, -math.inf)
    p, heads = insertion.params(), Heads(q, 8**-0.5, 4)
    prefix: Any = insertion.parts.function
    insertion.context.mask_BT = batch["attention_mask"].bool()
    s = insertion.factor(x, x)
    delta = (s * prefix.delta(heads, p, False)).view(*x.shape[:2], 4, 8).transpose(1, 2)
    mixed = explicit_mixture(prefix, heads, p, scores, scores.softmax(-1) @ v, delta)
    real = batch["attention_mask"].bool()
    assert torch.allclose(mixed.transpose(1, 2).flatten(2)[real], seen["h"][real], atol=1e-5)


@pytest.mark.parametrize("activation", ["relu", "softmax"])
def test_ungated_prefix_adds_to_the_heads(activation: str) -> None:
    spec = method(function={"name": "prefix", "size": 5, "activation": activation}, position="attn.heads")
    model = adapted(spec)
    q = torch.randn(2, 4, 7, 8)
    p = only(model).params()
    logits = torch.einsum("bhte,lhe->bhtl", q, p["keys"].view(5, 4, 8)) * 8**-0.5
    weights = torch.relu(logits) if activation == "relu" else logits.softmax(-1)
    delta = torch.einsum("bhtl,lhe->bthe", weights, p["values"].view(5, 4, 8)).flatten(2)
    h = torch.randn(2, 7, 32)
    assert torch.allclose(only(model)(h, h, Heads(q, 8**-0.5, 4)), h + delta, atol=1e-5)


def test_reparametrised_prefix_is_the_flat_prefix_that_it_generates() -> None:
    spec = method(
        function={"name": "prefix", "size": 5, "reparam": {"hidden": 6}}, position="attn.heads", composition="gated"
    )
    model = adapted(spec)
    before = output(model)
    assert {"one/shared/tokens", "one/shared/hidden.weight", "one/shared/hidden.bias"} <= set(unipet.parameters(model))
    unipet.merge(model, partial=True)
    assert {name.rsplit("/")[-1] for name in unipet.parameters(model)} == {"keys", "values"}
    assert torch.allclose(output(model), before, atol=1e-6)


# -- scalings --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("scaling", "factor"),
    [(2.5, 2.5), ({"name": "alpha_over_rank", "alpha": 12}, 3.0), ({"name": "alpha_over_sqrt_rank", "alpha": 12}, 6.0)],
)
def test_fixed_scalings(scaling: Any, factor: float) -> None:
    insertion = only(adapted(method(function={"name": "low_rank", "size": 4}, scaling=scaling)))
    assert insertion.factor(torch.zeros(1, 1, 32), torch.zeros(1, 1, 32)) == factor


@pytest.mark.parametrize(("scaling", "shape"), [("learned", (1,)), ("learned_vector", (32,))])
def test_learned_scalings_start_where_told_and_multiply_the_delta(scaling: str, shape: tuple[int, ...]) -> None:
    model = TINY["bert"](head=False)
    unipet.adapt(model, method(scaling={"name": scaling, "start": 3.0}))
    scale = unipet.parameters(model)["one/encoder.layer.0.attention.self.query/scale"]
    assert scale.shape == shape and torch.all(scale == 3.0)
    insertion, x, h = only(model), torch.randn(2, 5, 32), torch.randn(2, 5, 32)
    nn.init.normal_(insertion.params()["up"])
    delta = x @ insertion.params()["down"].T @ insertion.params()["up"].T
    assert torch.allclose(insertion(h, x), h + 3 * delta, atol=1e-5)


# -- compositions and folds ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("form", ["parallel", "sequential"])
@pytest.mark.parametrize("scaling", [0.7, "learned", "learned_vector"])
@pytest.mark.parametrize("composition", ["add", "replace", "multiply"])
@pytest.mark.parametrize("function", ["low_rank", "vector"])
@pytest.mark.parametrize("site", [["attn.q", "attn.v"], ["ffn.down"], ["ffn"], ["norm"], ["ffn.mid"]])
def test_every_fold_equals_what_it_folds(
    site: list[str], function: str, composition: str, scaling: Any, form: str
) -> None:
    """All pairs of the linear values: either the merged model computes the same, or merging says why it cannot."""
    if site == ["ffn.mid"] and form == "parallel" and function == "low_rank":
        with pytest.raises(unipet.UnipetError, match="form"):
            adapted(method(function=function, position={"site": site, "form": form}))
        return
    spec = method(function=function, position={"site": site, "form": form}, composition=composition, scaling=scaling)
    model = adapted(spec)
    before = output(model)
    described = unipet.describe(spec, TINY["bert"](head=False)).insertions[0]
    if not described.foldable:
        with pytest.raises(unipet.UnipetError, match="cannot be merged"):
            unipet.merge(model)
        assert described.why_not
        return
    unipet.merge(model)
    assert torch.allclose(output(model), before, atol=2e-5)


def test_which_pairs_fold() -> None:
    """The derivation itself, spelled out for the cases that a reader would ask about."""

    def foldable(**insertion: Any) -> bool:
        return unipet.describe(method(**insertion), TINY["bert"](head=False)).insertions[0].foldable

    assert foldable() and foldable(scaling="learned_vector")
    assert foldable(position={"site": "ffn.down", "form": "sequential"})
    assert foldable(function="vector", position={"site": "norm"})
    assert foldable(function="vector", position="ffn.mid", composition="multiply")
    assert not foldable(position="ffn")  # parallel to a block: x is not the last projection's input
    assert not foldable(function="bottleneck")
    assert not foldable(composition="multiply")  # quadratic in x
    assert not foldable(scaling="input_gate")
    assert not foldable(position={"site": "attn.q", "tokens": "first:2"})


def test_two_methods_at_one_place_merge_to_what_they_compute() -> None:
    spec = {
        "name": "two",
        "insertions": {
            "first": {"function": "low_rank", "position": "ffn.down"},
            "second": {"function": "vector", "position": "ffn.down", "composition": "multiply"},
            "third": {"function": "low_rank", "position": {"site": "ffn.down", "form": "sequential"}},
            "fourth": {"function": "vector", "position": "ffn.mid", "composition": "multiply"},
        },
    }
    model = adapted(spec)
    before = output(model)
    assert set(unipet.merge(model).values()) == {"folded"}
    assert torch.allclose(output(model), before, atol=2e-5)


def test_folding_never_jumps_over_what_stays() -> None:
    spec = {
        "name": "two",
        "insertions": {
            "stays": {"function": "bottleneck", "position": {"site": "ffn", "form": "sequential"}},
            "after": {"function": "vector", "position": "ffn.down", "composition": "multiply"},
        },
    }
    model = adapted(spec)
    before = output(model)
    summary = unipet.merge(model, partial=True)
    assert "after 'stays'" in summary["after"]
    assert torch.allclose(output(model), before, atol=1e-6)
