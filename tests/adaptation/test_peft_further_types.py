"""peft's types whose frozen parts, banks or pairs of insertions need more than a renaming: written, loaded by peft, and read."""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import peft
import pytest
import torch
from safetensors.torch import load_file
from torch import nn

import unipet
from tests.adaptation.test_peft_directories import close, logits, method, one, rewrite
from tests.adaptation.test_peft_exports import shake
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


def adapted(spec: Any, arch: str) -> nn.Module:
    """A model whose trained tensors are far from where they started, and large beside the base model's weights."""
    model: nn.Module = ARCHS[arch].build()
    unipet.adapt(model, spec)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in unipet.parameters(model, head=True).values():
            parameter.add_(torch.randn(parameter.shape, generator=generator) * 0.3)
    return model


def loaded(directory: Path, arch: str) -> Any:
    """peft's own model; a tensor that it misses or does not know is a warning, and here an error. What all modules share it
    may call missing by a module's own name."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        warnings.filterwarnings("error", message=".*(missing|unexpected|not initialized|Specified to).*")
        warnings.filterwarnings("ignore", message=r"Found missing adapter keys.*\.randlora_[AB]\.default")
        return peft.PeftModel.from_pretrained(ARCHS[arch].build(), str(directory)).eval()


def there_and_back(spec: Any, arch: str, directory: Path) -> dict[str, Any]:
    """Export, load with peft, import: the same outputs each time. Returns peft's configuration."""
    model = adapted(spec, arch)
    unipet.export_peft(model, directory)
    expected = logits(model, arch)
    assert not close(logits(ARCHS[arch].build(), arch), expected), "it does nothing"
    assert close(logits(loaded(directory, arch), arch), expected)
    again = ARCHS[arch].build()
    unipet.import_peft(again, directory)
    assert close(logits(again, arch), expected)
    config: dict[str, Any] = json.loads((directory / "adapter_config.json").read_text())
    return config


def from_peft(config: Any, arch: str, directory: Path, *, seed: int = 0) -> nn.Module:
    """What peft made, trained (random) and saved, imported, with the same outputs; and exported again."""
    torch.manual_seed(seed)
    theirs: Any = peft.get_peft_model(ARCHS[arch].build(), config).eval()
    shake(theirs)
    theirs.save_pretrained(directory)
    model: nn.Module = ARCHS[arch].build()
    unipet.import_peft(model, directory)
    expected = logits(theirs, arch)
    assert not close(logits(ARCHS[arch].build(), arch), expected), "it does nothing"
    assert close(logits(model, arch), expected)
    return model


def refused(spec: Any, arch: str, directory: Path, words: str) -> None:
    with pytest.raises(unipet.UnipetError, match=f"peft cannot express this method: .*{words}"):
        unipet.export_peft(adapted(spec, arch), directory / "out")
    assert not (directory / "out").exists()


# -- normalised low-rank maps, and projections ------------------------------------------------------------------------

NORMALISED = {"name": "normalised_low_rank", "size": 4, "strength": 3.0}
PROJECTION = {"name": "projection", "size": 4}
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
    there_and_back(MADE[name], arch, tmp_path)


def test_a_projection_at_transposed_layers(tmp_path: Path) -> None:
    there_and_back(method(one(PROJECTION, {"site": ["attn.qkv", "ffn.down"]}, scaling=1.0)), "gpt2", tmp_path)


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
    model = from_peft(make(MODULES[arch]), arch, tmp_path)
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
    config = DRAWN[name](MODULES[arch])
    model = from_peft(config, arch, tmp_path / "theirs")
    with pytest.raises(unipet.UnipetError, match="no seed here makes them again"):
        unipet.save(model, tmp_path / "ours")
    if name.startswith("core") and name != "core_tied":
        with pytest.raises(unipet.UnipetError, match="have shared tensors of their own"):
            unipet.export_peft(
                model, tmp_path / "again"
            )  # a v for each group, and the groups are insertions of their own
        return
    unipet.export_peft(model, tmp_path / "again")
    assert close(logits(loaded(tmp_path / "again", arch), arch), logits(model, arch))


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
                unipet.import_peft(ARCHS["bert"].build(), tmp_path)
            rewrite(tmp_path, lambda found, key=key: {**whole, key: whole[key][:1].clone()})
            with pytest.raises(unipet.UnipetError, match=words):
                unipet.import_peft(ARCHS["bert"].build(), tmp_path)
    assert (tmp_path / "adapter_config.json").read_text() == config


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
    model = ARCHS["bert"].build()
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
        unipet.import_peft(ARCHS["bert"].build(), tmp_path)
