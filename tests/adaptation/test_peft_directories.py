"""peft's directories: what we write, peft loads to the same outputs; what peft wrote, we read to the same parameters."""

from __future__ import annotations

import copy
import json
import warnings
from pathlib import Path
from typing import Any

import peft
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

import unipet
from tests.support.architectures import ARCHS

# peft 0.21 asks transformers by a name that 5.23 deprecates.
pytestmark = pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing:FutureWarning")

QV = {"site": ["attn.q", "attn.v"]}
ALPHA = {"name": "alpha_over_rank", "alpha": 12}
PREFIX = {
    "function": {"name": "prefix", "size": 5},
    "position": "attn.heads",
    "composition": {"name": "gated", "shift_positions": True},
}
TOKENS = {
    "function": {"name": "prompt", "size": 5},
    "position": "embed",
    "composition": {"name": "concat", "after": "start", "keep_outputs": True},
}


def one(function: Any, position: Any = QV, composition: Any = "add", scaling: Any = ALPHA) -> dict[str, Any]:
    return {"function": function, "position": position, "composition": composition, "scaling": scaling}


def method(*insertions: dict[str, Any]) -> dict[str, Any]:
    return {"name": "x", "insertions": {f"part{n}": given for n, given in enumerate(insertions)}}


LOW_RANK = {"name": "low_rank", "size": 4}
INPUT = {"site": "ffn.mid", "form": "sequential"}
#: Written as they are: reading gives every parameter back bit for bit.
DIRECT: dict[str, dict[str, Any]] = {
    "low_rank": method(one(LOW_RANK)),
    "low_rank_root": method(one(LOW_RANK, scaling={"name": "alpha_over_sqrt_rank", "alpha": 12})),
    "low_rank_some_layers": method(one(LOW_RANK, {"site": ["attn.q", "ffn.down"], "layers": [1]})),
    "low_rank_two_insertions": method(one(LOW_RANK), one(LOW_RANK, {"site": "ffn.down", "layers": [0]})),
    "low_rank_bias": method(one({**LOW_RANK, "bias": True})),
    "normalised": method(one(LOW_RANK, composition="normalise")),
    "vectors": method(
        one("vector", {"site": ["attn.k", "attn.v"]}, "multiply", 1.0), one("vector", INPUT, "multiply", 1.0)
    ),
    "random_pair": method(one({"name": "random_low_rank", "size": 4}, {"site": ["attn.q", "ffn.down"]}, scaling=1.0)),
    "hadamard": method(one({"name": "hadamard_product", "size": 4})),
    "kronecker": method(one({"name": "kronecker", "size": 2}, {"site": ["attn.q", "ffn.down"]})),
    "kronecker_both": method(one({"name": "kronecker", "size": 1, "decompose_both": True, "factor": 4})),
    "prefix": method(PREFIX),
    "tokens": method(TOKENS),
}
#: Written as what they amount to.
BAKED: dict[str, dict[str, Any]] = {
    "constant": method(one(LOW_RANK, scaling=0.7)),
    "learned": method(one(LOW_RANK, scaling="learned")),
    "learned_vector": method(one(LOW_RANK, scaling="learned_vector")),
    "learned_vector_hadamard": method(one({"name": "hadamard_product", "size": 4}, scaling="learned_vector")),
    "learned_kronecker": method(one({"name": "kronecker", "size": 2}, scaling="learned")),
    "scaled_pair": method(one({"name": "random_low_rank", "size": 4}, scaling="learned_vector")),
    "diagonal": method(one({**LOW_RANK, "diagonal": True}, scaling={**ALPHA, "epsilon": 1e-5})),
    "frozen_half": method(one({**LOW_RANK, "freeze": ["down"]})),
    "from_start": method(one({**LOW_RANK, "init": "svd", "from_start": True})),
    "from_start_root": method(
        one({**LOW_RANK, "init": "qr", "from_start": True}, scaling={"name": "alpha_over_sqrt_rank", "alpha": 3})
    ),
    "mixture": method({**one(LOW_RANK), "mixture": {"experts": 3, "share": ["up"]}}),
    "network_prefix": method({**PREFIX, "function": {"name": "prefix", "size": 5, "reparam": {"hidden": 6}}}),
}
HAS_NO = {"t5": {"prefix", "tokens", "network_prefix", "low_rank_bias"}, "llama": {"low_rank_bias"}}
#: What peft takes at transposed linear layers, with the sites that are no part of a fused projection.
FUSED = {"low_rank", "low_rank_root", "normalised"}


