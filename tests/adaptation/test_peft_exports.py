"""Exports for peft that peft itself has loaded, its further types, options by module, whole modules; and vLLM's layout."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import peft
import pytest
import torch
from safetensors.torch import load_file

import unipet
from tests.adaptation.test_peft_directories import (
    BAKED,
    DIRECT,
    LOW_RANK,
    adapted,
    close,
    loaded,
    logits,
    method,
    one,
)
from tests.support.architectures import ARCHS
from unipet.adaptation.adapted import adaptation
from unipet.adaptation.peft import directories

# peft 0.21 asks transformers by a name that 5.23 deprecates.
pytestmark = pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing:FutureWarning")

# -- what further forms, several ranks and whole modules say ------------------------------------------------------------

TURN = {"site": ["attn.q", "attn.v"], "form": "sequential", "side": "input"}
FURTHER: dict[str, dict[str, Any]] = {
    "hadamard": method(one(LOW_RANK, composition="hadamard", scaling=1.0)),
    "hadamard_scaled": method(one(LOW_RANK, composition="hadamard", scaling="learned_vector")),
    "block_sum": method(one({"name": "block_sum", "size": 4}, scaling=0.5)),
    "circulant": method(one({"name": "circulant", "size": 8}, scaling=1.0)),
    "grid": method(one({"name": "grid", "size": 8, "blocks": 2}, scaling={"name": "alpha_over_rank", "alpha": 16})),
    "network": method(one({"name": "weight_network", "size": 4}, scaling=0.5)),
    "bias": method(one("vector", {"site": "attn.v"}, "add", 1.0)),
    "rotation": method(one({"name": "rotation", "size": 8}, TURN, "replace", 1.0)),
    "rotation_exact": method(one({"name": "rotation", "size": 8, "cayley": "exact"}, TURN, "replace", 1.0)),
    "rotation_shared": method(one({"name": "rotation", "size": 8, "share_blocks": True}, TURN, "replace", 1.0)),
    "reflection": method(one({"name": "reflection", "size": 4}, TURN, "replace", 1.0)),
    "reflection_orthonormal": method(
        one({"name": "reflection", "size": 4, "gram_schmidt": True}, TURN, "replace", 1.0)
    ),
    "plane_rotation": method(
        one({"name": "plane_rotation", "per_pair": 2, "group_size": 8}, {**TURN, "side": "output"}, "replace", 1.0)
    ),
    "several_ranks": method(one(LOW_RANK), one({**LOW_RANK, "size": 7}, {"site": "ffn.down"}, scaling=0.3)),
    "several_ranks_root": method(
        one(LOW_RANK, scaling={"name": "alpha_over_sqrt_rank", "alpha": 5}),
        one(
            {**LOW_RANK, "size": 2},
            {"site": "ffn.up", "layers": [0]},
            scaling={"name": "alpha_over_sqrt_rank", "alpha": 3},
        ),
    ),
    "several_hadamards": method(
        one({"name": "hadamard_product", "size": 4}), one({"name": "hadamard_product", "size": 2}, {"site": "ffn.down"})
    ),
    "norms_too": {**method(one(LOW_RANK)), "unfreeze": ["norm"]},
    "embeddings_too": {**method(one(LOW_RANK)), "unfreeze": ["head", "embeddings"]},
}
#: peft warns of a bias that it cannot merge; an embedding that trains beside an output layer of its own is the other case.
NOT_ON = {"bias": ("llama",), "embeddings_too": ("llama",)}


@pytest.mark.parametrize(
    ("name", "arch"),
    [(name, arch) for name in FURTHER for arch in ("bert", "llama") if arch not in NOT_ON.get(name, ())],
)
def test_further_forms_there_and_back(name: str, arch: str, tmp_path: Path) -> None:
    """peft computes what we compute (the export itself has compared it), and reading it back gives the same."""
    model = adapted(FURTHER[name], arch)
    unipet.export_peft(model, tmp_path)
    expected = logits(model, arch)
    assert not close(logits(ARCHS[arch].build(), arch), expected), "it does nothing"
    assert close(logits(loaded(tmp_path, arch), arch), expected)
    again = ARCHS[arch].build()
    unipet.import_peft(again, tmp_path)
    assert close(logits(again, arch), expected)


def test_ranks_and_alphas_by_module_as_peft_wrote_them(tmp_path: Path) -> None:
    """Patterns with their own precedence: the first that a module's path ends with counts."""
    config = peft.LoraConfig(
        r=3,
        lora_alpha=7,
        target_modules=["q_proj", "v_proj", "down_proj"],
        rank_pattern={r"layers\.0\.self_attn\.q_proj": 5, "q_proj": 2},
        alpha_pattern={"down_proj": 2.5, "v_proj": 9},
    )
    theirs: Any = peft.get_peft_model(ARCHS["llama"].build(), config).eval()
    shake(theirs)
    theirs.save_pretrained(tmp_path)
    model = ARCHS["llama"].build()
    report = unipet.import_peft(model, tmp_path)
    assert close(logits(model, "llama"), logits(theirs, "llama"))
    assert len(report.insertions) > 1
    sizes = {
        tuple(parameter.shape) for name, parameter in unipet.parameters(model).items() if name.endswith("q_proj/down")
    }
    assert {size[0] for size in sizes} == {5, 2}


