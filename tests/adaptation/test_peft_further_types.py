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
from torch import nn

import unipet
from tests.adaptation.test_peft_directories import close, logits, method, one
from tests.adaptation.test_peft_exports import shake
from tests.support.architectures import ARCHS
from unipet.adaptation.adapted import adaptation

# peft 0.21 asks transformers by a name that 5.23 deprecates, builds sparse tensors unchecked, and would like a CUDA extension.
pytestmark = [
    pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing:FutureWarning"),
    pytest.mark.filterwarnings("ignore:Failed to load the CUDA extension:UserWarning"),
    pytest.mark.filterwarnings("ignore:Setting boft_n_butterfly_factor:UserWarning"),
    pytest.mark.filterwarnings("ignore:Sparse invariant checks:UserWarning"),
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
    """peft's own model; a tensor that it misses or does not know is a warning, and here an error."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        warnings.filterwarnings("error", message=".*(missing|unexpected|not initialized|Specified to).*")
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
