"""Distillation from an earlier run and from the base model; what an objective leaves in the metrics of a run."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import unipet
from tests.support.running import LOW_RANK, run_dir, run_id, tiny_config
from tests.support.tasks import config_of, write_arch
from tests.support.tiny import tiny_batch, tiny_bert
from unipet.calculus.library import load_method
from unipet.config import RunConfig
from unipet.errors import UnipetError
from unipet.runs.run import run
from unipet.runs.teachers import load_teachers
from unipet.training.teachers import put_beside


def distilling(run: Path | str | None, **options: Any) -> dict[str, Any]:
    rule = {"name": "distillation", "run": None if run is None else str(run), **options}
    return {**LOW_RANK, "objective": {"teacher": rule}}


def lines_of(config: RunConfig) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (run_dir(config) / "metrics.jsonl").read_text().splitlines()]


def test_a_run_learns_from_an_earlier_one(tmp_path: Path) -> None:
    teacher = tiny_config(tmp_path, optim__epochs=2)
    assert run(teacher)["status"] == "ok"
    config = tiny_config(tmp_path, distilling(run_dir(teacher), weight=2.0, schedule="linear_warmup"), seed=1)
    record = run(config)
    assert record["status"] == "ok", record
    assert list(record["identity"]["teachers"]) == ["teacher"]
    lines = lines_of(config)
    assert all(line["loss"] == pytest.approx(line["loss/task"] + line["loss/teacher"], rel=1e-5) for line in lines)
    weights = [line["weight/teacher"] for line in lines]
    assert weights == sorted(weights) and weights[0] < weights[-1] == 2.0
    assert lines[-1]["loss/teacher"] > 0
    assert not any(name.startswith("weight/") or "/" in name for line in lines_of(teacher) for name in line)


def test_the_teachers_content_is_identity_and_its_path_is_not(tmp_path: Path) -> None:
    teachers = [tiny_config(tmp_path, seed=seed, optim__epochs=1) for seed in (0, 1)]
    for each in teachers:
        assert run(each)["status"] == "ok"
    ids = [run_id(tiny_config(tmp_path, distilling(run_dir(each)))) for each in teachers]
    shutil.copytree(run_dir(teachers[0]) / "adapter", tmp_path / "elsewhere")
    moved = run_id(tiny_config(tmp_path, distilling(tmp_path / "elsewhere")))
    assert ids[0] != ids[1] and ids[0] == moved
    assert run_id(tiny_config(tmp_path, distilling(run_dir(teachers[0]), temperature=2.0))) not in ids


def test_a_teacher_that_cannot_teach_is_an_error_before_anything_is_written(tmp_path: Path) -> None:
    config = tiny_config(tmp_path, distilling(None))
    with pytest.raises(UnipetError, match=r"objective\.teacher\.run: null means the base model.*random"):
        run(config)
    config = tiny_config(tmp_path, distilling("nowhere"))
    with pytest.raises(UnipetError, match=r"objective\.teacher\.run: nowhere is neither a finished run nor a saved"):
        run(config)
    assert not (tmp_path / "runs").exists()


def saved(directory: Path, method: dict[str, Any]) -> nn.Module:
    """A model that was adapted and changed, and its adapter in a directory."""
    model = tiny_bert()
    unipet.adapt(model, method)
    with torch.no_grad():
        for tensor in unipet.parameters(model, head=True).values():
            tensor.add_(torch.randn_like(tensor))
    unipet.save(model, directory)
    return model.eval()


@pytest.mark.parametrize("unfreeze", [["head"], ["head", "norm"], ["all"]])
def test_a_teacher_says_what_its_run_said_whatever_the_model_learns(tmp_path: Path, unfreeze: list[str]) -> None:
    taught = {**LOW_RANK, "unfreeze": unfreeze}
    original = saved(tmp_path / "teacher", taught)
    model, batch = tiny_bert(), tiny_batch(4)
    state = torch.get_rng_state()
    teachers = load_teachers(load_method(distilling(tmp_path / "teacher")), model)
    assert torch.equal(torch.get_rng_state(), state)
    unipet.adapt(model, {**LOW_RANK, "unfreeze": unfreeze})
    put_beside(teachers, model, torch.device("cpu"))
    frozen = {each.data_ptr() for each in model.parameters() if not each.requires_grad}
    shared = [each for each in teachers["teacher"].parameters() if each.data_ptr() in frozen]
    assert len(shared) > 10 if unfreeze != ["all"] else not shared
    with torch.no_grad():
        for each in model.parameters():
            if each.requires_grad:
                each.add_(1.0)
        torch.testing.assert_close(teachers["teacher"](**batch).logits, original(**batch).logits)
    assert not any(each.requires_grad for each in teachers["teacher"].parameters())


def test_the_base_model_teaches_a_language_model(tmp_path: Path) -> None:
    """Its output layer is pretrained, so before the first step teacher and model agree."""

    model = write_arch(tmp_path / "model", "gpt2", add_special=False)
    method = {**distilling(None, weight=3.0), "insertions": {"a": {"function": "low_rank", "position": "attn.q"}}}
    config = config_of("causal_generation", tmp_path, model, method, optim_epochs=4, optim_lr=0.1)
    config.runs_dir = str(tmp_path / "runs")
    record = run(config)
    assert record["status"] == "ok", record
    told = [line["loss/teacher"] for line in lines_of(config)]
    assert told[0] == pytest.approx(0, abs=1e-5) and told[-1] > 1e-6