def shake(theirs: Any) -> None:
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in theirs.parameters():
            if parameter.requires_grad:
                parameter.add_(torch.randn(parameter.shape, generator=generator) * 0.3)


@pytest.mark.parametrize(
    ("pattern", "words"),
    [
        ([], None),
        ([1], "rank_pattern: .* given; allowed: module names"),
        ({"query": "4"}, r"rank_pattern: query: '4' given; allowed: a whole number above 0"),
        ({"query": 0}, "allowed: a whole number above 0"),
        ({"query": True}, "allowed: a whole number above 0"),
        ({"(a+)+$": 4}, "could take for ever"),
        ({"query": 4}, "does not fit this model at"),
    ],
)
def test_patterns_that_mean_something_else_are_refused(pattern: Any, words: str | None, tmp_path: Path) -> None:
    model = adapted(DIRECT["low_rank"], "bert")
    unipet.export_peft(model, tmp_path)
    path = tmp_path / "adapter_config.json"
    config = json.loads(path.read_text())
    config |= {"rank_pattern": pattern, "r": 4 if pattern != {"query": 4} else 3}
    path.write_text(json.dumps(config))
    again = ARCHS["bert"].build()
    if words is None:
        unipet.import_peft(again, tmp_path)
        return
    with pytest.raises(unipet.UnipetError, match=words):
        unipet.import_peft(again, tmp_path)


@pytest.mark.parametrize(
    ("modules", "unfrozen"), [(["LayerNorm", "classifier"], ["head", "norm"]), (["classifier"], ["head"])]
)
def test_whole_modules_that_peft_saved(modules: list[str], unfrozen: list[str], tmp_path: Path) -> None:
    theirs: Any = peft.get_peft_model(
        ARCHS["bert"].build(), peft.LoraConfig(r=3, target_modules=["query"], modules_to_save=modules)
    ).eval()
    shake(theirs)
    theirs.save_pretrained(tmp_path)
    model = ARCHS["bert"].build()
    unipet.import_peft(model, tmp_path)
    assert close(logits(model, "bert"), logits(theirs, "bert"))
    assert sorted(set(adaptation(model).unfrozen.values())) == sorted(unfrozen)


def test_a_module_that_is_no_part_of_unfreeze_is_refused_with_what_to_do(tmp_path: Path) -> None:
    theirs: Any = peft.get_peft_model(
        ARCHS["bert"].build(), peft.LoraConfig(r=3, target_modules=["query"], modules_to_save=["intermediate.dense"])
    )
    theirs.save_pretrained(tmp_path)
    with pytest.raises(unipet.UnipetError, match=r"modules_to_save: .*intermediate\.dense.*merge_and_unload"):
        unipet.import_peft(ARCHS["bert"].build(), tmp_path)


def test_an_export_that_peft_reads_otherwise_is_never_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = directories.written

    def wrong(*given: Any) -> Any:
        config, tensors = real(*given)
        return {**config, "lora_alpha": config["lora_alpha"] * 2}, tensors

    monkeypatch.setattr(directories, "written", wrong)
    model = adapted(DIRECT["low_rank"], "bert")
    before = logits(model, "bert")
    flags = {name: parameter.requires_grad for name, parameter in model.named_parameters()}
    with pytest.raises(unipet.UnipetError, match=r"peft .* loads this export, and its outputs differ by"):
        unipet.export_peft(model, tmp_path / "out")
    assert list(tmp_path.iterdir()) == []
    assert torch.equal(logits(model, "bert"), before)
    assert flags == {name: parameter.requires_grad for name, parameter in model.named_parameters()}


