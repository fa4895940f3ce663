"""Half precision in training: what computes in it, the scale of the loss under float16, and what `auto` chooses."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from tests.support.running import LOW_RANK, MIXTURE, run_id, tiny_config
from tests.support.tiny import tiny_bert
from tests.training.test_trainer import fit
from unipet.adaptation.api import parameters
from unipet.runs.prepare import prepare
from unipet.runs.run import run
from unipet.training import precision
from unipet.training.loss_scale import FIRST, PATIENCE, LossScale, Overflow
from unipet.training.objective_trainer import Diverged, ObjectiveTrainer


@pytest.mark.parametrize(("name", "dtype"), [("bf16", torch.bfloat16), ("fp16", torch.float16)])
def test_products_are_in_half_precision_and_what_trains_in_float32(
    tmp_path: Path, name: str, dtype: torch.dtype
) -> None:
    seen: set[torch.dtype] = set()
    model = tiny_bert()
    model.bert.encoder.layer[0].intermediate.dense.register_forward_hook(
        lambda module, args, output: seen.add(output.dtype)
    )
    _, trained, lines = fit(tmp_path, LOW_RANK, model=model, precision=name, optim__epochs=6)
    assert seen == {dtype}
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}
    assert lines[-1]["loss"] < lines[0]["loss"] and trained.steps == 18


@pytest.mark.parametrize("method", [LOW_RANK, MIXTURE], ids=lambda method: method["name"])
@pytest.mark.parametrize("name", ["bf16", "fp16"])
def test_gradients_are_those_of_float32(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, method: dict[str, Any], name: str
) -> None:
    """To a part in thirty of the largest: bfloat16 has 8 bits, and several roundings add up."""
    found: dict[str, dict[str, Tensor]] = {}
    original = ObjectiveTrainer.training_step

    def watched(self: Any, model: Any, inputs: Any) -> Tensor:
        loss = original(self, model, inputs)
        here = {key: each.grad.clone() for key, each in parameters(model, head=True).items() if each.grad is not None}
        found.setdefault(self.loss.precision, here)  # of the first step
        return loss

    monkeypatch.setattr(ObjectiveTrainer, "training_step", watched)
    for each in ("fp32", name):
        fit(tmp_path, method, precision=each, budget__max_steps=1)
    assert found[name].keys() == found["fp32"].keys()
    largest = max(float(gradient.abs().max()) for gradient in found["fp32"].values())
    for key, gradient in found["fp32"].items():
        assert found[name][key].isfinite().all()
        assert torch.allclose(found[name][key], gradient, rtol=0, atol=largest / 30), key


def test_small_gradients_survive_float16(tmp_path: Path) -> None:
    """Half a rank's width of 1e-9: without scaling float16 rounds all of it to zero."""
    tensor = torch.nn.Parameter(torch.ones(3))

    def gradients() -> Tensor:
        loss = (tensor.half() * torch.full((3,), 2.0**-12, dtype=torch.float16)).sum().float() * 2.0**-14
        (loss * scale.scale).backward()
        return loss.detach()

    scale = LossScale()
    scale.scale = 1.0
    scale.step(gradients, [tensor])
    assert tensor.grad is not None and not tensor.grad.any()
    tensor.grad, scale.scale = None, FIRST
    scale.step(gradients, [tensor])
    assert tensor.grad is not None and torch.equal(tensor.grad, torch.full((3,), 2.0**-26))


def test_a_step_that_overflows_is_computed_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the same dropout and the same experts, so that the losses are those of a scale that fitted at once."""
    model = tiny_bert()
    for module in model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.1
    per_example = json.loads(json.dumps(MIXTURE))
    per_example["insertions"]["ffn"]["mixture"] = {"experts": 3, "router": "per_example"}
    seen = []
    state = {name: each.clone() for name, each in model.state_dict().items()}
    for first in (2.0**24, 2.0**6):
        monkeypatch.setattr("unipet.training.loss_scale.FIRST", first)
        model = tiny_bert()
        for module in model.modules():
            if isinstance(module, torch.nn.Dropout):
                module.p = 0.1
        model.load_state_dict(state)
        scales: list[float] = []
        original = LossScale.step

        def watched(self: LossScale, *given: Any, _original: Any = original, _scales: Any = scales) -> Tensor:
            result: Tensor = _original(self, *given)
            _scales.append(self.scale)
            return result

        with monkeypatch.context() as patch:
            patch.setattr(LossScale, "step", watched)
            _, _, lines = fit(tmp_path, per_example, model=model, precision="fp16")
        seen.append(([line["loss"] for line in lines], scales))
    (again, lowered), (at_once, kept) = seen
    assert lowered[-1] < 2.0**24 and set(kept) == {2.0**6}, "nothing overflowed, or 64 was too much"
    assert again[0] == at_once[0]  # before any rounding differs
    assert again == pytest.approx(at_once, rel=1e-2)


def test_the_scale_grows_again_and_has_a_state() -> None:
    tensor, overflows = torch.nn.Parameter(torch.ones(())), [True, True, False]

    def gradients() -> Tensor:
        tensor.grad = torch.tensor(torch.inf if overflows and overflows.pop(0) else scale.scale)
        return torch.zeros(())

    scale, times = LossScale(), []
    scale.step(gradients, [tensor], lambda: times.append(1))
    assert scale.scale == FIRST / 4 and len(times) == 2 and tensor.grad == 1.0
    for _ in range(PATIENCE - 2):
        scale.step(gradients, [tensor])
    assert scale.scale == FIRST / 4
    other = LossScale()
    other.resume(scale.state())
    for each in (scale, other):
        scale = each
        each.step(gradients, [tensor])
        assert each.scale == FIRST / 2


def test_no_scale_will_do() -> None:
    tensor = torch.nn.Parameter(torch.ones(()))

    def gradients() -> Tensor:
        tensor.grad = torch.tensor(torch.nan)
        return torch.zeros(())

    with pytest.raises(Overflow):
        LossScale().step(gradients, [tensor])


def test_what_float16_cannot_hold_is_said(tmp_path: Path) -> None:
    model = tiny_bert()
    with torch.no_grad():
        model.bert.encoder.layer[0].output.dense.weight.mul_(1e7)
    with pytest.raises(Diverged, match=r"at step 1 of .*float16 ends at 65504.*precision=bf16"):
        fit(tmp_path, LOW_RANK, model=model, precision="fp16")
    model = tiny_bert()
    with torch.no_grad():
        model.bert.encoder.layer[0].output.dense.weight.mul_(1e7)
    fit(tmp_path, LOW_RANK, model=model, precision="bf16")


@pytest.mark.parametrize(("native", "chosen"), [(True, "bf16"), (False, "fp32")])
def test_auto_is_what_the_device_has(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, native: bool, chosen: str
) -> None:
    """A run is what it computes: under `auto` it has the identity of the precision that was chosen."""
    monkeypatch.setattr(precision, "native_bf16", lambda: native)
    config = tiny_config(tmp_path, LOW_RANK, precision="auto", budget__max_steps=1)
    assert prepare(config).resolved["precision"] == chosen
    assert run_id(config) == run_id(tiny_config(tmp_path, LOW_RANK, precision=chosen, budget__max_steps=1))
    assert run(config)["status"] == "ok"
    assert f"precision: {chosen}\n" in (prepare(config).directory / "config.yaml").read_text()


def test_this_processor_is_read() -> None:
    assert precision.native_bf16() in (True, False)
    assert precision.chosen_precision("fp16") == "fp16"