def cases(table: dict[str, dict[str, Any]]) -> list[Any]:
    found = [(name, arch) for name in table for arch in ("bert", "llama", "t5")]
    return [pytest.param(*case, id="-".join(case)) for case in found if case[0] not in HAS_NO.get(case[1], ())]


def adapted(spec: dict[str, Any], arch: str) -> nn.Module:
    model: nn.Module = ARCHS[arch].build()
    torch.manual_seed(0)  # random starts: some of them lose more to rounding than others
    unipet.adapt(model, spec)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in unipet.parameters(model, head=True).values():
            parameter.add_(torch.randn(parameter.shape, generator=generator) * 0.3)
    return model


def logits(model: Any, arch: str) -> Tensor:
    with torch.no_grad():
        found: Tensor = model(**ARCHS[arch].batch()).logits
    return found


def loaded(directory: Path, arch: str) -> Any:
    """peft's own model from the directory; a key that it misses or does not know is a warning, so an error."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warnings.filterwarnings("ignore", category=DeprecationWarning)
        warnings.filterwarnings("ignore", category=FutureWarning)
        return peft.PeftModel.from_pretrained(ARCHS[arch].build(), str(directory)).eval()


def owned(model: nn.Module) -> dict[str, Tensor]:
    """By module and slot; how the insertions are called does not matter."""
    return {name.split("/", 1)[1]: p for name, p in unipet.parameters(model, head=True).items()}


def close(one: Tensor, other: Tensor) -> bool:
    one, other = one.detach(), other.detach()
    return one.shape == other.shape and torch.allclose(one, other, atol=1e-5 * max(1.0, float(other.abs().max())))


@pytest.mark.parametrize(("name", "arch"), cases({**DIRECT, **BAKED}))
def test_peft_computes_what_we_compute(name: str, arch: str, tmp_path: Path) -> None:
    model = adapted({**DIRECT, **BAKED}[name], arch)
    unipet.export_peft(model, tmp_path)
    theirs = loaded(tmp_path, arch)
    expected = logits(model, arch)
    assert not close(logits(ARCHS[arch].build(), arch)[..., : expected.shape[1], :], expected) or name == "tokens"
    assert close(logits(theirs, arch), expected)
    if name not in ("prefix", "tokens", "network_prefix", "vectors"):
        merged = theirs.merge_and_unload()
        unipet.merge(model)
        ours = dict(model.named_parameters())
        assert all(
            close(p, ours[path.replace(".modules_to_save.default", "")])
            for path, p in merged.named_parameters()
            if ".original_module" not in path
        )


@pytest.mark.parametrize(("name", "arch"), cases(DIRECT))
def test_reading_gives_every_parameter_back(name: str, arch: str, tmp_path: Path) -> None:
    model = adapted(DIRECT[name], arch)
    unipet.export_peft(model, tmp_path)
    again = ARCHS[arch].build()
    report = unipet.import_peft(again, tmp_path)
    assert report.method == "imported"
    first, second = owned(model), owned(again)
    assert first.keys() == second.keys() and all(torch.equal(first[key], second[key]) for key in first)
    assert torch.equal(logits(again, arch), logits(model, arch))


@pytest.mark.parametrize(("name", "arch"), cases(BAKED))
def test_reading_what_it_amounts_to(name: str, arch: str, tmp_path: Path) -> None:
    model = adapted(BAKED[name], arch)
    unipet.export_peft(model, tmp_path)
    again = ARCHS[arch].build()
    unipet.import_peft(again, tmp_path)
    assert close(logits(again, arch), logits(model, arch))


@pytest.mark.parametrize("name", sorted(FUSED))
def test_transposed_and_fused_projections(name: str, tmp_path: Path) -> None:
    """GPT-2's Conv1D, whole: peft has one pair for query, key and value."""
    spec = copy.deepcopy(DIRECT[name])
    spec["insertions"]["part0"]["position"] = {"site": ["attn.qkv", "ffn.down"]}
    model = adapted(spec, "gpt2")
    unipet.export_peft(model, tmp_path)
    assert close(logits(loaded(tmp_path, "gpt2"), "gpt2"), logits(model, "gpt2"))
    again = ARCHS["gpt2"].build()
    unipet.import_peft(again, tmp_path)
    assert torch.equal(logits(again, "gpt2"), logits(model, "gpt2"))


