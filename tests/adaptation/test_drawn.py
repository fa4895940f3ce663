"""What loading draws (a pooler, a head that the checkpoint lacks) trains and is stored, and is no part of the base model."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from torch import Tensor, nn

import unipet
from tests.support.architectures import ARCHS
from tests.support.checkout import ROOT
from tests.support.running import LOW_RANK, run_dir, tiny_config, write_task
from tests.support.tiny import tiny_batch, tiny_tokenizer
from unipet.adaptation.api import stored
from unipet.adaptation.fingerprint import fingerprint
from unipet.calculus.sites import head_names, outside
from unipet.calculus.weights import plain_tensors
from unipet.cli.main import main
from unipet.config import ModelConfig
from unipet.errors import UnipetError
from unipet.runs.base_model import load_base_model, skeleton
from unipet.runs.run import evaluate, run

pytestmark = pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing:FutureWarning")

POOLER = ["bert.pooler.dense.bias", "bert.pooler.dense.weight"]
HEAD = ["classifier.bias", "classifier.weight"]


def without_pooler(directory: Path) -> Path:
    """A tiny BERT as its pretraining saved it: a masked language model has no pooler."""
    torch.manual_seed(3)
    config = transformers.BertConfig(
        vocab_size=len(tiny_tokenizer()),
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=48,
        max_position_embeddings=64,
        initializer_range=0.3,
    )
    transformers.BertForMaskedLM(config).save_pretrained(directory)
    tiny_tokenizer().save_pretrained(directory)
    return directory


def load(directory: Path, seed: int) -> Any:
    """As a user loads it: what the checkpoint lacks is drawn from torch's random state."""
    torch.manual_seed(seed)
    return transformers.BertForSequenceClassification.from_pretrained(directory, num_labels=2).eval()


def randomise(model: nn.Module) -> None:
    with torch.no_grad():
        for parameter in stored(model).values():
            parameter.normal_(std=0.2)


@torch.no_grad()
def logits(model: Any) -> Tensor:
    return model.eval()(**tiny_batch()).logits


@pytest.fixture()
def base(tmp_path: Path) -> Path:
    return without_pooler(tmp_path / "model")


def test_the_head_is_what_loading_reports_as_missing(base: Path) -> None:
    model, found = transformers.BertForSequenceClassification.from_pretrained(base, output_loading_info=True)
    assert head_names(model) == frozenset(found["missing_keys"]) == {*POOLER, *HEAD}
    whole = transformers.BertForSequenceClassification(model.config)
    assert head_names(whole) == set(HEAD), "never loaded, so nothing is known to have been drawn"
    bare = transformers.BertModel.from_pretrained(base)
    assert head_names(bare) == {name.removeprefix("bert.") for name in POOLER}


def test_a_resized_vocabulary_was_not_drawn(base: Path) -> None:
    model = load(base, 0)
    model.resize_token_embeddings(len(tiny_tokenizer()) + 3)
    assert head_names(model) == {*POOLER, *HEAD}


@pytest.mark.parametrize("arch", ARCHS)
def test_a_checkpoint_that_lacks_nothing_draws_nothing(arch: str, tmp_path: Path) -> None:
    """On every architecture, tied output layers and all."""
    model = ARCHS[arch].build()
    model.save_pretrained(tmp_path / "saved")
    assert head_names(type(model).from_pretrained(tmp_path / "saved")) == outside(model)


@pytest.mark.parametrize("unfreeze", [["head"], [], ["head", "norm"], ["all"]])
def test_saved_and_loaded_into_other_draws(base: Path, tmp_path: Path, unfreeze: list[str]) -> None:
    model = load(base, 1)
    unipet.adapt(model, {**LOW_RANK, "unfreeze": unfreeze})
    trains = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    assert {*POOLER, *HEAD} <= trains if unfreeze else not {*POOLER, *HEAD} & trains
    randomise(model)
    expected = logits(model)
    unipet.save(model, tmp_path / "saved")
    again = load(base, 2)
    before = {name: parameter.detach().clone() for name, parameter in again.named_parameters()}
    unipet.load(again, tmp_path / "saved")
    assert torch.equal(logits(again), expected)
    unipet.eject(again)
    assert all(torch.equal(before[name], parameter) for name, parameter in again.named_parameters())


def test_what_was_drawn_counts_as_head(base: Path) -> None:
    report = unipet.adapt(load(base, 1), LOW_RANK)
    assert report.head == (32 * 32 + 32) + (2 * 32 + 2)
    assert report.base == sum(p.numel() for n, p in load(base, 1).named_parameters() if n not in {*POOLER, *HEAD})


def test_a_merged_model_keeps_them(base: Path, tmp_path: Path) -> None:
    model = load(base, 1)
    unipet.adapt(model, LOW_RANK)
    randomise(model)
    expected = logits(model)
    unipet.merge(model)
    model.save_pretrained(tmp_path / "merged")
    assert torch.allclose(logits(load(tmp_path / "merged", 5)), expected, atol=1e-5)


@pytest.mark.parametrize("unfreeze", [["head"], []])
def test_peft_computes_the_same_from_other_draws(base: Path, tmp_path: Path, unfreeze: list[str]) -> None:
    from peft import PeftModel

    model = load(base, 1)
    unipet.adapt(model, {**LOW_RANK, "unfreeze": unfreeze})
    randomise(model)
    expected = logits(model)
    unipet.export_peft(model, tmp_path / "peft")
    assert torch.allclose(logits(PeftModel.from_pretrained(load(base, 2), tmp_path / "peft")), expected, atol=1e-5)
    again = load(base, 4)
    unipet.import_peft(again, tmp_path / "peft")
    assert torch.allclose(logits(again), expected, atol=1e-5)


