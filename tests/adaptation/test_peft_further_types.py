"""peft's types whose frozen parts, banks or pairs of insertions need more than a renaming: written, loaded by peft, and read."""

from __future__ import annotations

import importlib
import json
import warnings
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import peft
import pytest
import torch
from safetensors.torch import load_file
from torch import nn

import unipet
from tests.adaptation.test_peft_directories import logits, method, one, rewrite
from tests.support.architectures import ARCHS
from unipet.adaptation.adapted import adaptation

# peft 0.21 asks transformers by a name that 5.23 deprecates, builds sparse tensors unchecked, and would like a CUDA extension.
pytestmark = [
    pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing:FutureWarning"),
    pytest.mark.filterwarnings("ignore:Failed to load the CUDA extension:UserWarning"),
    pytest.mark.filterwarnings("ignore:Setting boft_n_butterfly_factor:UserWarning"),
    pytest.mark.filterwarnings("ignore:Sparse invariant checks:UserWarning"),
    pytest.mark.filterwarnings("ignore:fan_in_fan_out is set to False:UserWarning"),
    pytest.mark.filterwarnings("ignore:Specified to not (save|load):UserWarning"),
]

ALL = {"site": ["attn.q", "attn.k", "attn.v", "ffn.up", "ffn.down"]}
MODULES = {
    "bert": ["query", "value", "intermediate.dense", "output.dense"],
    "llama": ["q_proj", "v_proj", "up_proj", "down_proj"],
    "gpt2": ["c_attn", "c_fc", "mlp.c_proj"],
}


def built(arch: str, dtype: torch.dtype = torch.float32) -> nn.Module:
    """A model with weights five times as large as a fresh one's, or what changes them would hardly show; T5's are large."""
    model: nn.Module = ARCHS[arch].build()
    if arch == "t5":
        return model.to(dtype)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.ndim == 2 and "embed" not in name and "wte" not in name and "shared" not in name:
                parameter.mul_(5)
    return model.to(dtype)


def shake(parameters: Iterable[nn.Parameter], noise: float) -> None:
    """Every trained tensor random, far from where it started."""
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in parameters:
            parameter.add_(torch.randn(parameter.shape, generator=generator).to(parameter) * noise)


def adapted(spec: Any, arch: str, dtype: torch.dtype = torch.float32, noise: float = 0.3) -> nn.Module:
    """A model whose trained tensors are random."""
    model = built(arch, dtype)
    torch.manual_seed(0)
    unipet.adapt(model, spec)
    shake(unipet.parameters(model, head=True).values(), noise)
    return model


def loaded(directory: Path, arch: str, dtype: torch.dtype = torch.float32) -> Any:
    """peft's own model; a tensor that it misses or does not know is a warning, and here an error. What all modules share it
    may call missing by a module's own name."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        warnings.filterwarnings("error", message=".*(missing|unexpected|not initialized|Specified to).*")
        warnings.filterwarnings("ignore", message=r"Found missing adapter keys.*\.randlora_[AB]\.default")
        return peft.PeftModel.from_pretrained(built(arch, dtype), str(directory)).eval()


def same(model: Any, other: Any, arch: str, limit: float) -> bool:
    """Whether the outputs are the same, up to this part of their scale, and further from the base model's."""
    dtype = next(model.parameters()).dtype
    own, base, its = logits(model, arch), logits(built(arch, dtype), arch), logits(other, arch)
    scale = max(1.0, float(own.abs().max()))
    most = 100 if dtype == torch.float64 else 3
    assert float((own - base).abs().max()) > most * limit * scale, "it does next to nothing"
    return own.dtype == its.dtype and float((own - its).abs().max()) <= limit * scale


#: In double precision only what is really the same is the same; some of peft's types compute in float32 whatever they are given.
DOUBLE, SINGLE = (torch.float64, 0.5, 1e-9), (torch.float32, 0.05, 3e-5)
Precision = tuple[torch.dtype, float, float]  # the noise, and how much is rounding


def there_and_back(spec: Any, arch: str, directory: Path, *precisions: Precision) -> dict[str, Any]:
    """Export, load with peft, import: the same outputs each time. Returns peft's configuration."""
    for dtype, noise, limit in precisions or (DOUBLE, SINGLE):
        model = adapted(spec, arch, dtype, noise)
        unipet.export_peft(model, directory)
        assert same(model, loaded(directory, arch, dtype), arch, limit)
        again = built(arch, dtype)
        unipet.import_peft(again, directory)
        assert same(model, again, arch, limit)
    config: dict[str, Any] = json.loads((directory / "adapter_config.json").read_text())
    return config


def from_peft(config: Callable[[], Any], arch: str, directory: Path, *precisions: Precision) -> nn.Module:
    """What peft made, trained (random) and saved, imported, with the same outputs."""
    for dtype, noise, limit in precisions or (SINGLE, DOUBLE):
        torch.manual_seed(0)
        theirs: Any = peft.get_peft_model(built(arch, dtype), config()).eval().to(dtype)
        shake((parameter for parameter in theirs.parameters() if parameter.requires_grad), noise)
        theirs.save_pretrained(directory)
        model = built(arch, dtype)
        unipet.import_peft(model, directory)
        assert same(theirs, model, arch, limit)
    return model