CONFIGS: dict[str, tuple[str, Any]] = {
    "LORA": ("bert", lambda: peft.LoraConfig(r=3, lora_alpha=7, target_modules=["query", "output.dense"])),
    "LORA-seqcls": ("bert", lambda: peft.LoraConfig(r=3, target_modules=["value"], task_type="SEQ_CLS")),
    "LORA-root": ("llama", lambda: peft.LoraConfig(r=3, use_rslora=True, target_modules="all-linear")),
    "LORA-layers": ("llama", lambda: peft.LoraConfig(r=3, target_modules=["q_proj"], layers_to_transform=[1])),
    "DORA": ("llama", lambda: peft.LoraConfig(r=3, use_dora=True, target_modules=["q_proj", "down_proj"])),
    "IA3": (
        "llama",
        lambda: peft.IA3Config(target_modules=["k_proj", "v_proj", "down_proj"], feedforward_modules=["down_proj"]),
    ),
    "VERA": ("llama", lambda: peft.VeraConfig(r=5, target_modules=["q_proj", "down_proj"])),
    "LOHA": ("bert", lambda: peft.LoHaConfig(r=3, alpha=5, target_modules=["query", "output.dense"])),
    "LOKR": (
        "bert",
        lambda: peft.LoKrConfig(r=2, alpha=5, target_modules=["query", "output.dense"], decompose_both=True),
    ),
    "PREFIX": ("llama", lambda: peft.PrefixTuningConfig(num_virtual_tokens=4, task_type="CAUSAL_LM")),
    "TOKENS": ("gpt2", lambda: peft.PromptTuningConfig(num_virtual_tokens=4, task_type="CAUSAL_LM")),
}


@pytest.mark.parametrize("name", CONFIGS)
def test_what_peft_wrote_computes_the_same_here(name: str, tmp_path: Path) -> None:
    arch, config = CONFIGS[name]
    theirs: Any = peft.get_peft_model(ARCHS[arch].build(), config()).eval()
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in theirs.parameters():
            if parameter.requires_grad:
                parameter.add_(torch.randn(parameter.shape, generator=generator) * 0.3)
    theirs.save_pretrained(tmp_path)
    model = ARCHS[arch].build()
    unipet.import_peft(model, tmp_path)
    assert close(logits(model, arch), logits(theirs, arch))
    if name == "VERA":
        with pytest.raises(unipet.UnipetError, match="random projections came from"):
            unipet.save(model, tmp_path / "ours")


