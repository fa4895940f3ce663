"""`unipet merge`: what it writes, a process without unipet loads to the run's outputs, in each number format; tied weights."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import unipet
from tests.support.architectures import ARCHS
from tests.support.matrix import randomise
from tests.support.running import LOW_RANK, run_dir, tiny_config
from unipet.adaptation.api import stored
from unipet.adaptation.made_up_inputs import made_up_inputs, outputs_of
from unipet.adaptation.proofs import ROUNDING, difference
from unipet.adaptation.untying import untie
from unipet.cli.main import main
from unipet.runs import merged_folder
from unipet.runs.base_model import load_base_model_of
from unipet.runs.record_files import read_record, run_config
from unipet.runs.run import run

#: A process in which unipet cannot be imported reads the folder, tokenises a text, and writes logits.
STRANGER = """
import json, sys

class Blocked:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] == "unipet":
            raise ImportError("unipet is not there")

sys.meta_path.insert(0, Blocked())
import torch
from transformers import AutoModelForSequenceClassification, AutoTokenizer

folder, text, dtype = sys.argv[1:]
tokenizer = AutoTokenizer.from_pretrained(folder)
model = AutoModelForSequenceClassification.from_pretrained(folder, dtype="auto").eval()
assert "unipet" not in sys.modules
with torch.no_grad():
    logits = model(**tokenizer(json.loads(text), padding=True, return_tensors="pt")).logits
assert {str(p.dtype) for p in model.parameters()} == {"torch." + dtype}, {p.dtype for p in model.parameters()}
print(json.dumps(logits.float().tolist()))
"""
TEXTS = ["w0 w3 w5", "w11 w12 w19 w4 w7", "w9"]
MOVED: dict[str, Any] = {**LOW_RANK, "name": "moved"}


def trained(tmp_path: Path, **changes: Any) -> Path:
    """A finished run whose adapter does a lot."""
    config = tiny_config(tmp_path, optim__epochs=3, **changes)
    assert run(config)["status"] == "ok"
    return run_dir(config)


def logits_of(directory: Path) -> torch.Tensor:
    """What the run's model says of the texts, unmerged, in float32."""
    record = read_record(directory / "result.json")
    model, tokenizer = load_base_model_of(run_config(directory, record), record)
    unipet.load(model, directory / "adapter")
    with torch.no_grad():
        found: torch.Tensor = model.eval()(**tokenizer(TEXTS, padding=True, return_tensors="pt")).logits
    return found