def refused(spec: Any, arch: str, directory: Path, words: str) -> None:
    with pytest.raises(unipet.UnipetError, match=f"peft cannot express this method: .*{words}"):
        unipet.export_peft(adapted(spec, arch), directory / "out")
    assert not (directory / "out").exists()


# -- normalised low-rank maps, and projections ------------------------------------------------------------------------

NORMALISED = {"name": "normalised_low_rank", "size": 4, "strength": 3.0}
PROJECTION = {"name": "projection", "size": 4}
IN_FLOAT32 = ((torch.float32, 0.3, 3e-5),)
MADE: dict[str, dict[str, Any]] = {
    "normalised": method(one(NORMALISED, scaling=1.0)),
    "normalised_scaled": method(one(NORMALISED, ALL, scaling=-0.7)),
    "normalised_learned": method(one({**NORMALISED, "size": 1}, scaling="learned")),
    "normalised_ranks": method(
        one(NORMALISED, scaling=1.0), one({**NORMALISED, "size": 2, "strength": 9.5}, {"site": "ffn.down"}, scaling=1.0)
    ),
    "projection": method(one(PROJECTION, scaling=1.0)),
    "projection_scaled": method(one({**PROJECTION, "size": 7}, ALL, scaling=0.4)),
    "projection_orthonormal": method(one({**PROJECTION, "decomposition": "qr"}, ALL, scaling=1.0)),
    "projection_removed": method(one({**PROJECTION, "size": 1, "inject": False}, ALL, scaling=1.0)),
    "projection_removed_orthonormal": method(
        one({**PROJECTION, "decomposition": "qr", "inject": False}, ALL, scaling=1.0)
    ),
}


@pytest.mark.parametrize("arch", ["bert", "llama"])
@pytest.mark.parametrize("name", MADE)
def test_made_maps_there_and_back(name: str, arch: str, tmp_path: Path) -> None:
    there_and_back(MADE[name], arch, tmp_path, *(IN_FLOAT32 if name.startswith("projection") else ()))


def test_a_projection_at_transposed_layers(tmp_path: Path) -> None:
    there_and_back(
        method(one(PROJECTION, {"site": ["attn.qkv", "ffn.down"]}, scaling=1.0)), "gpt2", tmp_path, *IN_FLOAT32
    )


@pytest.mark.parametrize("arch", ["bert", "llama"])
@pytest.mark.parametrize(
    "make",
    [
        pytest.param(lambda m: peft.DeloraConfig(r=3, target_modules=m), id="normalised"),
        pytest.param(
            lambda m: peft.DeloraConfig(
                r=3, delora_lambda=7, target_modules=m, rank_pattern={m[0]: 2}, lambda_pattern={m[1]: 2.5}
            ),
            id="normalised_patterns",
        ),
        pytest.param(lambda m: peft.DeftConfig(r=3, target_modules=m), id="projection"),
        pytest.param(lambda m: peft.DeftConfig(r=3, alpha=5, target_modules=m), id="projection_alpha"),
        pytest.param(
            lambda m: peft.DeftConfig(r=3, decomposition_method="qr", para=True, target_modules=m),
            id="projection_removed",
        ),
        pytest.param(lambda m: peft.DeftConfig(r=34, alpha=5, target_modules=m), id="projection_wider_than_some"),
        pytest.param(lambda m: peft.DeftConfig(r=3, init_weights=False, target_modules=m), id="projection_random"),
    ],
)
def test_made_maps_that_peft_wrote(make: Callable[[list[str]], Any], arch: str, tmp_path: Path) -> None:
    model = from_peft(lambda: make(MODULES[arch]), arch, tmp_path, SINGLE)
    assert adaptation(model).unsavable is None  # nothing in it was drawn


@pytest.mark.parametrize(
    ("spec", "words"),
    [
        (one(NORMALISED, scaling="learned_vector"), "part0: peft has no scale per channel here"),
        (one(PROJECTION, scaling="learned_vector"), "part0: peft has neither a scale per channel nor one below zero"),
        (one(PROJECTION, scaling=-1.0), "one below zero here"),
        (one({**PROJECTION, "decomposition": "qr"}, scaling=0.5), "no scaling beside an orthonormal basis"),
        (one(NORMALISED, composition="hadamard", scaling=1.0), "its composition Hadamard is none of peft's"),
    ],
)
def test_made_maps_that_peft_cannot_say(spec: Any, words: str, tmp_path: Path) -> None:
    refused(method(spec), "bert", tmp_path, words)


def test_a_normalised_map_at_a_transposed_layer_is_refused(tmp_path: Path) -> None:
    refused(
        method(one(NORMALISED, {"site": "ffn.down"}, scaling=1.0)),
        "gpt2",
        tmp_path,
        r"is no linear layer that its DELORA takes .Conv1D.",
    )


# -- frozen parts that the file holds ---------------------------------------------------------------------------------