@pytest.mark.parametrize(
    ("spec", "match"),
    [
        ("adapter", "function 'bottleneck' is none of peft's"),
        ("compacter", "function 'kronecker_bottleneck' is none of peft's"),
        ("mam", "virtual tokens stand alone"),
        ("unipelt", "virtual tokens stand alone"),
        ("bitfit", "trains parts of the base model .unfreeze: bias"),
        ("head_only", "no insertions"),
        ("fourierft", "is not written for peft: peft draws its frozen part from a seed of its own"),
        ("prefix_flat", "shift_positions: true"),
        (method(one(LOW_RANK, scaling="input_gate")), "the gate depends on the input"),
        (method(one(LOW_RANK, {"site": "attn.q", "tokens": "first:2"})), "some tokens only"),
        (method(one(LOW_RANK, {"site": "ffn.down", "form": "sequential"})), "does not read the input of"),
        (method(one(LOW_RANK, {"site": "ffn"})), "does not read the input of"),
        (
            method(one(LOW_RANK), one({**LOW_RANK, "bias": True}, {"site": "ffn.up"})),
            "part0 and part1 differ in lora_bias",
        ),
        (
            method(one(LOW_RANK), one({"name": "hadamard_product", "size": 2}, {"site": "ffn.up"})),
            "part0 is LORA and part1 LOHA",
        ),
        (method(one(LOW_RANK), one(LOW_RANK)), "carries an insertion already"),
        (method(one(LOW_RANK, composition={"name": "normalise", "detach": False})), "renormalises with detach"),
        (method(one("vector", {"site": "norm"}, "multiply", 1.0)), "no linear layer"),
        (method(one("vector", composition={"name": "multiply", "bias": False}, scaling=1.0)), "scales the bias"),
        (
            method(one({"name": "hadamard_product"}, scaling={"name": "alpha_over_sqrt_rank", "alpha": 1})),
            "no α/√r here",
        ),
        (method({**PREFIX, "position": {"site": "attn.heads", "layers": [0]}}), "for every layer"),
        (method({**TOKENS, "composition": "concat"}), "puts tokens first"),
    ],
)
def test_what_peft_cannot_say(spec: Any, match: str, tmp_path: Path) -> None:
    model = ARCHS["bert"].build()
    unipet.adapt(model, spec)
    with pytest.raises(unipet.UnipetError, match=f"peft cannot express this method: .*{match}"):
        unipet.export_peft(model, tmp_path / "out")
    assert not (tmp_path / "out").exists()


PARTS = {
    "low_rank": method(one(LOW_RANK)),
    "low_rank_three_parts": method(one(LOW_RANK, {"site": ["attn.q", "attn.k", "attn.v"]})),
    "low_rank_root": method(one(LOW_RANK, scaling={"name": "alpha_over_sqrt_rank", "alpha": 12})),
    "low_rank_beside_another_rank": method(one(LOW_RANK, {"site": ["attn.q", "attn.v", "ffn.down"]})),
    "low_rank_bias": method(one({**LOW_RANK, "bias": True}, {"site": "attn.v"})),
    "normalised": method(one(LOW_RANK, composition="normalise")),
    "from_start": method(one({**LOW_RANK, "init": "svd", "from_start": True})),
    "vectors": DIRECT["vectors"],
}


@pytest.mark.parametrize("arch", ["gpt2", "gpt_neox"])
@pytest.mark.parametrize("name", PARTS)
def test_parts_of_a_fused_projection_are_one_adapter_of_the_whole(name: str, arch: str, tmp_path: Path) -> None:
    """Whole thirds of the projection (GPT-2), or a third of every head (GPT-NeoX)."""
    model = adapted(PARTS[name], arch)
    unipet.export_peft(model, tmp_path)
    expected = logits(model, arch)
    assert not close(logits(ARCHS[arch].build(), arch), expected)
    theirs = loaded(tmp_path, arch)
    assert close(logits(theirs, arch), expected)
    again = ARCHS[arch].build()
    unipet.import_peft(again, tmp_path)
    assert close(logits(again, arch), expected)