@pytest.mark.parametrize(("dtype", "word"), [("fp32", "float32"), ("bf16", "bfloat16"), ("fp16", "float16")])
def test_a_process_without_unipet_loads_it_to_the_same_outputs(
    dtype: str, word: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    directory, out = trained(tmp_path), tmp_path / "merged"
    expected = logits_of(directory)
    assert main(["merge", str(directory), str(out), "--dtype", dtype]) == 0
    said = capsys.readouterr().out
    limit = ROUNDING[getattr(torch, word)]
    assert f"rounding in {dtype} is up to {limit:.0e}" in said
    command = [sys.executable, "-c", STRANGER, str(out), json.dumps(TEXTS), word]
    answer = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert answer.returncode == 0, answer.stderr[-2000:]
    found = torch.tensor(json.loads(answer.stdout.splitlines()[-1]))
    scale = max(1.0, float(expected.abs().max()))
    assert float((found - expected).abs().max()) <= limit * scale
    assert {path.name for path in out.iterdir()} >= {"config.json", "model.safetensors", "tokenizer.json"}


def test_a_folder_that_computes_something_else_is_never_there(tmp_path: Path, monkeypatch: Any, capsys: Any) -> None:
    """The check that a lossy merge is seen: the weights are damaged on the way to the disk."""
    directory = trained(tmp_path)
    write = merged_folder._write

    def damaged(model: Any, tokenizer: Any, folder: Path) -> None:
        with torch.no_grad():
            model.bert.encoder.layer[0].output.dense.weight.mul_(1.5)
        write(model, tokenizer, folder)

    monkeypatch.setattr(merged_folder, "_write", damaged)
    assert main(["merge", str(directory), str(tmp_path / "out")]) == 2
    assert "more than rounding" in capsys.readouterr().err
    assert not [path for path in tmp_path.iterdir() if "out" in path.name]


def test_half_of_a_merge_is_float32_alone(tmp_path: Path, capsys: Any) -> None:
    assert main(["merge", str(tmp_path), str(tmp_path / "out"), "--partial", "--dtype", "bf16"]) == 2
    assert "--partial writes fp32 alone" in capsys.readouterr().err


# -- tied weights ------------------------------------------------------------------------------------------------------

TOKENS = {
    "name": "tokens",
    "insertions": {
        "tokens": {"function": "vector", "position": "embed.tokens", "composition": "multiply", "scaling": 1.0},
    },
}
TIED = ["llama", "gpt2", "qwen2"]


def tied(arch: str) -> Any:
    return type(ARCHS[arch].build())._from_config(_tied_config(arch)).eval()


def _tied_config(arch: str) -> Any:
    config = ARCHS[arch].build().config
    config.tie_word_embeddings = True
    return config


@pytest.mark.parametrize("arch", TIED)
def test_what_is_inserted_says_that_a_tied_output_layer_does_not_fold(arch: str) -> None:
    model = tied(arch)
    maps = {
        "function": {"name": "low_rank", "size": 2},
        "position": "head.tokens",
        "composition": "add",
        "scaling": 1.0,
    }
    report = unipet.adapt(model, {"name": "words", "insertions": {"maps": maps}}).to_dict()
    assert {row["why_not"] for row in report["insertions"]} == {"the weight is tied to another module"}
    with pytest.raises(unipet.UnipetError, match=r"tied to another module.*unipet merge --untie"):
        unipet.merge(model)


@pytest.mark.parametrize("arch", TIED)
def test_an_adapted_tied_embedding_is_refused_with_what_to_do_and_merges_untied(arch: str, tmp_path: Path) -> None:
    model = tied(arch)
    unipet.adapt(model, TOKENS)
    randomise(model)
    inputs = made_up_inputs(model)
    before = outputs_of(model, inputs)
    with pytest.raises(unipet.UnipetError, match=r"tied to another module.*unipet merge --untie"):
        unipet.merge(model)
    assert difference(before, outputs_of(model, inputs)) == 0.0
    made = untie(model)
    assert made and model.config.tie_word_embeddings is False
    assert difference(before, outputs_of(model, inputs)) == 0.0, "giving each its own copy changes nothing"
    assert unipet.merge(model) == {"tokens": "folded"}
    model.save_pretrained(tmp_path)
    again = type(model).from_pretrained(tmp_path).eval()
    assert again.config.tie_word_embeddings is False
    head, embedding = again.get_output_embeddings().weight, again.get_input_embeddings().weight
    assert head is not embedding and not torch.equal(head, embedding), "tied again, the output layer would be changed"
    assert difference(before, outputs_of(again, inputs)) < 1e-4


def test_a_model_whose_configuration_cannot_say_so_is_loaded_apart(tmp_path: Path) -> None:
    """T5's always says that it is tied; transformers keeps weights that differ apart, and scales as before."""
    model = tied("t5")
    unipet.adapt(model, TOKENS)
    randomise(model)
    inputs = made_up_inputs(model)
    before = outputs_of(model, inputs)
    untie(model)
    unipet.merge(model)
    model.save_pretrained(tmp_path)
    assert difference(before, outputs_of(type(model).from_pretrained(tmp_path), inputs)) < 1e-4


def test_nothing_is_untied_where_nothing_is_shared() -> None:
    model = ARCHS["bert"].build()
    assert untie(model) == []


def test_a_model_that_cannot_say_that_it_is_untied_is_refused() -> None:
    model = ARCHS["bert"].build()
    model.bert.encoder.layer[1].output.dense.weight = model.bert.encoder.layer[0].output.dense.weight
    model.config.tie_word_embeddings = False
    with pytest.raises(unipet.UnipetError, match="has no tie_word_embeddings to say"):
        untie(model)


def test_the_command_unties(tmp_path: Path, capsys: Any) -> None:
    """A run of a tied language model whose method changes the token embedding alone."""
    config = _tied_config("llama")
    torch.manual_seed(0)
    base = type(ARCHS["llama"].build())._from_config(config)
    from tests.support.tiny import tiny_tokenizer

    base.save_pretrained(tmp_path / "model")
    tiny_tokenizer().save_pretrained(tmp_path / "model")
    from tests.support.running import write_task

    write_task(tmp_path / "data")
    changes: dict[str, Any] = {
        "task__kind": "causal_prompt",
        "task__text": ["{sentence} {mask}"],
        "task__verbalizers": ["w41", "w42"],
        "budget__max_steps": 2,
    }
    config_ = tiny_config(tmp_path, TOKENS, **changes)
    record = run(config_)
    assert record["status"] == "ok", record["error"]
    directory, out = run_dir(config_), tmp_path / "merged"
    assert main(["merge", str(directory), str(out)]) == 2
    assert "unipet merge --untie" in capsys.readouterr().err and not out.exists()
    assert main(["merge", str(directory), str(out), "--untie"]) == 0
    assert "no longer shared: lm_head.weight" in capsys.readouterr().out
    assert json.loads((out / "config.json").read_text())["tie_word_embeddings"] is False


@pytest.mark.parametrize("arch", ["bert", "llama", "bart", "t5", "gpt2", "vit", "modernbert"])
def test_made_up_inputs_fit_every_kind_of_model(arch: str) -> None:
    model: nn.Module = ARCHS[arch].build()
    some = outputs_of(model, made_up_inputs(model))
    assert some[0].numel() and bool(some[0].isfinite().all())
    assert difference(some, outputs_of(model, made_up_inputs(model))) == 0.0
    unipet.adapt(model, {"name": "x", "insertions": {"ffn": {"function": "bottleneck", "position": "ffn"}}})
    randomise(model)
    assert difference(some, outputs_of(model, made_up_inputs(model))) > 1e-4, "an adapter must show in them"
    assert stored(model)
