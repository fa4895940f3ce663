"""`unipet train` on every kind of base model, as its checkpoint comes: train, evaluate, save, merge; and what cannot."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForSequenceClassification, AutoTokenizer, PreTrainedModel

import unipet
from tests.calculus.test_sites_draft import offered, unknown
from tests.support.architectures import ARCHS
from tests.support.tiny import tiny_tokenizer
from unipet.cli.main import main
from unipet.config import ModelConfig
from unipet.errors import UnipetError
from unipet.runs.base_model import load_base_model, skeleton
from unipet.runs.record_files import read_config

TASK = ["task=synthetic_verdicts", "task.max_train=24", "task.max_evaluation=12", "task.max_length=24"]
TASK += ["task.selection_size=12"]
SHORT = [*TASK, "budget.max_steps=2", "optim.batch_size=8", "optim.lr=0.03"]
#: Saved as language models (a base model without a head, for ModernBERT), the way the hub has them.
KINDS = ["gpt2", "llama", "bart", "t5", "modernbert"]


def write(model: PreTrainedModel, directory: Path, pad: bool = True, eos: bool = True) -> Path:
    """A checkpoint and its tokeniser; without `pad`, neither says how to pad, as GPT-2's and Llama's do not."""
    tokenizer = tiny_tokenizer()
    tokenizer.eos_token = "</s>" if eos else None
    if not pad:
        tokenizer.pad_token = model.config.pad_token_id = None
    model.save_pretrained(directory)
    tokenizer.save_pretrained(directory)
    return directory


def checkpoint(name: str, directory: Path) -> Path:
    model = ARCHS[name].build()
    return write(model.model if name == "modernbert" else model, directory, pad=name not in ("gpt2", "llama"))


@pytest.mark.parametrize("arch", KINDS)
def test_from_train_to_merge(
    arch: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    directory = checkpoint(arch, tmp_path / "model")
    argv = ["train", "method=lora", "model=auto", f"model.path={directory}", *SHORT]
    assert main(argv) == 0, capsys.readouterr()
    (run,) = (tmp_path / "runs").glob("[!.]*")
    record = json.loads((run / "result.json").read_text())
    assert record["status"] == "ok" and record["time"]["steps"] == 2 and record["insertions"][0]["foldable"]
    capsys.readouterr()
    assert main(["evaluate", str(run)]) == 0 and "reproduced" in capsys.readouterr().out
    assert main(["merge", str(run), "merged"]) == 0

    config = read_config(run / "config.yaml")
    model, tokenizer = load_base_model(config.model, config.task.labels, regression=False)
    before = {key: value.clone() for key, value in model.state_dict().items()}
    unipet.load(model, run / "adapter")
    merged = AutoModelForSequenceClassification.from_pretrained(tmp_path / "merged").eval()
    batch = AutoTokenizer.from_pretrained(tmp_path / "merged")(["w1 w2 w3 w4", "w9"], padding=True, return_tensors="pt")
    batch = {key: batch[key] for key in ("input_ids", "attention_mask")}
    assert batch["input_ids"].tolist() == tokenizer(["w1 w2 w3 w4", "w9"], padding=True)["input_ids"]
    with torch.no_grad():
        expected, plain = model.eval()(**batch).logits, merged(**batch).logits
        alone = merged(**{key: value[1:, :3] for key, value in batch.items()}).logits
    assert torch.allclose(plain, expected, atol=1e-5)
    assert torch.allclose(plain[1:], alone, atol=1e-5), "padding changes the answer"
    folded = merged.state_dict()
    assert any(not torch.equal(folded[key], value) for key, value in before.items() if ".layer" in key or ".h." in key)


def test_an_architecture_without_a_table_runs_with_a_users(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    model = unknown("phi")
    write(model, tmp_path / "model")  # type: ignore[arg-type]
    argv = ["train", "method=lora", "model=auto", "model.path=model", *SHORT]
    assert main(argv) == 2
    assert offered(model) in capsys.readouterr().err and not (tmp_path / "runs").exists()
    (tmp_path / "mine.yaml").write_text(offered(model))
    assert main([*argv, "model.sites=mine.yaml"]) == 0
    (run,) = (tmp_path / "runs").glob("[!.]*")
    (tmp_path / "mine.yaml").unlink()
    assert main(["evaluate", str(run)]) == 0 and main(["merge", str(run), "merged"]) == 0
    assert "reproduced" in capsys.readouterr().out
    assert main([*argv, "model.sites=mine.yaml", "seed=1"]) == 2 and "no file 'mine.yaml'" in capsys.readouterr().err


@pytest.mark.parametrize("arch", KINDS)
def test_a_checkpoint_with_other_labels_loads_in_silence(
    arch: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    directory = checkpoint(arch, tmp_path)
    capfd.readouterr()
    model, _ = load_base_model(ModelConfig("auto", str(directory)), ["a", "b", "c", "d"], regression=False)
    assert model.config.id2label == {0: "a", 1: "b", 2: "c", 3: "d"} and model.config.num_labels == 4
    assert capfd.readouterr() == ("", "")


def test_the_padding_token_is_the_tokenisers(tmp_path: Path) -> None:
    """A decoder's head looks for the last token that is not padding, by the configuration's padding token."""
    llama = ARCHS["llama"].build()
    llama.config.pad_token_id = 7
    model, tokenizer = load_base_model(ModelConfig("auto", str(write(llama, tmp_path / "a"))), ["a", "b"], False)
    assert model.config.pad_token_id == tokenizer.pad_token_id == 0
    model, tokenizer = load_base_model(
        ModelConfig("auto", str(write(llama, tmp_path / "b", pad=False))), ["a", "b"], False
    )
    assert model.config.pad_token_id == tokenizer.pad_token_id == tokenizer.eos_token_id == 2
    with pytest.raises(UnipetError, match="neither a padding nor an end-of-sequence token"):
        load_base_model(ModelConfig("auto", str(write(llama, tmp_path / "c", pad=False, eos=False))), ["a", "b"], False)


def test_positions_that_count_from_the_padding_token_stay(tmp_path: Path) -> None:
    roberta = ARCHS["roberta"].build()
    roberta.config.pad_token_id = 3
    directory = write(type(roberta)(roberta.config), tmp_path)
    model, tokenizer = load_base_model(ModelConfig("auto", str(directory)), ["a", "b"], False)
    assert (model.config.pad_token_id, tokenizer.pad_token_id) == (3, 0)


def test_an_encoder_decoder_wants_its_end_of_sequence_token(tmp_path: Path) -> None:
    bart = ARCHS["bart"].build()
    bart.config.eos_token_id = 9
    with pytest.raises(UnipetError, match=r"end-of-sequence token 9, which the tokenizer of .* does not put"):
        load_base_model(ModelConfig("auto", str(write(bart, tmp_path))), ["a", "b"], False)


def test_what_has_no_classifier_can_be_described_but_not_trained(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    write(ARCHS["marian"].build(), tmp_path / "model")
    model = ModelConfig("auto", "model")
    for load in (lambda: skeleton(model, "classification"), lambda: load_base_model(model, ["a", "b"], False)):
        with pytest.raises(UnipetError, match=r"task\.kind=classification: .*does not support this kind"):
            load()
    assert main(["train", "method=lora", "model=auto", "model.path=model", *SHORT]) == 2
    assert "does not support this kind" in capsys.readouterr().err and not (tmp_path / "runs").exists()
    assert main(["describe", "method=lora", "model=auto", "model.path=model"]) == 0
    assert "2 x model.decoder.layers.*.self_attn.q_proj" in capsys.readouterr().out
