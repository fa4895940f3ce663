"""Directories of the adapters library: built from its own outputs' oracles, under its own names, read to the same outputs."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

import unipet
from tests.support.oracle_comparing import compare, outputs
from tests.support.oracle_reading import PRESENT, Oracle, base_model, index, oracle
from unipet.adaptation.adapted import adaptation

beside = pytest.mark.skipif(not PRESENT, reason="no oracles beside this checkout")
NAMES = sorted(name for name, entry in index()["oracles"].items() if entry["group"] == "adapters")
#: What the library computes that nothing here does, with the words of the refusal.
REFUSED = {"adapters_bert_vera": "vera_d"}
NAME = "a"  # as the oracles' adapters are called


def written(which: Oracle, folder: Path, tensors: dict[str, Tensor] | None = None, **changes: Any) -> Path:
    """The directory that the library would have saved: its configuration, and its tensors by its own names."""
    folder.mkdir(parents=True, exist_ok=True)
    config = {
        "config": {**which.config, **changes.pop("config", {})},
        "name": NAME,
        "version": "adapters.1.3.0",
        **changes,
    }
    (folder / "adapter_config.json").write_text(json.dumps(config))
    save_file(named(which) if tensors is None else tensors, folder / "adapter.safetensors")
    return folder


def named(which: Oracle) -> dict[str, Tensor]:
    found = {}
    for name, parts in which.entry["reference_names"].items():
        own = [which.tensors[f"delta/{part}"] for part in parts]
        found[name] = (own[0] if len(own) == 1 else flat_prefix(own)).contiguous()
        if name.endswith(("lora_B", "m.weight")) and found[name].dim() == 1:
            found[name] = found[name].unsqueeze(1)  # the library keeps vectors as columns
    return found


def flat_prefix(parts: list[Tensor]) -> Tensor:
    """Keys and values of all layers, (l, heads, width) each, in one vector, as the library holds them."""
    return torch.stack(parts, dim=1).flatten()


@beside
@pytest.mark.parametrize("name", [name for name in NAMES if name not in REFUSED])
def test_an_imported_directory_computes_what_the_library_computed(name: str, tmp_path: Path) -> None:
    which = oracle(name)
    model = base_model(which)
    unipet.import_adapters(model, written(which, tmp_path / "there"))
    with torch.no_grad():
        compare(which, outputs(model(**which.inputs(), output_hidden_states=True)))


@beside
def test_it_is_saved_and_loaded_as_any_method(tmp_path: Path) -> None:
    which = oracle("adapters_bert_unipelt")
    model = base_model(which)
    unipet.import_adapters(model, written(which, tmp_path / "there"))
    unipet.save(model, tmp_path / "ours")
    again = base_model(which)
    unipet.load(again, tmp_path / "ours")
    with torch.no_grad():
        assert torch.equal(model(**which.inputs())[0], again(**which.inputs())[0])


@beside
def test_names_of_a_model_with_a_head_are_those_of_its_base_model(tmp_path: Path) -> None:
    which = oracle("adapters_bert_seq_bn")
    model = base_model(which)
    unipet.import_adapters(model, written(which, tmp_path, {f"bert.{name}": own for name, own in named(which).items()}))
    with torch.no_grad():
        compare(which, outputs(model(**which.inputs(), output_hidden_states=True)))


@beside
def test_a_pool_that_is_stored_with_every_layer_is_read_once(tmp_path: Path) -> None:
    """The library's state dict has the prefixes of all layers below each layer."""
    which = oracle("adapters_bert_prefix_mlp")
    tensors = named(which)
    again = {name.replace("layer.0", "layer.1"): own.clone() for name, own in tensors.items()}
    model = base_model(which)
    unipet.import_adapters(model, written(which, tmp_path / "twice", {**tensors, **again}))
    with torch.no_grad():
        compare(which, outputs(model(**which.inputs(), output_hidden_states=True)))
    broken = {name: own + 1 for name, own in again.items()}
    with pytest.raises(unipet.UnipetError, match="stored twice, with other values"):
        unipet.import_adapters(base_model(which), written(which, tmp_path / "other", {**tensors, **broken}))


@beside
def test_a_map_of_before_scales_were_applied_keeps_what_it_learned(tmp_path: Path) -> None:
    """The library reads alpha as r in adapters of before 1.1.0."""
    which = oracle("adapters_bert_lora")
    old, plain = base_model(which), base_model(which)
    unipet.import_adapters(old, written(which, tmp_path / "old", version="adapters.1.0.1"))
    r = which.config["r"]
    unipet.import_adapters(plain, written(which, tmp_path / "plain", config={"alpha": r}))
    with torch.no_grad():
        assert which.config["alpha"] != r
        assert torch.equal(old(**which.inputs())[0], plain(**which.inputs())[0])


def drop(part: str) -> Callable[[dict[str, Tensor]], dict[str, Tensor]]:
    return lambda tensors: {name: own for name, own in tensors.items() if part not in name}


def add(name: str) -> Callable[[dict[str, Tensor]], dict[str, Tensor]]:
    return lambda tensors: {**tensors, name: torch.ones(2)}


