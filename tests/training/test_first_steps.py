"""Every step of training moves something: the rates of short runs, tensors that stayed, and who learns faster."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import get_cosine_schedule_with_warmup, get_linear_schedule_with_warmup

import unipet
from tests.support.running import HEAD_ONLY, LOW_RANK, tiny_config, write_model
from tests.support.tiny import tiny_bert
from tests.training.test_trainer import fit, owned
from unipet.adaptation.adapted import adaptation
from unipet.config import OptimConfig
from unipet.errors import UnipetError
from unipet.runs.run import run
from unipet.training.lr_ratio import up_tensors
from unipet.training.movement import Movement
from unipet.training.schedule import rate, warmup_steps

SCHEDULES = next(field for field in fields(OptimConfig) if field.name == "schedule").metadata["choices"]


@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize("ratio", [0.0, 0.06, 0.5, 1.0])
@pytest.mark.parametrize("steps", [1, 2, 3, 20, 101])
def test_no_step_has_rate_zero_and_one_has_the_full_rate(schedule: str, ratio: float, steps: int) -> None:
    warmup = warmup_steps(ratio, steps)
    rates = [rate(schedule, step, steps, warmup) for step in range(1, steps + 1)]
    assert all(0 < each <= 1 for each in rates)
    assert rates[warmup] == 1.0
    assert rates[: warmup + 1] == sorted(set(rates[: warmup + 1])), "it rises from step to step"
    assert rates[warmup:] == sorted(rates[warmup:], reverse=True)


def test_rates_by_hand() -> None:
    assert [rate("linear", step, 6, 2) for step in range(1, 7)] == pytest.approx([1 / 3, 2 / 3, 1, 0.75, 0.5, 0.25])
    assert [warmup_steps(0.06, steps) for steps in (1, 2, 16, 17, 300)] == [0, 1, 1, 2, 18]
    assert [warmup_steps(1.0, steps) for steps in (1, 2, 5)] == [0, 1, 4]


@pytest.mark.parametrize(
    ("schedule", "theirs"), [("linear", get_linear_schedule_with_warmup), ("cosine", get_cosine_schedule_with_warmup)]
)
def test_after_the_warm_up_the_rates_are_those_of_transformers(schedule: str, theirs: Any) -> None:
    optimiser = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    found, other = [], theirs(optimiser, 7, 50)
    for _ in range(50):
        found.append(other.get_last_lr()[0])
        optimiser.step()
        other.step()
    assert [rate(schedule, step, 50, 7) for step in range(8, 51)] == pytest.approx(found[7:], abs=1e-12)


@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize("steps", [1, 2, 3])
@pytest.mark.parametrize("ratio", [0.06, 1.0])
def test_a_run_of_few_steps_moves(tmp_path: Path, schedule: str, steps: int, ratio: float) -> None:
    model = tiny_bert()
    unipet.adapt(model, LOW_RANK)
    torch.manual_seed(0)
    before = owned(model)
    unipet.eject(model)
    changes = {"optim__schedule": schedule, "budget__max_steps": steps, "optim__warmup_ratio": ratio}
    model, trained, lines = fit(tmp_path, LOW_RANK, model=model, optim__weight_decay=0.0, **changes)
    ups = [name for name in before if name.endswith("/up")]
    assert ups and all(owned(model)[name].any() for name in ups), "they start at zero"
    assert trained.steps == steps
    assert not set(ups) & set(trained.untrained)
    assert [line["lr"] > 0 for line in lines] == [True] * steps


def test_the_written_rates_are_those_of_the_steps(tmp_path: Path) -> None:
    _, _, lines = fit(tmp_path, LOW_RANK, optim__warmup_ratio=0.3, budget__max_steps=6)
    assert [line["lr"] / 1e-2 for line in lines] == pytest.approx([1 / 3, 2 / 3, 1, 0.75, 0.5, 0.25])


@pytest.mark.parametrize("method", [LOW_RANK, HEAD_ONLY], ids=["insertions", "head"])
def test_a_run_that_moved_nothing_failed(tmp_path: Path, method: dict[str, Any]) -> None:
    config = tiny_config(tmp_path, method, budget__max_steps=3, optim__lr=1e-38)
    write_model(tmp_path / "model", head=True)  # a head that is drawn anew has biases of zero, which any step moves
    if method is LOW_RANK:  # from zero any step moves: let the tensors begin elsewhere
        method = {**method, "insertions": {"attention": {**LOW_RANK["insertions"]["attention"]}}}
        method["insertions"]["attention"]["function"] = {"name": "low_rank", "size": 4, "init": "bert"}
        config.method = method
    record = run(config)
    assert record["status"] == "failed" and record["score"] is None
    assert record["error"]["type"] == "UnipetError"
    message = record["error"]["message"]
    assert "3 steps changed none of" in message and "raise optim.lr (it is 1e-38)" in message
    assert (
        "attention/bert.encoder.layer.0.attention.self.query/down" if method is not HEAD_ONLY else "head/"
    ) in message


def test_a_tensor_that_stayed_is_in_the_record(tmp_path: Path) -> None:
    record = run(tiny_config(tmp_path, LOW_RANK, budget__max_steps=1, optim__weight_decay=0.0))
    assert record["status"] == "ok"
    (row,) = record["insertions"]
    assert row["untrained"] and all(name.endswith("/down") for name in row["untrained"]), "up starts at zero"


def test_movement_sees_every_bit_and_no_sign_of_zero() -> None:
    values = torch.randn(2**18 + 3)
    tensors = {"one": values, "half": torch.zeros(3, dtype=torch.bfloat16), "none": torch.zeros(0)}
    watch = Movement(tensors)
    tensors["half"].neg_()
    with pytest.raises(UnipetError, match=r"1 steps changed none of 3 trainable tensors \(one, half, none\)"):
        watch.check([], 1.0, 1)
    with torch.no_grad():
        values[[5, 2**18 + 1]] = values[[2**18 + 1, 5]]  # the same numbers in other places
    assert watch.check(["one"], 1.0, 1) == ["half", "none"]
    tensors["half"][1] = 1.0
    assert watch.check(["one"], 1.0, 1) == ["none"]
    with pytest.raises(UnipetError, match="changed none of 1 trainable tensors"):
        watch.check(["none"], 1.0, 1)


#: function -> the names of its tensors that learn faster
FAST = {
    "low_rank": ({"name": "low_rank", "size": 2, "bias": True}, {}, {"up", "up.bias"}),
    "bottleneck": ({"name": "bottleneck", "size": 2}, {}, {"up.weight", "up.bias"}),
    "mixture": (
        {"name": "low_rank", "size": 2},
        {"mixture": {"experts": 2, "router": "soft", "reducer": "weighted"}},
        {"up.0", "up.1", "up.scores"},
    ),
    "bottleneck_mixture": (
        {"name": "bottleneck", "size": 2},
        {"mixture": {"experts": 2, "share": ["down"]}},
        {"up.0.weight", "up.0.bias", "up.1.weight", "up.1.bias"},
    ),
}


@pytest.mark.parametrize("case", FAST)
def test_slots_called_up_learn_faster(case: str) -> None:
    function, more, expected = FAST[case]
    spec = {"function": function, "position": {"site": ["attn.q"]}, **more}
    model = tiny_bert()
    unipet.adapt(
        model,
        {
            "name": "x",
            "insertions": {
                "up": spec,
                "other": {**spec, "function": "vector", "composition": "multiply", "mixture": None},
            },
        },
    )
    names = {id(p): name for name, p in unipet.parameters(model, head=True).items()}
    found = {names[id(tensor)] for tensor in up_tensors(adaptation(model))}
    assert {name.rsplit("/", 1)[-1] for name in found} == expected
    assert len(found) == 2 * len(expected) and all(name.startswith("up/bert") for name in found)


@pytest.mark.parametrize(
    "function", [{"name": "rotation", "size": 4}, {"name": "hadamard_product", "size": 2}], ids=lambda f: f["name"]
)
def test_slots_whose_names_only_begin_so_do_not(tmp_path: Path, function: dict[str, Any]) -> None:
    """`upper` of a rotation, `up1` and `up2` of a Hadamard product."""
    form = "sequential" if function["name"] == "rotation" else "parallel"
    spec = {"function": function, "position": {"site": ["attn.q"], "form": form}}
    if form == "sequential":
        spec["composition"] = "replace"
    with pytest.raises(UnipetError, match=r"optim\.lr_ratio: .*'x' has no `up` slot"):
        fit(tmp_path, {"name": "x", "insertions": {"a": spec}}, optim__lr_ratio=16.0)


def test_a_part_of_the_base_model_is_no_slot() -> None:
    model = tiny_bert()
    model.register_parameter("up", torch.nn.Parameter(torch.ones(2)))  # a name that a base model may have
    unipet.adapt(model, {"name": "x", "insertions": {}, "unfreeze": ["all"]})
    assert any(name.endswith("/up") for name in unipet.parameters(model, head=True))
    with pytest.raises(UnipetError, match=r"optim\.lr_ratio: .*'x' has no `up` slot"):
        up_tensors(adaptation(model))
