"""Zero-shot: a method that trains nothing evaluates the base model as it is, where its answers mean something."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

import unipet
from tests.support.running import run_dir, tiny_config
from tests.support.tasks import config_of, write_arch
from unipet.calculus.library import load_method
from unipet.calculus.method import parse_method
from unipet.errors import UnipetError
from unipet.runs.base_model import load_base_model
from unipet.runs.run import evaluate, run
from unipet.tasks import collate, encode, load_task, readout
from unipet.training.evaluation import predict

ZERO_SHOT = {"name": "zero_shot", "insertions": {}, "unfreeze": ["nothing"]}
KINDS = {"masked_prompt": ("bert", "BertForMaskedLM", True), "causal_prompt": ("gpt2", None, False)}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("selection", ["none", "train_holdout"])
def test_the_record_has_the_base_models_own_answers(kind: str, selection: str, tmp_path: Path) -> None:
    arch, model, special = KINDS[kind]
    path = write_arch(tmp_path / "model", arch, model, add_special=special)
    config = config_of(kind, tmp_path, path, ZERO_SHOT, selection=selection, demonstrations=1)
    record = run(config)
    assert record["status"] == "ok", record["error"]
    assert (record["time"]["steps"], record["stopped_by"], record["params"]["trainable"]) == (0, "nothing trains", 0)
    base, tokens = load_base_model(config.model, [], False, kind)
    encoded = encode(load_task(config.task), tokens, config.task)
    logits, _ = predict(base, encoded.evaluation, collate(tokens), 4, "fp32", readout(config.task, tokens))
    lines = [json.loads(line) for line in (run_dir(config) / "predictions.jsonl").read_text().splitlines()]
    torch.testing.assert_close(
        torch.tensor([line["logits"] for line in lines]), torch.tensor(logits), rtol=1e-4, atol=1e-5
    )
    assert evaluate(run_dir(config))["reproduced"]


def test_a_new_output_layer_has_no_answers_yet(tmp_path: Path) -> None:
    with pytest.raises(
        UnipetError, match=r"method=zero_shot trains nothing, but the output layer of task\.kind=classification"
    ):
        run(tiny_config(tmp_path, ZERO_SHOT))


def test_nothing_is_asked_for_by_name(tmp_path: Path) -> None:
    method = load_method(ZERO_SHOT)
    assert not method.trains and parse_method(method.to_dict()) == method
    assert unipet.load_method("head_only").trains
    with pytest.raises(
        UnipetError, match=r"nothing would train.*unfreeze: \[nothing\] evaluates the base model as it is"
    ):
        parse_method({"name": "none", "insertions": {}, "unfreeze": []})
    for parts in (["nothing", "head"], ["nothing"]):
        given = {"name": "none", "insertions": {"a": {"function": "low_rank", "position": "attn.q"}}, "unfreeze": parts}
        with pytest.raises(UnipetError, match=r"method\.unfreeze: unknown 'nothing'"):
            parse_method(given)