BASES = {"name": "random_bases", "size": 8}
CORE = {"name": "singular_core", "size": 2, "count": 5}
SPARSE = {"name": "sparse", "size": 2}
ALPHA = {"name": "alpha_over_rank", "alpha": 12}
FROZEN: dict[str, dict[str, Any]] = {
    "bases": method(one(BASES, scaling=ALPHA)),
    "bases_released": method(one({**BASES, "released_order": True, "size": 5}, ALL, scaling=ALPHA)),
    "bases_root": method(
        one({**BASES, "released_order": True}, ALL, scaling={"name": "alpha_over_sqrt_rank", "alpha": 3})
    ),
    "bases_rest": method(one({**BASES, "size": 7}, scaling="learned")),
    "core": method(one(CORE, scaling=1.0)),
    "core_scaled": method(one({**CORE, "size": 5, "count": 30}, ALL, scaling="learned_vector")),
    "core_one": method(one({**CORE, "size": 1, "count": 1}, scaling=-2.0)),
    "sparse": method(one(SPARSE, scaling=1.0)),
    "sparse_scaled": method(one({**SPARSE, "size": 5, "seed": 3}, ALL, scaling="learned_vector")),
    "sparse_largest": method(one({**SPARSE, "mask": "largest"}, ALL, scaling=0.5)),
    "sparse_smallest": method(one({**SPARSE, "size": 1, "mask": "smallest"}, scaling="learned")),
    "sparse_density": method(one({**SPARSE, "density": 0.25}, {"site": "attn.q"}, scaling=1.0)),  # 4 (32 + 32) of 1024
}


@pytest.mark.parametrize("arch", ["bert", "llama", "t5"])
@pytest.mark.parametrize("name", FROZEN)
def test_frozen_parts_there_and_back(name: str, arch: str, tmp_path: Path) -> None:
    if name == "bases" and arch == "llama":  # the value is narrower than the query
        refused(FROZEN[name], arch, tmp_path, "part0: it pairs bases in the order of the released code alone")
        return
    if name == "bases_rest" and arch == "llama":
        refused(FROZEN[name], arch, tmp_path, "these sites have different numbers of them")
        return
    if name == "sparse_density" and arch == "t5":  # 512 entries, where the query is 32 in and 64 out
        refused(FROZEN[name], arch, tmp_path, "it trains 512 at encoder.*q, where that is r times 96")
        return
    there_and_back(FROZEN[name], arch, tmp_path)


@pytest.mark.parametrize("function", [BASES, CORE])
def test_frozen_parts_at_transposed_layers(function: dict[str, Any], tmp_path: Path) -> None:
    there_and_back(method(one(function, {"site": ["attn.qkv", "ffn.down"]}, scaling=1.0)), "gpt2", tmp_path)


def test_a_pair_of_narrow_sites_that_peft_makes_wider_tensors_for(tmp_path: Path) -> None:
    """Wide in and narrow out beside narrow in and wide out: its A is as wide as the widest of both."""
    spec = method(one({**BASES, "released_order": True}, {"site": ["ffn.up", "ffn.down"]}, scaling=1.0))
    there_and_back(spec, "bert", tmp_path)
    tensors = load_file(tmp_path / "adapter_model.safetensors")
    assert tensors["base_model.randlora_A"].shape == (8, 1, 48) and tensors["base_model.randlora_B"].shape == (48, 6, 8)


DRAWN: dict[str, Callable[[list[str]], Any]] = {
    "bases": lambda m: peft.RandLoraConfig(r=8, randlora_alpha=12, target_modules=m),
    "bases_sparse": lambda m: peft.RandLoraConfig(r=5, sparse=True, projection_prng_key=3, target_modules=m),
    "core": lambda m: peft.TinyLoraConfig(r=2, u=5, target_modules=m),
    "core_tied": lambda m: peft.TinyLoraConfig(r=3, u=5, weight_tying=1.0, target_modules=m),
    "core_half_tied": lambda m: peft.TinyLoraConfig(r=3, u=5, weight_tying=0.6, target_modules=m),
    "core_seed": lambda m: peft.TinyLoraConfig(r=3, u=5, save_projection=False, projection_seed=9, target_modules=m),
    "core_wider_than_some": lambda m: peft.TinyLoraConfig(r=34, u=2, target_modules=m),
    "sparse": lambda m: peft.ShiraConfig(r=2, target_modules=m),
    "sparse_seed": lambda m: peft.ShiraConfig(r=1, random_seed=5, target_modules=m),
}


@pytest.mark.parametrize("arch", ["bert", "llama", "gpt2"])
@pytest.mark.parametrize("name", DRAWN)
def test_frozen_parts_that_peft_drew(name: str, arch: str, tmp_path: Path) -> None:
    """They are taken over, so no seed makes them again; an export holds them."""
    if arch == "gpt2" and name.startswith("sparse"):
        return  # peft has linear layers alone
    model = from_peft(lambda: DRAWN[name](MODULES[arch]), arch, tmp_path / "theirs")
    with pytest.raises(unipet.UnipetError, match="no seed here makes them again"):
        unipet.save(model, tmp_path / "ours")
    if name.startswith("core") and name != "core_tied":
        with pytest.raises(unipet.UnipetError, match="have shared tensors of their own"):
            unipet.export_peft(
                model, tmp_path / "again"
            )  # a v for each group, and the groups are insertions of their own
        return
    unipet.export_peft(model, tmp_path / "again")
    assert same(model, loaded(tmp_path / "again", arch, torch.float64), arch, 1e-9)