WRONG: dict[str, tuple[Callable[[dict[str, Tensor]], dict[str, Tensor]], dict[str, Any], str]] = {
    "a tensor is missing": (drop("layer.1.output.adapters.a.adapter_up.bias"), {}, "adapter_up.bias .* is missing"),
    "a foreign tensor": (add("invertible_adapters.a.F.0.weight"), {}, "no tensor of 'a' that can be imported"),
    "a tensor too many": (add("encoder.layer.0.output.adapters.a.more"), {}, "more has no place here"),
    "another model's place": (
        add("encoder.layer.0.somewhere.adapters.a.adapter_up.bias"),
        {},
        "no place of this base model",
    ),
    "an option without counterpart": (dict, {"ln_after": True}, "ln_after: 'True' has no counterpart"),
    "an unknown activation": (dict, {"non_linearity": "leakyrelu"}, "non_linearity: 'leakyrelu'"),
    "an unknown architecture": (dict, {"architecture": "reft"}, "architecture 'reft' cannot be imported"),
    "a scaling of another type": (dict, {"scaling": [1]}, r"scaling: '\[1\]' given"),
    "a switch that is a text": (dict, {"is_parallel": "yes"}, "is_parallel: 'yes' given; allowed: true or false"),
    "a union of nothing": (dict, {"architecture": "union", "configs": []}, "config.configs"),
}


@beside
@pytest.mark.parametrize("name", WRONG)
def test_what_is_not_understood_is_refused_and_changes_nothing(name: str, tmp_path: Path) -> None:
    which = oracle("adapters_bert_seq_bn")
    change, config, words = WRONG[name]
    model = base_model(which)
    before = {key: tensor.clone() for key, tensor in model.state_dict().items()}
    with pytest.raises(unipet.UnipetError, match=words):
        unipet.import_adapters(model, written(which, tmp_path, change(named(which)), config=config))
    with pytest.raises(unipet.UnipetError):
        adaptation(model)
    assert all(torch.equal(tensor, before[key]) for key, tensor in model.state_dict().items())


@beside
@pytest.mark.parametrize(
    ("name", "key"),
    [
        ("adapters_bert_lora", "r"),
        ("adapters_bert_prefix_mlp", "prefix_length"),
        ("adapters_bert_prefix_mlp", "bottleneck_size"),
        ("adapters_bert_prefix_flat", "prefix_length"),
        ("adapters_bert_compacter", "phm_dim"),
        ("adapters_bert_compacter", "phm_rank"),
    ],
)
def test_sizes_are_those_of_the_tensors_before_anything_is_allocated(name: str, key: str, tmp_path: Path) -> None:
    which = oracle(name)
    with pytest.raises(unipet.UnipetError, match=rf"{key}: 1000000 given, and the tensors have \d+"):
        unipet.import_adapters(base_model(which), written(which, tmp_path, config={key: 1_000_000}))


@beside
@pytest.mark.parametrize("name", REFUSED)
def test_what_nothing_here_computes_is_refused_by_name(name: str, tmp_path: Path) -> None:
    which = oracle(name)
    with pytest.raises(unipet.UnipetError, match=REFUSED[name]):
        unipet.import_adapters(base_model(which), written(which, tmp_path))


@beside
def test_a_pickle_is_never_read_and_its_conversion_is(tmp_path: Path) -> None:
    which = oracle("adapters_bert_seq_bn")
    folder = written(which, tmp_path / "there")
    tensors = load_file(folder / "adapter.safetensors")
    (folder / "adapter.safetensors").unlink()

    class Evil:
        def __reduce__(self) -> tuple[Any, ...]:
            return (Path.touch, (tmp_path / "canary",))

    torch.save({**tensors, "evil": Evil()}, folder / "pytorch_adapter.bin")
    with pytest.raises(unipet.UnipetError, match=r"pickle.*convert it once") as caught:
        unipet.import_adapters(base_model(which), folder)
    assert not (tmp_path / "canary").exists()
    torch.save(tensors, folder / "pytorch_adapter.bin")
    command = str(caught.value).split('python -c "')[1].rsplit('"', 1)[0]
    import os

    here = os.getcwd()
    os.chdir(folder)
    try:
        exec(command)  # as the error says
    finally:
        os.chdir(here)
    model = base_model(which)
    unipet.import_adapters(model, folder)
    with torch.no_grad():
        compare(which, outputs(model(**which.inputs(), output_hidden_states=True)))


@pytest.mark.parametrize(
    ("config", "words"),
    [
        (None, "adapter_config.json is missing"),
        ({"peft_type": "LORA"}, "directory of peft's. Read it with unipet.import_peft"),
        ({"name": "a", "config": "seq_bn"}, "needs name and config"),
        ([], "needs name and config"),
    ],
)
def test_a_folder_of_something_else_says_what_it_is(config: Any, words: str, tmp_path: Path) -> None:
    from tests.support.architectures import ARCHS

    if config is not None:
        (tmp_path / "adapter_config.json").write_text(json.dumps(config))
    with pytest.raises(unipet.UnipetError, match=words):
        unipet.import_adapters(ARCHS["bert"].build(), tmp_path)