@pytest.mark.parametrize(
    ("spec", "match"),
    [
        (
            method(one({"name": "random_low_rank", "size": 4}, scaling=1.0)),
            "part of a fused projection, which its VERA",
        ),
        (method(one(LOW_RANK, {"site": "attn.q"}), one(LOW_RANK, {"site": "attn.v"})), "Make them one insertion"),
        (method(one(LOW_RANK), one(LOW_RANK)), "carries an insertion already"),
    ],
)
def test_parts_that_are_no_adapter_of_the_whole(spec: Any, match: str, tmp_path: Path) -> None:
    with pytest.raises(unipet.UnipetError, match=match):
        unipet.export_peft(adapted(spec, "gpt2"), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def changed(directory: Path, **keys: Any) -> None:
    path = directory / "adapter_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **keys}))


@pytest.mark.parametrize(
    ("keys", "match"),
    [
        ({"peft_type": "XLORA"}, "peft_type 'XLORA' cannot be imported"),
        ({"peft_type": "LORRA"}, "Did you mean 'LORA'"),
        ({"use_qalora": True}, "use_qalora: True has no counterpart"),
        ({"rank_pattern": {"query": 3}}, "does not fit this model at"),
        ({"bias": "all"}, "bias: 'all' trains the base model's biases"),
        ({"r": 5}, "does not fit this model"),
        ({"use_dora": True}, "does not fit this model"),
    ],
)
def test_directories_that_say_something_else(keys: dict[str, Any], match: str, tmp_path: Path) -> None:
    unipet.export_peft(adapted(DIRECT["low_rank"], "bert"), tmp_path)
    changed(tmp_path, **keys)
    model = ARCHS["bert"].build()
    before = logits(model, "bert")
    with pytest.raises(unipet.UnipetError, match=match):
        unipet.import_peft(model, tmp_path)
    assert not hasattr(model, "_unipet") and torch.equal(logits(model, "bert"), before)


@pytest.mark.parametrize(
    ("name", "key", "match"),
    [
        ("low_rank", "r", "it does not say r, which a LORA needs"),
        ("low_rank", "lora_alpha", "it does not say lora_alpha, which a LORA needs"),
        ("hadamard", "alpha", "it does not say alpha, which a LOHA needs"),
        ("prefix", "num_virtual_tokens", "it does not say num_virtual_tokens, which a PREFIX_TUNING needs"),
    ],
)
def test_a_configuration_that_lacks_something(name: str, key: str, match: str, tmp_path: Path) -> None:
    unipet.export_peft(adapted(DIRECT[name], "bert"), tmp_path)
    path = tmp_path / "adapter_config.json"
    path.write_text(json.dumps({k: v for k, v in json.loads(path.read_text()).items() if k != key}))
    model = ARCHS["bert"].build()
    with pytest.raises(unipet.UnipetError, match=match):
        unipet.import_peft(model, tmp_path)
    assert not hasattr(model, "_unipet")


@pytest.mark.parametrize("kind", ["PREFIX_TUNING", "CARTRIDGE"])
@pytest.mark.parametrize("columns", [None, 64, 100])
def test_virtual_tokens_of_another_model(kind: str, columns: int | None, tmp_path: Path) -> None:
    unipet.export_peft(adapted(DIRECT["prefix"], "bert"), tmp_path)
    changed(tmp_path, peft_type=kind, **({"num_frozen_tokens": 1} if kind == "CARTRIDGE" else {}))
    tensors = {} if columns is None else {"base_model.prompt_embeddings": torch.zeros(5, columns)}
    heads = {"base_model.classifier.bias": torch.zeros(2), "base_model.classifier.weight": torch.zeros(2, 32)}
    save_file({**heads, **tensors}, tmp_path / "adapter_model.safetensors")
    model = ARCHS["bert"].build()
    with pytest.raises(
        unipet.UnipetError, match="prompt_embeddings are missing" if columns is None else "does not fit"
    ):
        unipet.import_peft(model, tmp_path)
    assert not hasattr(model, "_unipet")


def rewrite(directory: Path, change: Any) -> None:
    """The stored tensors as `change` makes them."""
    path = directory / "adapter_model.safetensors"
    save_file(change(load_file(path)), path)


SHAPES = {
    **{name: DIRECT[name] for name in ("low_rank", "normalised", "vectors", "random_pair", "hadamard", "kronecker")},
    "root": DIRECT["low_rank_root"],
}


@pytest.mark.parametrize("drop", ["layer.1.", "query", "layer.0."])
@pytest.mark.parametrize("name", SHAPES)
def test_every_targeted_module_must_be_there(name: str, drop: str, tmp_path: Path) -> None:
    """Of every type: what the configuration targets and the file lacks is named."""
    unipet.export_peft(adapted(SHAPES[name], "bert"), tmp_path)
    rewrite(tmp_path, lambda found: {key: one for key, one in found.items() if drop not in key})
    model = ARCHS["bert"].build()
    before = {key: value.clone() for key, value in model.state_dict().items()}
    if name == "vectors" and drop == "query":
        unipet.import_peft(model, tmp_path)  # it has none at the query
        return
    with pytest.raises(
        unipet.UnipetError,
        match=r"target_modules: it targets \d+ modules .*the tensors of \d+ are missing: bert\.encoder\.layer",
    ):
        unipet.import_peft(model, tmp_path)
    assert not hasattr(model, "_unipet") and all(p.requires_grad for p in model.parameters())
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())