@pytest.mark.parametrize(
    ("spec", "words"),
    [
        (one(BASES, scaling="learned_vector"), "no scale per channel here"),
        (one(BASES, ALL, scaling=1.0), None),
        (one({**SPARSE, "density": 0.3}, scaling=1.0), r"with a whole r, and it trains 307 at bert.*r times 64"),
        (one(SPARSE, {"site": ["attn.q", "ffn.up"]}, scaling=1.0), None),
    ],
)
def test_frozen_parts_that_peft_cannot_say(spec: Any, words: str | None, tmp_path: Path) -> None:
    if words is None:
        unipet.export_peft(adapted(method(spec), "bert"), tmp_path / "out")
        return
    refused(method(spec), "bert", tmp_path, words)


def test_two_insertions_of_tensors_of_their_own_are_refused(tmp_path: Path) -> None:
    for function in (BASES, CORE):
        spec = method(one(function, {"site": "attn.q"}, scaling=1.0), one(function, {"site": "attn.v"}, scaling=1.0))
        refused(spec, "bert", tmp_path, "part0 and part1 have shared tensors of their own")


@pytest.mark.parametrize("name", ["bases", "core", "sparse"])
def test_every_frozen_tensor_must_be_there(name: str, tmp_path: Path) -> None:
    unipet.export_peft(adapted(FROZEN[name], "bert"), tmp_path)
    whole = load_file(tmp_path / "adapter_model.safetensors")
    config = (tmp_path / "adapter_config.json").read_text()
    for key in whole:
        if ("layer.0" in key and "query" in key) or not key.startswith("base_model.model."):
            rewrite(tmp_path, lambda found, key=key: {name: one for name, one in whole.items() if name != key})
            words = r"does not fit this model|are not stored, or do not fit|it does not say tinylora_v\.0"
            with pytest.raises(unipet.UnipetError, match=words):
                unipet.import_peft(built("bert"), tmp_path)
            rewrite(tmp_path, lambda found, key=key: {**whole, key: whole[key][:1].clone()})
            with pytest.raises(unipet.UnipetError, match=words):
                unipet.import_peft(built("bert"), tmp_path)
    assert (tmp_path / "adapter_config.json").read_text() == config


def test_random_bases_that_peft_did_not_store(tmp_path: Path) -> None:
    """It draws them in half precision where the machine has it, so no seed says what they are."""
    theirs: Any = peft.get_peft_model(
        built("bert"), peft.RandLoraConfig(r=8, save_projection=False, target_modules=MODULES["bert"])
    )
    theirs.save_pretrained(tmp_path)
    with pytest.raises(unipet.UnipetError, match=r"the frozen tensors of bert\S+ are not stored"):
        unipet.import_peft(built("bert"), tmp_path)


