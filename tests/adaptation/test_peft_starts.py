"""peft's `init_lora_weights`: what takes itself off the base weight computes the same here, or is refused by its name."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import peft
import pytest
import torch

import unipet
from tests.adaptation.test_peft_directories import close, logits
from tests.support.architectures import ARCHS

pytestmark = [
    pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing:FutureWarning"),
    pytest.mark.filterwarnings("ignore:.*eva_config:UserWarning"),
    pytest.mark.filterwarnings("ignore:lora with eva initialization:UserWarning"),
    pytest.mark.filterwarnings("ignore:.*path_initial_model_for_weight_conversion.*:UserWarning"),
    pytest.mark.filterwarnings("ignore:.*fan_in_fan_out.*:UserWarning"),
    pytest.mark.filterwarnings("ignore:PiSSA changes the base weights:UserWarning"),
]

STARTS = (True, False, "gaussian", "eva", "orthogonal", "mica", "pissa", "olora")
TARGETS = {"bert": ["query", "output.dense"], "llama": ["q_proj", "down_proj"], "gpt2": ["c_attn", "c_proj"]}


def trained(directory: Path, arch: str, **options: Any) -> torch.Tensor:
    """An adapter as peft leaves it after training (noise in what trains), in `directory`; what it computes."""
    config = peft.LoraConfig(**{"r": 4, "lora_alpha": 7, "target_modules": TARGETS[arch], **options})
    theirs: Any = peft.get_peft_model(ARCHS[arch].build(), config).eval()
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in theirs.parameters():
            if parameter.requires_grad:
                parameter.add_(torch.randn(parameter.shape, generator=generator) * 0.3)
    expected = logits(theirs, arch)
    theirs.save_pretrained(directory)
    return expected


@pytest.mark.parametrize("init", STARTS, ids=str)
@pytest.mark.parametrize(("arch", "root"), [("bert", False), ("llama", True)])
def test_every_start_computes_what_peft_computes(init: Any, arch: str, root: bool, tmp_path: Path) -> None:
    expected = trained(tmp_path, arch, init_lora_weights=init, use_rslora=root)
    again = peft.PeftModel.from_pretrained(ARCHS[arch].build(), str(tmp_path)).eval()
    assert close(logits(again, arch), expected), "peft makes the start again from the base model"
    model = ARCHS[arch].build()
    plain, weights = logits(model, arch), [parameter.clone() for parameter in model.parameters()]
    unipet.import_peft(model, tmp_path)
    assert close(logits(model, arch), expected)
    assert not close(plain, expected)
    unipet.save(model, tmp_path / "ours")
    other = ARCHS[arch].build()
    unipet.load(other, tmp_path / "ours")
    assert torch.equal(logits(other, arch), logits(model, arch))
    unipet.export_peft(model, tmp_path / "theirs")
    assert close(
        logits(peft.PeftModel.from_pretrained(ARCHS[arch].build(), str(tmp_path / "theirs")).eval(), arch), expected
    )
    unipet.merge(other)
    assert close(logits(other, arch), expected)
    unipet.eject(model)
    assert all(torch.equal(one, two) for one, two in zip(weights, model.parameters(), strict=True))


@pytest.mark.parametrize("init", ["pissa", "olora"])
def test_renormalised_rows_over_a_start(init: str, tmp_path: Path) -> None:
    expected = trained(tmp_path, "llama", init_lora_weights=init, use_dora=True)
    model = ARCHS["llama"].build()
    unipet.import_peft(model, tmp_path)
    assert close(logits(model, "llama"), expected)


def test_a_transposed_weight(tmp_path: Path) -> None:
    expected = trained(tmp_path, "gpt2", init_lora_weights="pissa", fan_in_fan_out=True)
    model = ARCHS["gpt2"].build()
    unipet.import_peft(model, tmp_path)
    assert close(logits(model, "gpt2"), expected)
    path = tmp_path / "adapter_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "init_lora_weights": "olora"}))
    model = ARCHS["gpt2"].build()
    with pytest.raises(unipet.UnipetError, match=r"init_lora_weights: 'olora' at .*, a Conv1D, takes the transposed"):
        unipet.import_peft(model, tmp_path)
    assert not hasattr(model, "_unipet")


def test_what_peft_has_converted_is_an_ordinary_adapter(tmp_path: Path) -> None:
    config = peft.LoraConfig(r=4, lora_alpha=7, target_modules=TARGETS["bert"], init_lora_weights="pissa")
    theirs: Any = peft.get_peft_model(ARCHS["bert"].build(), config).eval()
    theirs.peft_config["default"].init_lora_weights = True
    theirs.save_pretrained(tmp_path / "start")
    theirs.peft_config["default"].init_lora_weights = "pissa"
    with torch.no_grad():
        for name, parameter in theirs.named_parameters():
            if "lora_" in name:
                parameter.add_(0.1)
    expected = logits(theirs, "bert")
    theirs.save_pretrained(tmp_path / "out", path_initial_model_for_weight_conversion=str(tmp_path / "start"))
    model = ARCHS["bert"].build()
    unipet.import_peft(model, tmp_path / "out")
    assert close(logits(model, "bert"), expected)


@pytest.mark.parametrize(
    ("init", "match"),
    [
        ("pissa_niter_4", "init_lora_weights: 'pissa_niter_4' cannot be imported: its start is drawn at random"),
        ("corda", "init_lora_weights: 'corda' cannot be imported: .*data"),
        ("loftq", "init_lora_weights: 'loftq' cannot be imported: it puts quantised weights"),
        ("lora_ga", "init_lora_weights: 'lora_ga' cannot be imported: .*gradients"),
        ("pisa", "init_lora_weights: 'pisa' is unknown.*Did you mean 'pissa'"),
        (7, "init_lora_weights: 7 is unknown"),
    ],
)
def test_starts_that_are_lost_are_refused_by_name(init: Any, match: str, tmp_path: Path) -> None:
    trained(tmp_path, "bert")
    path = tmp_path / "adapter_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "init_lora_weights": init}))
    model = ARCHS["bert"].build()
    with pytest.raises(unipet.UnipetError, match=match):
        unipet.import_peft(model, tmp_path)
    assert not hasattr(model, "_unipet") and all(parameter.requires_grad for parameter in model.parameters())