@pytest.mark.parametrize("unfreeze", [["head"], []])
def test_a_run_on_it_is_evaluated_merged_and_exported(base: Path, tmp_path: Path, unfreeze: list[str]) -> None:
    write_task(tmp_path / "data")
    config = tiny_config(tmp_path, {**LOW_RANK, "unfreeze": unfreeze}, optim__lr=5e-2)
    record = run(config)
    directory = run_dir(config)
    for _ in range(2):  # each loads, and draws, anew
        assert evaluate(directory)["reproduced"]
    assert record["params"]["head"] == (1122 if unfreeze else 0)
    assert main(["merge", str(directory), str(tmp_path / "merged")]) == 0
    assert main(["export", str(directory), str(tmp_path / "peft"), "--to", "peft"]) == 0
    model, _ = load_base_model(ModelConfig(name="auto", path=str(base)), ["no", "yes"], False)
    unipet.load(model, directory / "adapter")
    assert torch.allclose(logits(load(tmp_path / "merged", 5)), logits(model), atol=1e-5)


def test_what_is_described_is_what_is_adapted(base: Path) -> None:
    """Without weights too: their names say what loading draws."""
    built = skeleton(ModelConfig(name="auto", path=str(base)), "classification")
    said, done = unipet.describe(LOW_RANK, built), unipet.adapt(load(base, 1), LOW_RANK)
    assert (said.base, said.head, said.percent) == (done.base, done.head, done.percent)


def test_a_new_head_is_described_with_its_labels(base: Path) -> None:
    config, labels = ModelConfig(name="auto", path=str(base)), ["a", "b", "c", "d"]
    said = unipet.describe(LOW_RANK, skeleton(config, "classification", labels))
    done = unipet.adapt(load_base_model(config, labels, False)[0], LOW_RANK)
    two = unipet.describe(LOW_RANK, skeleton(config, "classification"))
    assert (said.base, said.head, said.percent) == (done.base, done.head, done.percent)
    assert said.head - two.head == 2 * (32 + 1)  # rows of the output layer, and their biases


# -- the fingerprint -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("place", range(0, 65 * 32, 311))
def test_every_value_of_the_base_model_counts(base: Path, tmp_path: Path, place: int) -> None:
    model = load(base, 1)
    unipet.adapt(model, LOW_RANK)
    unipet.save(model, tmp_path / "saved")
    other = load(base, 1)
    with torch.no_grad():
        other.bert.embeddings.word_embeddings.weight.flatten()[place] += 1e-4
    with pytest.raises(UnipetError, match="another base model"):
        unipet.load(other, tmp_path / "saved")
    assert not hasattr(other, "_unipet")


def test_stored_buffers_count() -> None:
    class Normed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.norm = nn.BatchNorm1d(4)

    one, other = Normed(), Normed()
    assert fingerprint(one, ()).same(fingerprint(other, ()))
    other.norm.running_mean[2] = 0.5  # type: ignore[index]
    assert not fingerprint(one, ()).same(fingerprint(other, ()))


def test_a_cast_base_model_is_the_same_one(base: Path) -> None:
    model = load(base, 1)
    head = head_names(model)
    whole = fingerprint(model, head)
    assert whole.same(fingerprint(model.to(torch.bfloat16), head)) and whole.dtype == "float32"
    assert plain_tensors(model.classifier.weight)[0].dtype == torch.bfloat16


def test_an_adapter_of_the_format_before_still_loads(tmp_path: Path) -> None:
    """Written by the version before (its base model: `tiny_bert(True)`), with the outputs that it had."""
    from tests.support.tiny import tiny_bert

    source = ROOT / "tests" / "support" / "formats" / "adapter_2"
    model = tiny_bert(True)
    unipet.load(model, source)
    expected = torch.tensor(json.loads((source / "logits.json").read_text()))
    assert torch.allclose(logits(model), expected, atol=1e-5)
    unipet.eject(model)
    with torch.no_grad():
        next(iter(model.parameters())).mul_(2)
    with pytest.raises(UnipetError, match="another base model"):
        unipet.load(model, source)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"head": [*POOLER, *HEAD, "nowhere.weight"]}, "nowhere.weight"),
        ({"head": 3}, "head is 3, where a list belongs"),
        ({"base_model": {"name": "x"}}, "exact"),
        ({"format": 5}, "reads formats 1, 2, 3, 4"),
        ({"format": 2.0}, "has format 2.0"),
        ({"base_model": None}, "base_model needs exact"),
        ({"frozen": []}, r"frozen is \[\], where an object belongs"),
        ({"run_on_load": "os.system"}, "run_on_load means nothing"),
    ],
)
def test_a_description_that_cannot_be_meant(base: Path, tmp_path: Path, change: dict[str, Any], words: str) -> None:
    model = load(base, 1)
    unipet.adapt(model, LOW_RANK)
    path = unipet.save(model, tmp_path / "saved") / "adapter.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **change}))
    with pytest.raises(UnipetError, match=words):
        unipet.load(load(base, 2), tmp_path / "saved")