@pytest.mark.parametrize("change", ["outside", "negative", "twice", "vector"])
def test_places_that_are_none(change: str, tmp_path: Path) -> None:
    unipet.export_peft(adapted(FROZEN["sparse"], "bert"), tmp_path)

    def broken(found: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        key = next(name for name in found if name.endswith("shira_indices"))
        places = found[key].clone()
        if change == "vector":
            return {**found, key: places[0].clone()}
        places[:, 0] = {"outside": 32, "negative": -1, "twice": int(places[0, 1])}[change]
        places[1, 0] = places[1, 1] if change == "twice" else places[1, 0]
        return {**found, key: places}

    rewrite(tmp_path, broken)
    model = built("bert")
    with pytest.raises(unipet.UnipetError, match=r"shira_indices of bert.*different entries|are not stored, or do not"):
        unipet.import_peft(model, tmp_path)
    assert not hasattr(model, "_unipet")


@pytest.mark.parametrize(
    ("key", "value", "words"),
    [
        ("weight_tying", 2, "weight_tying: '2' given; allowed: a number from 0 to 1"),
        ("weight_tying", True, "weight_tying: 'True' given"),
        ("projection_seed", -1, "projection_seed: '-1' given; allowed: a whole number"),
        ("weight_tying", 0.0, r"it does not say tinylora_v\.1, which a TINYLORA needs"),
    ],
)
def test_options_of_a_core_that_mean_nothing(key: str, value: Any, words: str, tmp_path: Path) -> None:
    unipet.export_peft(adapted(FROZEN["core"], "bert"), tmp_path)
    path = tmp_path / "adapter_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), key: value}))
    with pytest.raises(unipet.UnipetError, match=words):
        unipet.import_peft(built("bert"), tmp_path)


# -- one vector or one bank that all sites share ----------------------------------------------------------------------

HASHED = {"name": "hashed_low_rank", "size": 4, "length": 60}
BANK = {"name": "vector_bank", "size": 4, "vectors": 7, "vector": 8}
TOGETHER: dict[str, dict[str, Any]] = {
    "hashed": method(one(HASHED, scaling=1.0)),
    "hashed_scaled": method(one({**HASHED, "size": 2, "length": 1000}, ALL, scaling=2.5)),
    "hashed_long": method(one({**HASHED, "size": 1, "length": 5000, "seed": 3}, scaling=1.0)),
    "hashed_one": method(one({**HASHED, "length": 1}, ALL, scaling=20.0)),
    "bank": method(one(BANK, scaling=1.0)),
    "bank_free": method(one({**BANK, "vector": None, "vectors": 9, "top": 3}, {"site": "attn.q"}, scaling=1.0)),
    "bank_everywhere": method(one({**BANK, "vector": 4, "top": 1}, ALL, scaling=1.0)),
    "bank_whole": method(one({**BANK, "vector": 16, "size": 1, "top": 7}, scaling=1.0)),
}


@pytest.mark.parametrize("arch", ["bert", "llama", "t5"])
@pytest.mark.parametrize("name", TOGETHER)
def test_what_sites_share_there_and_back(name: str, arch: str, tmp_path: Path) -> None:
    there_and_back(TOGETHER[name], arch, tmp_path)


@pytest.mark.parametrize("function", [HASHED, BANK])
def test_what_sites_share_at_transposed_layers(function: dict[str, Any], tmp_path: Path) -> None:
    there_and_back(method(one(function, {"site": ["attn.qkv", "ffn.down"]}, scaling=1.0)), "gpt2", tmp_path)


@pytest.mark.parametrize("scaling", ["learned", "learned_vector", -0.5])
def test_scales_that_only_peft_has(scaling: Any, tmp_path: Path) -> None:
    """They go into those of B, where peft has one for every entry; ours are one for each number of the vector."""
    model = adapted(method(one(HASHED, scaling=scaling)), "bert")
    unipet.export_peft(model, tmp_path)
    assert same(model, loaded(tmp_path, "bert"), "bert", 3e-5)
    with pytest.raises(unipet.UnipetError, match="one number of unilora_theta_d has different scales"):
        unipet.import_peft(built("bert"), tmp_path)


SHARED: dict[str, Callable[[list[str]], Any]] = {
    "hashed": lambda m: peft.UniLoraConfig(r=3, theta_d_length=50, target_modules=m),
    "hashed_seed": lambda m: peft.UniLoraConfig(r=2, theta_d_length=9999, proj_seed=5, target_modules=m),
    "hashed_stored": lambda m: peft.UniLoraConfig(r=3, theta_d_length=77, save_indices=True, target_modules=m),
    "bank": lambda m: peft.VBLoRAConfig(r=3, num_vectors=9, vector_length=8, target_modules=m),
    "bank_weights": lambda m: peft.VBLoRAConfig(
        r=3, num_vectors=9, vector_length=8, topk=3, save_only_topk_weights=True, target_modules=m
    ),
    "bank_one_weight": lambda m: peft.VBLoRAConfig(
        r=3, num_vectors=300, vector_length=4, topk=1, save_only_topk_weights=True, target_modules=m
    ),
}


@pytest.mark.parametrize("arch", ["bert", "llama", "gpt2", "t5"])
@pytest.mark.parametrize("name", SHARED)
def test_what_sites_share_that_peft_wrote(name: str, arch: str, tmp_path: Path) -> None:
    modules = MODULES.get(arch, ["q", "v", "wo"])
    model = from_peft(lambda: SHARED[name](modules), arch, tmp_path / "theirs")
    if name.startswith("bank"):
        assert adaptation(model).unsavable is None
        unipet.save(model, tmp_path / "ours")
    else:
        with pytest.raises(unipet.UnipetError, match="no seed here makes them again"):
            unipet.save(model, tmp_path / "ours")


@pytest.mark.parametrize(
    ("spec", "words"),
    [
        (one(BANK, scaling=0.5), r"part0: peft has no scaling here .scaling: 1.0."),
        (one(BANK, scaling="learned_vector"), "part0: peft has no scaling here"),
        (
            one({**BANK, "vector": None}, {"site": ["attn.q", "ffn.up"]}, scaling=1.0),
            r"part0 at bert\S+ and at bert\S+ differ in vector_length",
        ),
        (one(HASHED, composition="hadamard", scaling=1.0), "its composition Hadamard"),
    ],
)
def test_what_sites_share_that_peft_cannot_say(spec: Any, words: str, tmp_path: Path) -> None:
    refused(method(spec), "bert", tmp_path, words)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda name, one: {}, r"are not stored, or not|which is not there"),
        (lambda name, one: {name: one[:1].clone()}, "are not stored, or not|does not fit|whole numbers from 0 to 0"),
        (lambda name, one: {name: one + 60} if one.dtype == torch.int64 else None, "whole numbers from 0 to 59"),
        (lambda name, one: {name: -1 - one} if one.dtype == torch.int64 else None, "whole numbers from 0 to 59"),
    ],
)
def test_entries_that_are_none(change: Any, words: str, tmp_path: Path) -> None:
    unipet.export_peft(adapted(TOGETHER["hashed"], "bert"), tmp_path)
    whole = load_file(tmp_path / "adapter_model.safetensors")
    for key, tensor in whole.items():
        if "unilora" in key and (made := change(key, tensor)) is not None and "layer.1" not in key:
            rewrite(tmp_path, lambda found, key=key, made=made: {n: t for n, t in whole.items() if n != key} | made)
            model = built("bert")
            with pytest.raises(unipet.UnipetError, match=words):
                unipet.import_peft(model, tmp_path)
            assert not hasattr(model, "_unipet")