def test_an_export_that_peft_does_not_load_whole_is_never_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = directories.written

    def short(*given: Any) -> Any:
        config, tensors = real(*given)
        tensors.popitem()
        return config, tensors

    monkeypatch.setattr(directories, "written", short)
    with pytest.raises(unipet.UnipetError, match=r"leaves out a part of this export|cannot load this export"):
        unipet.export_peft(adapted(DIRECT["low_rank"], "bert"), tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


def test_comparing_changes_nothing_in_the_model(tmp_path: Path) -> None:
    model = adapted({**method(one(LOW_RANK)), "unfreeze": ["head", "norm"]}, "bert")
    model.train()
    state = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    flags = {name: parameter.requires_grad for name, parameter in model.named_parameters()}
    unipet.export_peft(model, tmp_path)
    assert model.training and all(torch.equal(tensor, state[name]) for name, tensor in model.state_dict().items())
    assert flags == {name: parameter.requires_grad for name, parameter in model.named_parameters()}
    made = directories.exported(model, tmp_path / "again")
    assert made.compared is not None and made.compared.version == peft.__version__ and "outputs differ by" in made.words


def test_without_peft_it_is_said_that_nobody_compared(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(directories, "is_installed", lambda: False)
    model = adapted(DIRECT["low_rank"], "bert")
    with pytest.warns(UserWarning, match="written and not compared, as peft is not installed"):
        unipet.export_peft(model, tmp_path / "out")
    assert (tmp_path / "out" / "adapter_model.safetensors").is_file()
    assert directories.exported(model, tmp_path / "again").words.startswith("not compared")


# -- vLLM --------------------------------------------------------------------------------------------------------------

SERVED = {
    "one_rank": DIRECT["low_rank"],
    "root": DIRECT["low_rank_root"],
    "several_ranks": FURTHER["several_ranks"],
    "several_ranks_root": FURTHER["several_ranks_root"],
    "learned": BAKED["learned_vector"],
    "from_start": BAKED["from_start_root"],
}


@pytest.mark.parametrize("name", SERVED)
def test_what_is_served_has_one_rank_and_its_scale_inside(name: str, tmp_path: Path) -> None:
    model = adapted(SERVED[name], "llama")
    unipet.export_peft(model, tmp_path, layout="vllm")
    config, tensors = (
        json.loads((tmp_path / "adapter_config.json").read_text()),
        load_file(tmp_path / "adapter_model.safetensors"),
    )
    assert config["r"] == config["lora_alpha"] and not config["use_rslora"] and config["modules_to_save"] is None
    assert not any("pattern" in key for key in config)
    assert {len(tensor) for key, tensor in tensors.items() if key.endswith("lora_A.weight")} == {config["r"]}
    expected = logits(model, "llama")
    assert close(logits(loaded(tmp_path, "llama"), "llama"), expected)
    # By vLLM's own rule, whatever it makes of use_rslora: W + (alpha / r) B A at every module that is named.
    plain = ARCHS["llama"].build()
    with torch.no_grad():
        for path in config["target_modules"]:
            B, A = (tensors[f"base_model.model.{path}.lora_{letter}.weight"] for letter in "BA")
            plain.get_submodule(path).weight += config["lora_alpha"] / config["r"] * B @ A
    assert close(logits(plain, "llama"), expected)


@pytest.mark.parametrize(
    ("spec", "arch", "words"),
    [
        (DIRECT["normalised"], "llama", "does not renormalise rows"),
        (DIRECT["vectors"], "llama", "serves low-rank maps alone, and this is peft's IA3"),
        ({**DIRECT["low_rank"], "unfreeze": ["head"]}, "bert", "takes no whole modules"),
        (DIRECT["low_rank"], "t5", "no decoder that generates"),
        (method(one({**LOW_RANK, "size": 600})), "llama", "rank 600 is more than a server takes .512."),
        (method(one(LOW_RANK, {"site": ["attn.qkv"]})), "gpt2", r"h\.0\.attn\.c_attn \(attn\.qkv\) is no linear layer"),
    ],
)
def test_what_vllm_would_ignore_is_refused_by_name(spec: Any, arch: str, words: str, tmp_path: Path) -> None:
    model = adapted(spec, arch)
    with pytest.raises(unipet.UnipetError, match=f"vLLM cannot apply this adapter: .*{words}"):
        unipet.export_peft(model, tmp_path / "out", layout="vllm")
    assert list(tmp_path.iterdir()) == []


def test_a_server_is_told_the_rank_it_needs(tmp_path: Path) -> None:
    made = directories.exported(adapted(FURTHER["several_ranks"], "llama"), tmp_path / "out", "vllm")
    assert made.rank == 8 and "--max-lora-rank 8" in made.words
    with pytest.raises(unipet.UnipetError, match="layout: unknown 'vlm'"):
        unipet.export_peft(adapted(DIRECT["low_rank"], "llama"), tmp_path / "no", layout="vlm")
