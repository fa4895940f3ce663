"""Base models whose linear weights are stored in 8 or 4 bits: everything works on them but folding."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import unipet
from tests.support.architectures import ARCHS
from tests.support.generating import generate, lively, prompts, steps
from tests.support.matrix import close, randomise, same_bits
from unipet.adaptation.fingerprint import fingerprint

#: Which linear modules are quantised: all but the heads, as transformers does.
HEADS = ("lm_head", "classifier", "pooler")
Dequantise = Callable[[Any], Tensor]


def library(name: str) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what a library warns of when it is imported is its own business
        return pytest.importorskip(name, reason=f"{name} is not installed: pip install unipet[quantised]")


def with_torchao(model: nn.Module, config: str, **options: Any) -> Dequantise:
    quantization = library("torchao.quantization")
    made = getattr(quantization, config)(**options)
    wanted = lambda module, name: type(module) is nn.Linear and not name.endswith(HEADS)  # noqa: E731
    quantization.quantize_(model, made, filter_fn=wanted)
    return lambda module: module.weight.dequantize()


def int8(model: nn.Module) -> Dequantise:
    return with_torchao(model, "Int8WeightOnlyConfig")


def int4(model: nn.Module) -> Dequantise:
    granularity = library("torchao.quantization.granularity").PerGroup(8)
    return with_torchao(model, "IntxWeightOnlyConfig", weight_dtype=torch.int4, granularity=granularity)


def with_bitsandbytes(model: nn.Module, make: Callable[[nn.Linear], nn.Module]) -> None:
    for name, module in list(model.named_modules()):
        if type(module) is nn.Linear and not name.endswith(HEADS):
            new = make(module)
            new.load_state_dict(module.state_dict())
            parent, _, leaf = name.rpartition(".")
            setattr(model.get_submodule(parent), leaf, new.to("cpu"))  # quantises
    model.eval()


def bnb8(model: nn.Module) -> Dequantise:
    bnb = library("bitsandbytes")
    options = {"has_fp16_weights": False}
    with_bitsandbytes(
        model,
        lambda old: bnb.nn.Linear8bitLt(old.in_features, old.out_features, bias=old.bias is not None, **options),
    )
    scale = lambda m: m.state.SCB if m.state.SCB is not None else m.weight.SCB  # noqa: E731
    return lambda module: module.weight.data.float() * scale(module).unsqueeze(1) / 127


def bnb4(model: nn.Module) -> Dequantise:
    bnb = library("bitsandbytes")

    def make(old: nn.Linear) -> nn.Module:
        options = {"compute_dtype": old.weight.dtype, "quant_type": "nf4", "bias": old.bias is not None}
        made = bnb.nn.Linear4bit(old.in_features, old.out_features, **options)
        made.support_avx512bf16_for_cpu = False  # that path takes no layer narrower than a block of 64, as these are
        return made  # type: ignore[no-any-return]

    with_bitsandbytes(model, make)
    return lambda module: bnb.functional.dequantize_4bit(module.weight.data, module.weight.quant_state)


KINDS = {"int8": int8, "int4": int4, "bnb8": bnb8, "bnb4": bnb4}
STORED = {"int8": "Int8Tensor", "int4": "IntxUnpackedToInt8Tensor", "bnb8": "int8", "bnb4": "uint8"}
every_kind = pytest.mark.parametrize("kind", KINDS)
METHOD = {
    "name": "test",
    "insertions": {
        "queries": {"function": {"name": "low_rank", "size": 3}, "position": ["attn.q", "ffn.down"], "scaling": 2.0},
        "keys": {"function": "vector", "position": "attn.k", "composition": "multiply"},
        "heads": {"function": {"name": "prefix", "size": 3}, "position": "attn.heads", "composition": "gated"},
        "ffn": {"function": {"name": "bottleneck", "size": 4}, "position": "ffn"},
    },
}


def base(kind: str, arch: str = "llama") -> Any:
    model = lively(arch)
    KINDS[kind](model)
    return model


def adapted(kind: str, arch: str = "llama") -> Any:
    model = base(kind, arch)
    unipet.adapt(model, METHOD)
    randomise(model)
    return model


@every_kind
def test_a_site_adds_to_what_the_quantised_module_computes(kind: str) -> None:
    plain, model, seen = base(kind), adapted(kind), {}
    path = "model.layers.0.self_attn.q_proj"
    model.get_submodule(path).register_forward_hook(lambda m, args, out: seen.update(x=args[0], new=out))
    with torch.no_grad():
        changed = model(**ARCHS["llama"].batch()).logits
        old = plain.get_submodule(path)(seen["x"])
        assert not close(changed, plain(**ARCHS["llama"].batch()).logits, 0.01)
    own = unipet.parameters(model)
    assert all(parameter.dtype == torch.float32 for parameter in own.values())
    down, up = own[f"queries/{path}/down"], own[f"queries/{path}/up"]
    assert close(seen["new"], old + 2.0 * seen["x"] @ down.T @ up.T)


@every_kind
@pytest.mark.parametrize("arch", ["llama", "bart"])
def test_gradients_are_those_of_the_dequantised_model(kind: str, arch: str) -> None:
    model, plain = base(kind, arch), lively(arch)
    dequantise = KINDS[kind](probe := lively(arch))
    for name, module in plain.named_modules():
        if type(module) is nn.Linear and not name.endswith(HEADS):
            module.weight.data = dequantise(probe.get_submodule(name)).detach().clone().float()
    batch, found = ARCHS[arch].batch(), []
    for each in (plain, model):
        with torch.random.fork_rng():
            torch.manual_seed(0)
            unipet.adapt(each, METHOD)
        randomise(each, std=0.1)
        each.train()
        each(**batch, labels=ARCHS[arch].labels(batch)).loss.backward()
        assert all(p.grad is None for name, p in each.named_parameters() if not name.startswith("_unipet"))
        found.append({name: p.grad for name, p in unipet.parameters(each).items()})
    for name, expected in found[0].items():
        assert expected.abs().max() > 0
        assert (found[1][name] - expected).abs().max() <= 1e-3 * expected.abs().max() + 1e-7, name


@every_kind
def test_saving_loading_copying_and_ejecting(kind: str, tmp_path: Path) -> None:
    model, batch = base(kind), ARCHS["llama"].batch()
    with torch.no_grad():
        before, state = model(**batch).logits, {name: p.detach().clone() for name, p in model.named_parameters()}
        unipet.adapt(model, METHOD)
        randomise(model)
        unipet.save(model, tmp_path)
        fresh = base(kind)
        unipet.load(fresh, tmp_path)
        expected = model(**batch).logits
        assert torch.equal(fresh(**batch).logits, expected)
        assert torch.equal(copy.deepcopy(model)(**batch).logits, expected)
        unipet.eject(model)
        assert torch.equal(model(**batch).logits, before)
        integers = {n: p for n, p in model.named_parameters() if type(p.data) is Tensor}
        assert same_bits(integers, {name: state[name] for name in integers})
    other = lively("llama")
    other.model.layers[0].mlp.up_proj.weight.data.mul_(-1)
    KINDS[kind](other)
    with pytest.raises(unipet.UnipetError, match="belongs to another base model"):
        unipet.load(other, tmp_path)


@every_kind
def test_folding_is_refused_with_the_reason(kind: str) -> None:
    model, batch = adapted(kind), ARCHS["llama"].batch()
    why = f"the weight is stored quantised ({STORED[kind]})"
    report = {row.name: row.why_not for row in unipet.describe(METHOD, base(kind)).insertions}
    assert report["queries"] == report["keys"] == why and "attention over a prefix" in str(report["heads"])
    with torch.no_grad():
        expected = model(**batch).logits
        with pytest.raises(unipet.UnipetError, match="cannot be merged") as caught:
            unipet.merge(model)
        assert why in str(caught.value)
        unipet.merge(model, partial=True)
        assert torch.equal(model(**batch).logits, expected)


@every_kind
def test_counts_are_those_of_the_model_that_was_quantised(kind: str) -> None:
    plain, found = unipet.describe(METHOD, lively("llama")), unipet.describe(METHOD, base(kind))
    assert (found.base, found.trainable, found.percent) == (plain.base, plain.trainable, plain.percent)


@every_kind
def test_what_is_quantised_does_not_train(kind: str) -> None:
    model = base(kind, "bert")
    with pytest.raises(unipet.UnipetError, match=r"'all' includes bert\..*stored quantised.*norm, bias"):
        unipet.adapt(model, "full")
    unipet.adapt(model, "bitfit")
    model.train()
    model(**ARCHS["bert"].batch()).logits.sum().backward()
    assert unipet.parameters(model)["bias/bert.encoder.layer.0.intermediate.dense/bias"].grad.abs().max() > 0


def test_quantised_activations_keep_gradients_back_and_say_so() -> None:
    """Such a model serves adapters, but insertions below its first linear module would train nothing in silence."""
    model = lively("llama")
    with_torchao(model, "Int8DynamicActivationInt8WeightConfig")
    unipet.adapt(model, METHOD)
    with torch.no_grad():
        model(**ARCHS["llama"].batch())
    for _ in range(2):
        with pytest.raises(unipet.UnipetError, match=r"Int8Tensor\) passes no gradients.*weights only"):
            model.train()


@every_kind
def test_a_half_precision_quantised_model_generates(kind: str) -> None:
    model = lively("llama").to(torch.bfloat16)
    KINDS[kind](model)
    unipet.adapt(model, METHOD)
    randomise(model, std=0.1)
    assert all(parameter.dtype == torch.float32 for parameter in unipet.parameters(model).values())
    cached, whole = (generate(model, prompts("llama"), new=3, use_cache=flag) for flag in (True, False))
    assert close(steps(cached)[0], steps(whole)[0], 0.05) and steps(cached).isfinite().all()


def test_weights_that_a_library_repacks_while_computing_are_the_same_base_model() -> None:
    """On CPUs with AVX512-BF16 bitsandbytes reorders 4-bit codes and rounds their scales at the first forward pass."""
    bnb = library("bitsandbytes")

    def made(value: float = 0.0) -> Any:
        torch.manual_seed(0)
        old = nn.Linear(64, 64, bias=False)
        with torch.no_grad():
            old.weight[3, 5] += value
        new = bnb.nn.Linear4bit(64, 64, bias=False, compute_dtype=torch.float32, quant_type="nf4")
        new.load_state_dict(old.state_dict())
        return nn.Sequential(new.to("cpu"))

    plain, packed = made(), made()
    layer = packed[0]
    layer.weight.data, layer.weight.quant_state = bnb.functional._convert_weight_packed_for_cpu(
        layer.weight.data, layer.weight.quant_state
    )
    assert fingerprint(packed, ()).same(fingerprint(plain, ()))
    assert not fingerprint(made(0.5), ()).same(fingerprint(plain, ()))