@pytest.mark.parametrize(
    ("keys", "words"),
    [
        ({"r": 3}, r"unilora_indices_A of bert.* are not stored, or not \(3, 32\)"),
        ({"r": 0}, "r: '0' given; allowed: a whole number above 0"),
        ({"r": 10**9}, "allowed: a whole number from 1 to 32"),
        ({"theta_d_length": 59}, r"or do not fit this model: factor is \(59,\)"),
        ({"save_indices": False, "proj_seed": -1}, "proj_seed: '-1' given"),
    ],
)
def test_options_of_entries_that_mean_nothing(keys: dict[str, Any], words: str, tmp_path: Path) -> None:
    unipet.export_peft(adapted(TOGETHER["hashed"], "bert"), tmp_path)
    path = tmp_path / "adapter_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **keys}))
    with pytest.raises(unipet.UnipetError, match=words):
        unipet.import_peft(built("bert"), tmp_path)


@pytest.mark.parametrize("change", ["outside", "shape", "count"])
def test_mixtures_that_are_none(change: str, tmp_path: Path) -> None:
    config = peft.VBLoRAConfig(
        r=3, num_vectors=9, vector_length=8, save_only_topk_weights=True, target_modules=MODULES["bert"]
    )
    from_peft(lambda: config, "bert", tmp_path)

    def broken(found: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        key = next(name for name in found if name.endswith("topk_indices"))
        one = found[key]
        return {**found, key: {"outside": one + 9, "shape": one[0].clone(), "count": one[..., :1].clone()}[change]}

    rewrite(tmp_path, broken)
    with pytest.raises(unipet.UnipetError, match="topk_indices: allowed: whole numbers from 0 to 8"):
        unipet.import_peft(built("bert"), tmp_path)


# -- butterflies, with or without a scale of the output ---------------------------------------------------------------

INPUT = {"site": ["attn.q", "attn.v"], "form": "sequential", "side": "input"}
SCALE = one("vector", composition={"name": "multiply", "bias": False}, scaling=1.0)


def butterfly(size: int, factors: int, *more: dict[str, Any], position: Any = INPUT) -> dict[str, Any]:
    return method(one({"name": "butterfly", "size": size, "factors": factors}, position, "replace", 1.0), *more)


TURNED: dict[str, dict[str, Any]] = {
    "one": butterfly(8, 1),
    "two": butterfly(8, 2),
    "three": butterfly(4, 3, position={**INPUT, "site": ["attn.q", "ffn.up"]}),
    "odd": butterfly(2, 1, SCALE),
    "scaled": butterfly(8, 1, SCALE),
    "scaled_twice": butterfly(4, 2, {**SCALE, "scaling": "learned"}, position={**INPUT, "site": ["attn.q", "attn.v"]}),
    "one_scaled": butterfly(8, 1, {**SCALE, "position": "attn.v"}),
}


@pytest.mark.parametrize("arch", ["bert", "llama", "t5"])
@pytest.mark.parametrize("name", TURNED)
def test_butterflies_there_and_back(name: str, arch: str, tmp_path: Path) -> None:
    config = there_and_back(TURNED[name], arch, tmp_path)
    assert config["boft_n_butterfly_factor"] == 1


def test_a_butterfly_of_a_fused_projection_and_scales_of_its_parts(tmp_path: Path) -> None:
    there_and_back(butterfly(8, 2, SCALE, position={**INPUT, "site": "attn.qkv"}), "gpt_neox", tmp_path)


class InTorch:
    """What peft's CUDA extension computes."""

    @staticmethod
    def forward(blocks: torch.Tensor) -> list[torch.Tensor]:
        return [torch.stack([torch.block_diag(*each) for each in blocks])]


@pytest.mark.parametrize("arch", ["bert", "llama"])
@pytest.mark.parametrize(
    "keys", [{"boft_block_size": 8}, {"boft_block_size": 4}, {"boft_block_size": 0, "boft_block_num": 4}]
)
@pytest.mark.parametrize("factors", [1, 2, 3])
def test_butterflies_that_peft_wrote(
    factors: int, keys: dict[str, int], arch: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With its extension, which is one here, of several factors; and what we read of them is one when it is written."""
    if factors > 1:
        monkeypatch.setattr(importlib.import_module("peft.tuners.boft.layer"), "get_fbd_cuda", lambda: InTorch)
    modules = MODULES[arch][:2] if factors == 3 else MODULES[arch][:3]
    model = from_peft(
        lambda: peft.BOFTConfig(**keys, boft_n_butterfly_factor=factors, target_modules=modules), arch, tmp_path / "a"
    )
    assert adaptation(model).unsavable is None
    monkeypatch.undo()
    unipet.export_peft(model, tmp_path / "b")
    assert same(model, loaded(tmp_path / "b", arch, torch.float64), arch, 1e-9)


@pytest.mark.parametrize(
    ("spec", "arch", "words"),
    [
        (
            butterfly(8, 1, {**SCALE, "composition": "multiply"}),
            "bert",
            "part1: beside a butterfly peft leaves the bias out",
        ),
        (butterfly(8, 1, SCALE, SCALE), "bert", "part2: bert.*query carries two insertions already"),
        (butterfly(8, 1, {**SCALE, "position": "attn.k"}), "bert", "part1: peft scales the bias as well"),
        (
            butterfly(8, 1, position={**INPUT, "site": "attn.qkv"}),
            "gpt2",
            "no linear layer that its BOFT takes .Conv1D",
        ),
        (butterfly(8, 1, position={"site": "attn.q", "form": "sequential"}), "bert", "does not turn the input of"),
        (
            butterfly(8, 1, one({"name": "butterfly", "size": 4}, {**INPUT, "site": "attn.k"}, "replace", 1.0)),
            "bert",
            "part0 and part1 differ in boft_block_size",
        ),
        (method(one({"name": "butterfly", "size": 8}, INPUT, "replace", 0.5)), "bert", "no scaling here"),
    ],
)
def test_butterflies_that_peft_cannot_say(spec: Any, arch: str, words: str, tmp_path: Path) -> None:
    refused(spec, arch, tmp_path, words)


def test_factors_that_turn_by_half_a_circle_together(tmp_path: Path) -> None:
    """Two quarter turns of the same plane."""
    model = built("bert")
    unipet.adapt(model, butterfly(4, 2, position={**INPUT, "site": "attn.q"}))
    with torch.no_grad():
        for blocks in unipet.parameters(model).values():
            if blocks.dim() == 4:  # factors, blocks, 4, 4; channels 0 and 1 are in the first half of a block in both
                blocks[:, 0, 0, 1], blocks[:, 0, 1, 0] = 1.0, -1.0
    with pytest.raises(unipet.UnipetError, match=r"part0: its factors together turn something at bert.* half a circle"):
        unipet.export_peft(model, tmp_path / "out")


@pytest.mark.parametrize("key", ["boft_R", "boft_s"])
def test_tensors_of_a_butterfly_that_do_not_fit(key: str, tmp_path: Path) -> None:
    unipet.export_peft(adapted(TURNED["scaled"], "bert"), tmp_path)
    whole = load_file(tmp_path / "adapter_model.safetensors")
    name = next(name for name in whole if name.endswith(key))
    for change in ({}, {name: whole[name][:0]}, {name: whole[name].flatten()[:3].clone()}):
        rewrite(tmp_path, lambda found, change=change: {n: t for n, t in whole.items() if n != name} | change)
        model = built("bert")
        with pytest.raises(unipet.UnipetError):
            unipet.import_peft(model, tmp_path)
        assert not hasattr(model, "_unipet")


# -- coefficients at places that peft draws again ---------------------------------------------------------------------

FOURIER = {"name": "fourier", "size": 40, "draw": "shape"}
WAVELET = {"name": "wavelet", "size": 40, "draw": "shape"}
LIKE_THEIRS: dict[str, dict[str, Any]] = {
    "fourier": method(one(FOURIER, scaling=150.0)),
    "fourier_seed": method(one({**FOURIER, "seed": 3, "size": 100}, ALL, scaling="learned")),
    "fourier_everything": method(one({**FOURIER, "draw": "site", "size": 9999}, ALL, scaling=20.0)),
    "fourier_two": method(
        one(FOURIER, scaling=150.0), one({**FOURIER, "size": 7}, {"site": "ffn.down"}, scaling=150.0)
    ),
    "wavelet": method(one(WAVELET, scaling=2.5)),
    "wavelet_seed": method(one({**WAVELET, "seed": 3, "size": 7}, ALL, scaling="learned")),
    "wavelet_everything": method(one({**WAVELET, "draw": "site", "size": 1024}, {"site": "attn.q"}, scaling=-0.5)),
}


@pytest.mark.parametrize("arch", ["bert", "llama", "t5"])
@pytest.mark.parametrize("name", LIKE_THEIRS)
def test_coefficients_there_and_back(name: str, arch: str, tmp_path: Path) -> None:
    if name == "wavelet_everything" and arch == "t5":  # the query is 32 x 64, so not everything
        refused(LIKE_THEIRS[name], arch, tmp_path, "function.draw: shape the places are peft's")
        return
    there_and_back(LIKE_THEIRS[name], arch, tmp_path, *(IN_FLOAT32 if name.startswith("fourier") else ()))


@pytest.mark.parametrize("function", [FOURIER, WAVELET])
def test_coefficients_at_transposed_layers(function: dict[str, Any], tmp_path: Path) -> None:
    spec = method(one({**function, "size": 300}, {"site": ["attn.qkv", "ffn.down"]}, scaling=20.0))
    there_and_back(spec, "gpt2", tmp_path, *IN_FLOAT32)


COEFFICIENTS: dict[str, Callable[[list[str]], Any]] = {
    "fourier": lambda m: peft.FourierFTConfig(n_frequency=50, target_modules=m),
    "fourier_pattern": lambda m: peft.FourierFTConfig(
        n_frequency=50, random_loc_seed=5, n_frequency_pattern={m[0]: 20}, target_modules=m
    ),
    "wavelet": lambda m: peft.WaveFTConfig(n_frequency=50, target_modules=m),
    "wavelet_parts": lambda m: peft.WaveFTConfig(
        n_frequency=50, random_loc_seed=5, proportional_parameters=True, target_modules=m
    ),
}


@pytest.mark.parametrize("arch", ["bert", "llama", "gpt2"])
@pytest.mark.parametrize("name", COEFFICIENTS)
def test_coefficients_that_peft_wrote(name: str, arch: str, tmp_path: Path) -> None:
    """A seed makes their places again, here and there."""
    made = lambda: COEFFICIENTS[name](MODULES[arch])  # noqa: E731
    model = from_peft(made, arch, tmp_path / "theirs", *(IN_FLOAT32 if name.startswith("fourier") else ()))
    unipet.save(model, tmp_path / "ours")
    dtype = next(model.parameters()).dtype
    unipet.export_peft(model, tmp_path / "again")
    assert same(model, loaded(tmp_path / "again", arch, dtype), arch, 3e-5)


@pytest.mark.parametrize(
    ("spec", "words"),
    [
        (
            one({**FOURIER, "draw": "site"}, scaling=150.0),
            "part0: it is not written for peft: peft draws its frozen part",
        ),
        (one({**WAVELET, "draw": "site"}, scaling=25.0), r"with function.draw: shape the places are peft's"),
        (one(FOURIER, scaling="learned_vector"), "no scale per channel here"),
        (one(WAVELET, composition="hadamard", scaling=1.0), "its composition Hadamard"),
    ],
)
def test_coefficients_that_peft_cannot_say(spec: Any, words: str, tmp_path: Path) -> None:
    refused(method(spec), "bert", tmp_path, words)


@pytest.mark.parametrize(
    ("key", "value", "words"),
    [
        ("wavelet_family", "db2", "wavelet_family: 'db2' has no counterpart here. Allowed: 'db1'"),
        ("use_idwt", False, "use_idwt: 'False' has no counterpart here. Allowed: True"),
        ("random_loc_seed", -1, "seed"),
        ("random_loc_seed", "x", "seed"),
    ],
)
def test_options_of_coefficients_that_mean_something_else(key: str, value: Any, words: str, tmp_path: Path) -> None:
    unipet.export_peft(adapted(LIKE_THEIRS["wavelet"], "bert"), tmp_path)
    path = tmp_path / "adapter_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), key: value}))
    with pytest.raises(unipet.UnipetError, match=words):
        unipet.import_peft(built("bert"), tmp_path)


# -- directories of strangers -----------------------------------------------------------------------------------------

EVERY = {
    "normalised": MADE["normalised"],
    "projection": MADE["projection"],
    "bases": FROZEN["bases"],
    "core": FROZEN["core"],
    "sparse": FROZEN["sparse"],
    "hashed": TOGETHER["hashed"],
    "bank": TOGETHER["bank"],
    "butterfly": TURNED["scaled"],
    "fourier": LIKE_THEIRS["fourier"],
    "wavelet": LIKE_THEIRS["wavelet"],
}
SHIPPED = ["randlora", "unilora", "tinylora", "shira", "boft", "delora", "vblora", "deft"]


@pytest.mark.parametrize("arch", ["bert", "t5"])
@pytest.mark.parametrize("name", SHIPPED)
def test_shipped_methods_there_and_back(name: str, arch: str, tmp_path: Path) -> None:
    there_and_back(name, arch, tmp_path, *(IN_FLOAT32 if name == "deft" else (DOUBLE,)))


STRANGE: list[Any] = ["x", -1, 0, 2.5, True, None, [1], {"query": "x"}, 10**30, 1e300]


@pytest.mark.parametrize("name", EVERY)
def test_strange_values_are_errors_of_ours_or_mean_nothing(name: str, tmp_path: Path) -> None:
    """Whatever stands in a configuration or in the place of a tensor: an error that says so, and the model as it was."""
    unipet.export_peft(adapted(EVERY[name], "bert"), tmp_path)
    path, whole = tmp_path / "adapter_config.json", load_file(tmp_path / "adapter_model.safetensors")
    config = json.loads(path.read_text())
    own = {key for key in config if key not in ("base_model_name_or_path", "task_type", "inference_mode", "peft_type")}

    def tried() -> None:
        model = built("bert")
        try:
            unipet.import_peft(model, tmp_path)
        except unipet.UnipetError:
            assert not hasattr(model, "_unipet")

    for key in sorted(own | {"alpha", "save_only_topk_weights", "save_indices", "save_projection", "projection_seed"}):
        for value in STRANGE:
            path.write_text(json.dumps({**config, key: value}))
            tried()
    path.write_text(json.dumps(config))
    keys = [key for key in whole if ("layer.0" in key and "query" in key) or not key.startswith("base_model.model.")]
    for key in keys:
        one = whole[key]
        for strange in (one.sum(), one.flatten(), one[:0], one[None], one.float() + 0.5, one.long(), one.int() * 0 - 5):
            rewrite(tmp_path, lambda found, key=key, strange=strange: {**whole, key: strange.clone().contiguous()})
            tried()