@pytest.mark.parametrize("name", [*SHAPES, "kronecker_both", "low_rank_bias"])
def test_every_tensor_of_a_module_must_be_there_and_no_other(name: str, tmp_path: Path) -> None:
    unipet.export_peft(adapted({**DIRECT, **SHAPES}[name], "bert"), tmp_path)
    whole = load_file(tmp_path / "adapter_model.safetensors")
    own = [key for key in whole if "layer.1.attention" in key or ("vera_" in key and "lambda" not in key)]
    assert own
    for key in own:
        rewrite(tmp_path, lambda found, key=key: {name: one for name, one in whole.items() if name != key})
        with pytest.raises(unipet.UnipetError, match=r"does not fit this model at|are missing|are not stored"):
            unipet.import_peft(ARCHS["bert"].build(), tmp_path)
    path = own[0].rsplit(".lora_", 1)[0] if "lora_" in own[0] else own[0].rsplit(".", 1)[0]
    for extra in ("lora_B.bias", "lora_magnitude_vector", "lora_E", "hada_t1", "ia3_m"):
        if f"{path}.{extra}" not in whole:
            rewrite(tmp_path, lambda found, extra=extra: {**whole, f"{path}.{extra}": torch.zeros(32)})
            with pytest.raises(unipet.UnipetError, match=r"does not fit this model at|has no place here"):
                unipet.import_peft(ARCHS["bert"].build(), tmp_path)


def test_one_tensor_of_a_module_missing(tmp_path: Path) -> None:
    unipet.export_peft(adapted(DIRECT["low_rank"], "bert"), tmp_path)
    rewrite(
        tmp_path,
        lambda found: {key: one for key, one in found.items() if "layer.1.attention.self.query.lora_B" not in key},
    )
    with pytest.raises(
        unipet.UnipetError, match=r"does not fit this model at bert\.encoder\.layer\.1\.attention\.self\.query"
    ):
        unipet.import_peft(ARCHS["bert"].build(), tmp_path)


@pytest.mark.parametrize(
    ("keys", "match"),
    [
        ({"target_modules": ["query"]}, r"tensors of 2 modules that it does not target: .*self\.value"),
        ({"target_modules": r".*\.(query|value|key)"}, r"the tensors of 2 are missing: .*self\.key"),
        ({"target_modules": r".*\.(query|value"}, "target_modules: .* is no regular expression"),
        (
            {"target_modules": ["query", "value"], "layers_to_transform": [0]},
            "2 modules that it does not target: .*layer.1",
        ),
        ({"exclude_modules": ["query"]}, "2 modules that it does not target: .*query"),
        ({"target_modules": "all-linear"}, "are missing: .*key"),
        ({"target_modules": 5}, "target_modules: 5 given; allowed: a list of module names"),
        ({"target_modules": [1]}, r"target_modules: \[1\] given"),
        ({"target_modules": None}, "it does not say target_modules, which a LORA needs"),
        ({"layers_to_transform": "all", "target_modules": ["query", "value"]}, "layers_to_transform: 'all' given"),
        (
            {"modules_to_save": ["classifier", "bert.pooler"]},
            "modules_to_save: .* bert.pooler.dense.weight.* are missing",
        ),
        ({"modules_to_save": None}, "modules_to_save: it names .*, and not classifier"),
    ],
)
def test_what_the_configuration_targets_is_what_is_stored(keys: dict[str, Any], match: str, tmp_path: Path) -> None:
    unipet.export_peft(adapted(DIRECT["low_rank"], "bert"), tmp_path)
    changed(tmp_path, **keys)
    model = ARCHS["bert"].build()
    with pytest.raises(unipet.UnipetError, match=match):
        unipet.import_peft(model, tmp_path)
    assert not hasattr(model, "_unipet")


