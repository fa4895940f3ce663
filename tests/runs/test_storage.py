"""Base models stored in half precision or in 8 or 4 bits: trained, saved, loaded, resumed, merged; and what is refused."""

from __future__ import annotations

import copy
import json
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from transformers import AutoModelForSequenceClassification

import unipet
from tests.support.resuming import assert_same, config_in, finished, killed
from tests.support.running import LOW_RANK, run_dir, run_id, tiny_config
from unipet.calculus.weights import quantised, size
from unipet.cli.main import main
from unipet.config import RunConfig
from unipet.errors import UnipetError
from unipet.runs import storage
from unipet.runs.base_model import load_base_model_of
from unipet.runs.prepare import prepare
from unipet.runs.record_files import read_record
from unipet.runs.run import evaluate, run

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # what a library warns of when it is imported is its own business
    pytest.importorskip("bitsandbytes", reason="bitsandbytes is not installed: pip install unipet[quantised]")

BFLOAT16: dict[str, Any] = {"model__dtype": "bf16", "precision": "bf16"}
FLOAT16: dict[str, Any] = {"model__dtype": "fp16", "precision": "fp16"}
FOUR: dict[str, Any] = {"model__quantization": "4bit"}
EIGHT: dict[str, Any] = {"model__quantization": "8bit"}
QLORA = {**FOUR, **BFLOAT16}
STORED = [BFLOAT16, FLOAT16, FOUR, EIGHT, QLORA]
NAMES = ["bf16", "fp16", "4bit", "8bit", "qlora"]


def loaded(config: RunConfig) -> Any:
    record = read_record(run_dir(config) / "result.json")
    return load_base_model_of(prepare(config).config, record)[0]


@pytest.mark.parametrize("stored", STORED, ids=NAMES)
def test_a_run_trains_saves_and_is_evaluated_again(tmp_path: Path, stored: dict[str, Any]) -> None:
    config = tiny_config(tmp_path, LOW_RANK, optim__epochs=6, **stored)
    record = run(config)
    assert record["status"] == "ok", record["error"]
    assert record["precision"] == config.precision
    lines = [json.loads(line) for line in (run_dir(config) / "metrics.jsonl").read_text().splitlines()]
    assert lines[-1]["loss"] < lines[0]["loss"]
    assert all(line["grad_norm"] > 0 for line in lines)
    assert evaluate(run_dir(config))["reproduced"]
    model = loaded(config)
    inner = model.bert.encoder.layer[0].intermediate.dense.weight
    bits = {"4bit": torch.uint8, "8bit": torch.int8}
    assert inner.dtype == bits.get(
        config.model.quantization or "", {"bf16": torch.bfloat16}.get(config.model.dtype, inner.dtype)
    )
    assert model.classifier.weight.dtype == torch.float32
    plain = tiny_config(tmp_path, LOW_RANK, optim__epochs=6)
    assert record["params"] == prepare(plain).fit.report.to_dict()["params"]
    predicted, whole = record["fitted"]["predicted_parts_gib"], run(plain)["fitted"]["predicted_parts_gib"]
    assert predicted["weights"] < whole["weights"], "the prediction knows how weights are stored"


@pytest.mark.parametrize("stored", STORED, ids=NAMES)
def test_predicted_weights_are_the_bytes_that_are_held(tmp_path: Path, stored: dict[str, Any]) -> None:
    config = tiny_config(tmp_path, LOW_RANK, budget__max_steps=1, **stored)
    predicted = run(config)["fitted"]["predicted_parts_gib"]["weights"] * 2**30
    model = loaded(config)
    unipet.adapt(model, LOW_RANK)
    held = sum(each.nbytes for each in (*model.parameters(), *model.buffers()))
    for module in model.modules():
        state = getattr(getattr(module, "weight", None), "quant_state", None)
        if state is not None:
            held += state.absmax.nbytes + state.state2.absmax.nbytes + state.state2.code.nbytes
        elif config.model.quantization == "8bit" and type(module).__name__ == "Linear8bitLt":
            held += 4 * module.out_features
    assert predicted == pytest.approx(held, rel=0.01)


@pytest.mark.parametrize("stored", [BFLOAT16, FLOAT16, QLORA, EIGHT], ids=["bf16", "fp16", "qlora", "8bit"])
def test_a_killed_run_ends_as_an_undisturbed_one(tmp_path: Path, stored: dict[str, Any]) -> None:
    """Scoring checkpoints in between must not change the stored weights: the second process has not scored them."""
    selection = {"task__selection": "train_holdout", "task__selection_size": 8, "optim__epochs": 3}
    alone = config_in(tmp_path, LOW_RANK, "alone", None, **stored, **selection)
    config = config_in(tmp_path, LOW_RANK, "killed", "3 steps", **stored, **selection)
    finished(alone)
    killed(config, 7)
    assert finished(config)["resumed"] == [6]
    assert_same(alone, config)


@pytest.mark.parametrize("stored", STORED, ids=NAMES)
def test_merging_gives_a_float32_model_with_the_outputs_that_were_trained(
    tmp_path: Path, stored: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    config = tiny_config(tmp_path, LOW_RANK, optim__epochs=6, **stored)
    run(config)
    assert main(["merge", str(run_dir(config)), str(tmp_path / "merged")]) == 0
    merged: Any = AutoModelForSequenceClassification.from_pretrained(tmp_path / "merged").eval()
    assert {parameter.dtype for parameter in merged.parameters()} == {torch.float32}
    assert not getattr(merged.config, "quantization_config", None)
    model = loaded(config)
    unipet.load(model, run_dir(config) / "adapter")
    ids = torch.arange(5, 45).view(4, 10)
    half = torch.autocast(
        "cpu", {"bf16": torch.bfloat16}.get(config.precision, torch.float16), config.precision != "fp32"
    )
    with torch.no_grad(), half:
        expected = model.eval()(input_ids=ids).logits.float()
    found = merged(input_ids=ids).logits
    rounding = {"fp32": 1e-4, "fp16": 1e-2, "bf16": 3e-2}[config.precision]
    if config.model.quantization == "8bit":
        rounding = 3e-2  # inputs have 8 bits, too
    assert torch.allclose(found, expected, rtol=0, atol=rounding * float(expected.abs().max()))
    with torch.no_grad(), half:
        bare = loaded(config).eval()(input_ids=ids).logits.float()
    assert not torch.allclose(found, bare, rtol=0, atol=2 * rounding), "the adapter changes nothing that could be seen"


def test_in_python_a_quantised_model_keeps_refusing_to_fold(tmp_path: Path) -> None:
    config = tiny_config(tmp_path, LOW_RANK, budget__max_steps=1, **FOUR)
    run(config)
    model = loaded(config)
    unipet.load(model, run_dir(config) / "adapter")
    with pytest.raises(UnipetError, match="the weight is stored quantised"):
        unipet.merge(model)


def test_what_reads_weights_is_refused_before_any_are_loaded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    method = copy.deepcopy(LOW_RANK)
    method["insertions"]["attention"]["composition"] = "normalise"
    with pytest.raises(UnipetError, match="stored quantised"):
        prepare(tiny_config(tmp_path, method, **FOUR))
    prepare(tiny_config(tmp_path, method))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model__dtype": "bf16"}, r"model\.dtype: weights stored as bf16 need precision=bf16"),
        ({"model__dtype": "half"}, r"model\.dtype"),
        ({"model__quantization": "2bit"}, r"model\.quantization"),
        ({"model__attention": "flash"}, r"model\.attention: unknown 'flash'.*flash_attention_2"),
        ({"precision": "half"}, r"precision"),
        (
            {**BFLOAT16, "method": {"name": "biases", "insertions": {}, "unfreeze": ["bias"]}},
            r"method\.unfreeze: \['bias'\] trains parameters .* bf16 would round away.*model\.dtype=fp32",
        ),
        (
            {**FOUR, "method": {"name": "all", "insertions": {}, "unfreeze": ["all"]}},
            r"method\.unfreeze: 'all' includes .* stored quantised",
        ),
    ],
)
def test_one_error_says_what_to_do(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(UnipetError, match=message):
        prepare(tiny_config(tmp_path, **changes))
    assert not (tmp_path / "runs").exists()


def test_a_library_that_is_missing_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(storage, "find_spec", lambda name: None)
    with pytest.raises(UnipetError, match=r"model\.quantization: 4bit given.*pip install 'unipet\[quantised\]'"):
        prepare(tiny_config(tmp_path, LOW_RANK, **FOUR))


def test_an_attention_that_is_not_installed_is_named(tmp_path: Path) -> None:
    if torch.cuda.is_available():
        pytest.skip("it may be installed")
    with pytest.raises(
        UnipetError, match=r"model\.attention: flash_attention_2 cannot be used with this base model here"
    ):
        prepare(tiny_config(tmp_path, LOW_RANK, model__attention="flash_attention_2"))


def test_attention_is_the_one_that_was_asked_for(tmp_path: Path) -> None:
    for asked in ("eager", "sdpa"):
        config = tiny_config(tmp_path, LOW_RANK, model__attention=asked, budget__max_steps=1)
        assert run(config)["status"] == "ok"
        assert loaded(config).config._attn_implementation == asked


def test_each_key_makes_another_run(tmp_path: Path) -> None:
    changes: list[dict[str, Any]] = [
        *({}, BFLOAT16, FLOAT16, FOUR, EIGHT, QLORA, {"precision": "bf16"}, {"precision": "fp16"}, {"compile": True}),
        *({"checkpointing": True}, {"model__attention": "eager"}),
    ]
    assert len({run_id(tiny_config(tmp_path, **each)) for each in changes}) == len(changes)


def test_counts_of_a_marked_skeleton(tmp_path: Path) -> None:
    """Before any weights are loaded the same modules look quantised that are quantised when they are."""
    config = tiny_config(tmp_path, LOW_RANK, budget__max_steps=1, **FOUR)
    built = prepare(config).fit.draft.model
    run(config)
    there = {name for name, each in loaded(config).named_parameters() if quantised(each)}
    assert {name for name, each in built.named_parameters() if quantised(each)} == there != set()
    assert sum(map(size, built.parameters())) == sum(map(size, loaded(config).parameters()))
    assert isinstance(built, nn.Module)