@pytest.mark.parametrize(
    "keys",
    [
        {"target_modules": r".*\.(query|value)"},
        {"target_modules": ["query", "value"]},
        {"target_modules": ["query", "value"], "layers_to_transform": [0, 1], "layers_pattern": "layer"},
        {"target_modules": ["self.query", "self.value", "key"], "exclude_modules": r".*\.key"},
    ],
)
def test_peft_and_we_mean_the_same_modules(keys: dict[str, Any], tmp_path: Path) -> None:
    model = adapted(DIRECT["low_rank"], "bert")
    unipet.export_peft(model, tmp_path)
    changed(tmp_path, **keys)
    again = ARCHS["bert"].build()
    unipet.import_peft(again, tmp_path)
    assert torch.equal(logits(again, "bert"), logits(model, "bert"))
    assert close(logits(loaded(tmp_path, "bert"), "bert"), logits(model, "bert"))


def test_a_head_that_is_not_stored_and_tokens_beside_others(tmp_path: Path) -> None:
    unipet.export_peft(adapted(DIRECT["low_rank"], "bert"), tmp_path)
    rewrite(tmp_path, lambda found: {key: one for key, one in found.items() if "classifier" not in key})
    with pytest.raises(
        unipet.UnipetError, match=r"modules_to_save: .*classifier\.weight, classifier\.bias are missing"
    ):
        unipet.import_peft(ARCHS["bert"].build(), tmp_path)
    unipet.export_peft(adapted(DIRECT["tokens"], "bert"), tmp_path / "tokens")
    rewrite(tmp_path / "tokens", lambda found: {**found, "base_model.prompt_encoder.weight": torch.zeros(2)})
    with pytest.raises(unipet.UnipetError, match=r"prompt_encoder\.weight has no place here"):
        unipet.import_peft(ARCHS["bert"].build(), tmp_path / "tokens")


def test_two_names_of_one_tensor(tmp_path: Path) -> None:
    unipet.export_peft(adapted(DIRECT["low_rank"], "bert"), tmp_path)
    rewrite(
        tmp_path,
        lambda found: {**found, "base_model.model.classifier.bias": torch.zeros(2), "classifier.bias": torch.ones(2)},
    )
    with pytest.raises(unipet.UnipetError, match=r"are both classifier\.bias"):
        unipet.import_peft(ARCHS["bert"].build(), tmp_path)


def test_a_base_model_alone_takes_no_weights_over(tmp_path: Path) -> None:
    """Without a head every stored parameter would be one of the base model."""
    unipet.export_peft(adapted(DIRECT["low_rank"], "bert"), tmp_path)
    changed(tmp_path, modules_to_save=None, target_modules=["query", "value"])
    rewrite(
        tmp_path,
        lambda found: {
            key.replace("model.bert.", "model."): one for key, one in found.items() if "classifier" not in key
        },
    )
    alone = ARCHS["bert"].build().bert
    unipet.import_peft(alone, tmp_path)
    unipet.eject(alone)
    rewrite(tmp_path, lambda found: {**found, "base_model.model.pooler.dense.bias": torch.zeros(32)})
    with pytest.raises(unipet.UnipetError, match=r"pooler\.dense\.bias has no place here"):
        unipet.import_peft(alone, tmp_path)


def test_damaged_directories(tmp_path: Path) -> None:
    model = ARCHS["bert"].build()
    with pytest.raises(unipet.UnipetError, match=r"adapter_config\.json is missing"):
        unipet.import_peft(model, tmp_path)
    for place in (tmp_path / "nowhere", Path(__file__)):
        with pytest.raises(unipet.UnipetError, match="is no directory"):
            unipet.import_peft(model, place)
    unipet.export_peft(adapted(DIRECT["low_rank"], "bert"), tmp_path)
    tensors = load_file(tmp_path / "adapter_model.safetensors")
    extra = {"base_model.model.bert.nowhere.lora_A.weight": torch.zeros(2)}
    save_file({**tensors, **extra}, tmp_path / "adapter_model.safetensors")
    with pytest.raises(unipet.UnipetError, match="nowhere"):
        unipet.import_peft(model, tmp_path)
    (tmp_path / "adapter_model.safetensors").write_bytes(b"x")
    with pytest.raises(unipet.UnipetError, match="corrupted"):
        unipet.import_peft(model, tmp_path)
    with pytest.raises(unipet.UnipetError, match="has no place here"):
        other = tmp_path / "other"
        unipet.export_peft(adapted(DIRECT["low_rank"], "llama"), other)
        unipet.import_peft(model, other)
