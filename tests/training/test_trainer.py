"""Training: the steps, the order of the data, what decays, the two views, and how it fails."""

from __future__ import annotations

import io
import json
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import unipet
from tests.support.running import HEAD_ONLY, LOW_RANK, MIXTURE, tiny_config
from tests.support.tiny import tiny_bert, tiny_tokenizer
from unipet.calculus.library import load_method
from unipet.calculus.objectives import Consistency
from unipet.config import RunConfig
from unipet.errors import UnipetError
from unipet.training.budget.limits import count_steps
from unipet.training.objective_trainer import Diverged, ObjectiveTrainer
from unipet.training.sampler import GroupedOrder
from unipet.training.trainer import Trained, train


def examples(count: int = 24) -> list[dict[str, Any]]:
    """Tokens 5..14 with label 0 or 15..24 with label 1, of varying length."""
    rows = []
    for index in range(count):
        label = index % 2
        ids = [1, *((5 + 10 * label + (index * 7 + at) % 10) for at in range(1 + index % 6)), 2]
        rows.append({"input_ids": ids, "attention_mask": [1] * len(ids), "labels": label})
    return rows


def collate(rows: list[dict[str, Any]]) -> dict[str, Tensor]:
    padded = tiny_tokenizer().pad([{key: row[key] for key in ("input_ids", "attention_mask")} for row in rows])
    return {
        "input_ids": torch.tensor(padded["input_ids"]),
        "attention_mask": torch.tensor(padded["attention_mask"]),
        "labels": torch.tensor([row["labels"] for row in rows]),
    }


def fit(
    tmp_path: Path, method: dict[str, Any], model: nn.Module | None = None, log: Any = None, **changes: Any
) -> tuple[nn.Module, Trained, list[dict[str, Any]]]:
    """Train a tiny model on `examples`; the model, what it cost, and the lines of metrics."""
    config: RunConfig = tiny_config(tmp_path, method, **changes)
    torch.manual_seed(config.seed)
    model = model or tiny_bert()
    unipet.adapt(model, method)
    lines = io.StringIO()
    objective = load_method(method).objective
    note = log or (lambda values, step: None)
    trained = train(model, objective, examples(), collate, False, config, tmp_path / "out", lines, note)
    return model, trained, [json.loads(line) for line in lines.getvalue().splitlines()]


def owned(model: nn.Module) -> dict[str, Tensor]:
    return {name: tensor.detach().clone() for name, tensor in unipet.parameters(model, head=True).items()}


def test_training_learns_and_reports(tmp_path: Path) -> None:
    logged: list[tuple[dict[str, float], int]] = []
    _, trained, lines = fit(
        tmp_path, LOW_RANK, log=lambda values, step: logged.append((values, step)), optim__lr=0.05, optim__epochs=10
    )
    assert trained.steps == 30
    assert trained.stopped_by == "epochs"
    assert trained.tokens == 10 * sum(len(row["input_ids"]) for row in examples())  # padding not counted
    assert trained.untrained == []
    assert [line["step"] for line in lines] == list(range(1, 31))
    assert lines[-1]["loss"] < 0.5 * lines[0]["loss"]
    assert lines[0]["lr"] > lines[-1]["lr"] >= 0
    assert logged[-1] == ({f"train/{key}": lines[-1][key] for key in ("loss", "lr", "grad_norm", "epoch")}, 30)


def test_nothing_is_written_but_metrics(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tiny_config(tmp_path)
    monkeypatch.chdir(tmp_path)
    before = sorted(tmp_path.rglob("*"))
    fit(tmp_path, LOW_RANK)
    after = [path for path in sorted(tmp_path.rglob("*")) if path not in before]
    assert [path for path in after if path.is_file()] == []


@pytest.mark.parametrize(
    ("epochs", "limit", "expected"),
    [
        (2, None, (6, "epochs")),
        (2, 4, (4, "max_steps")),
        (2, 6, (6, "epochs")),
        (0.01, None, (1, "epochs")),
        (2.5, 99, (8, "epochs")),
    ],
)
def test_steps(tmp_path: Path, epochs: float, limit: int | None, expected: tuple[int, str]) -> None:
    config = tiny_config(tmp_path, optim__epochs=epochs, budget__max_steps=limit)
    assert count_steps(24, config) == expected


@pytest.mark.parametrize("schedule", ["linear", "cosine", "constant"])
def test_schedules_warm_up_and_decay(tmp_path: Path, schedule: str) -> None:
    _, _, lines = fit(tmp_path, LOW_RANK, optim__schedule=schedule, optim__epochs=4, optim__warmup_ratio=0.25)
    rates = [line["lr"] for line in lines]
    assert rates[0] < rates[1] < rates[2] < max(rates) + 1e-12
    assert max(rates) == pytest.approx(1e-2)
    if schedule == "constant":
        assert rates[3:] == [pytest.approx(1e-2)] * 9
    else:
        assert rates[-1] < 0.2 * max(rates)


def test_order_is_a_function_of_seed_and_epoch_and_groups_lengths() -> None:
    sizes = [(index * 37) % 50 + 1 for index in range(1003)]
    first = GroupedOrder(sizes, 10, seed=0)
    torch.manual_seed(1)
    one, two = list(first), list(first)
    torch.manual_seed(2)
    assert list(GroupedOrder(sizes, 10, seed=0)) == one  # whatever the global random state
    assert one != two
    assert two == first.order(1)
    assert list(GroupedOrder(sizes, 10, seed=1)) != one
    assert sorted(one) == sorted(two) == list(range(1003))

    def padding(order: list[int]) -> int:
        batches = [[sizes[index] for index in order[at : at + 10]] for at in range(0, 1000, 10)]
        return sum(max(batch) * len(batch) - sum(batch) for batch in batches)

    assert padding(one) < 0.1 * padding(list(range(1003)))
    means = [sum(sizes[index] for index in one[at : at + 10]) for at in range(0, 500, 10)]
    assert means != sorted(means)  # batches themselves come in random order


def test_every_method_sees_the_same_batches(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def batches(method: dict[str, Any]) -> list[Any]:
        seen: list[Any] = []
        original = ObjectiveTrainer.training_step

        def watch(self: Any, model: nn.Module, inputs: dict[str, Any], *args: Any, **kwargs: Any) -> Any:
            seen.append(inputs["input_ids"].tolist())
            return original(self, model, inputs, *args, **kwargs)

        with monkeypatch.context() as patch:
            patch.setattr(ObjectiveTrainer, "training_step", watch)
            fit(tmp_path, method)
        return seen

    assert batches(LOW_RANK) == batches(MIXTURE) == batches(HEAD_ONLY)


def test_only_matrices_decay(tmp_path: Path) -> None:
    method = {**LOW_RANK, "unfreeze": ["head", "bias", "norm"]}
    model = tiny_bert()
    unipet.adapt(model, method)
    trainer = ObjectiveTrainer.__new__(ObjectiveTrainer)
    decays = set(trainer.get_decay_parameter_names(model))
    for name, parameter in model.named_parameters():
        assert (name in decays) == (parameter.ndim >= 2), name


def test_up_slots_learn_faster_by_the_ratio(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """LoRA+: also through warm-up and decay, and decay and clipping stay what they were."""
    made: list[Any] = []
    create = ObjectiveTrainer.create_optimizer

    def spy(self: ObjectiveTrainer, *args: Any, **kwargs: Any) -> Any:
        made.append(create(self, *args, **kwargs))
        return made[-1]

    monkeypatch.setattr(ObjectiveTrainer, "create_optimizer", spy)
    model, _, _ = fit(tmp_path, LOW_RANK, optim__lr_ratio=16.0, optim__warmup_ratio=0.5, budget__max_steps=2)
    names = {id(p): name for name, p in unipet.parameters(model, head=True).items()}
    rates = {names[id(p)]: group["initial_lr"] for group in made[0].param_groups for p in group["params"]}
    decays = {names[id(p)]: group["weight_decay"] for group in made[0].param_groups for p in group["params"]}
    assert set(rates) == set(names.values())
    for name, rate in rates.items():
        assert rate == pytest.approx(1e-2 * (16 if name.endswith("/up") else 1)), name
        assert (decays[name] > 0) == (unipet.parameters(model, head=True)[name].ndim >= 2)
    with pytest.raises(UnipetError, match=r"optim\.lr_ratio: .*'tiny_head' has no `up` slot"):
        fit(tmp_path, HEAD_ONLY, optim__lr_ratio=2.0)


def test_same_seed_same_weights_other_seed_other_weights(tmp_path: Path) -> None:
    one, two, other = (owned(fit(tmp_path, MIXTURE, seed=seed)[0]) for seed in (0, 0, 1))
    assert all(torch.equal(one[name], two[name]) for name in one)
    assert not all(torch.equal(one[name], other[name]) for name in one)


def test_consistency_changes_what_is_learned(tmp_path: Path) -> None:
    def weighted(weight: float) -> dict[str, Tensor]:
        method = {**MIXTURE, "objective": {"consistency": {"weight": weight}}}
        return owned(fit(tmp_path, method)[0])

    none, some = weighted(0.0), weighted(5.0)
    assert any(not torch.equal(none[name], some[name]) for name in none)


def test_two_views_are_one_pass_and_the_task_loss_is_the_first_views(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from unipet.training import step

    calls: list[tuple[str, tuple[int, ...]]] = []
    model = tiny_bert()
    model.bert.register_forward_pre_hook(
        lambda module, args, kwargs: calls.append(("forward", tuple(args[0].shape))), with_kwargs=True
    )
    task, consistency = step.task_loss, Consistency.term
    monkeypatch.setattr(
        step, "task_loss", lambda logits, *rest: calls.append(("task", tuple(logits.shape))) or task(logits, *rest)
    )
    monkeypatch.setattr(
        Consistency,
        "term",
        lambda rule, seen: calls.append(("consistency", tuple(seen.views[1].shape))) or consistency(rule, seen),
    )
    fit(tmp_path, MIXTURE, model=model, budget__max_steps=1)
    assert [name for name, _ in calls] == ["forward", "task", "consistency"]
    assert [shape[0] for _, shape in calls] == [16, 8, 8]  # batch of 8, stacked twice


def test_routes_hold_for_a_whole_step(tmp_path: Path) -> None:
    """One draw per optimiser step, from (step, seed): what happens between two draws cannot move the next."""
    steps: list[tuple[int, int]] = []
    model = tiny_bert()
    config = tiny_config(tmp_path, MIXTURE, seed=3, budget__max_steps=3)
    unipet.adapt(model, MIXTURE)
    adapted = model._unipet
    original = adapted.draw
    adapted.draw = lambda step, seed: steps.append((step, seed)) or original(step, seed)
    train(
        model, adapted.method.objective, examples(), collate, False, config, tmp_path, io.StringIO(), lambda v, s: None
    )
    assert steps == [(0, 3), (1, 3), (2, 3)]


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_loss_that_is_not_finite_ends_training_before_the_step(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, value: float
) -> None:
    from unipet.training import step

    count = 0
    original = step.task_loss

    def broken(*args: Any) -> Tensor:
        nonlocal count
        count += 1
        return original(*args) * (value if count == 3 else 1.0)

    monkeypatch.setattr(step, "task_loss", broken)
    model = tiny_bert()
    with pytest.raises(Diverged, match=r"became (nan|inf) at step 3 of 6\. Try a lower optim\.lr \(it is 0\.01\)"):
        fit(tmp_path, LOW_RANK, model=model)
    assert count == 3
    assert all(torch.isfinite(parameter).all() for parameter in model.parameters())


def test_a_method_that_gets_no_gradient_is_an_error(tmp_path: Path) -> None:
    method = {**LOW_RANK, "insertions": {"attention": {**LOW_RANK["insertions"]["attention"], "scaling": 0.0}}}
    with pytest.raises(UnipetError, match=r"none of the method's \d+ tensors ever received a gradient"):
        fit(tmp_path, method)


def test_experts_that_no_step_was_routed_to_are_named(tmp_path: Path) -> None:
    _, trained, _ = fit(tmp_path, MIXTURE, budget__max_steps=1)
    assert trained.untrained, "one step cannot reach every expert"
    assert all(re.fullmatch(r"ffn/.*/(down|up)\.\d\.(weight|bias)", name) for name in trained.untrained)


def test_bf16_trains_in_bfloat16_and_keeps_float32_weights(tmp_path: Path) -> None:
    seen: set[torch.dtype] = set()
    model = tiny_bert()
    model.bert.encoder.layer[0].intermediate.dense.register_forward_hook(
        lambda module, args, output: seen.add(output.dtype)
    )
    _, trained, lines = fit(tmp_path, LOW_RANK, model=model, precision="bf16", optim__epochs=6)
    assert seen == {torch.bfloat16}
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}
    assert lines[-1]["loss"] < lines[0]["loss"]
    assert trained.steps == 18


def test_micro_batches_and_checkpointing_train_the_same(tmp_path: Path) -> None:
    """Also a micro-batch that does not divide the batch, and a last batch that is not full."""
    found = {}
    for micro_batch, checkpointing in ((None, False), (3, False), (4, True)):
        config = tiny_config(tmp_path, MIXTURE, optim__batch_size=10)
        torch.manual_seed(0)
        model, lines = tiny_bert(), io.StringIO()
        unipet.adapt(model, MIXTURE)
        trained = train(
            *(model, load_method(MIXTURE).objective, examples(), collate, False, config, tmp_path / "out", lines),
            lambda values, step: None,
            micro_batch=micro_batch,
            checkpointing=checkpointing,
        )
        assert (trained.steps, trained.stopped_by) == (6, "epochs")
        assert not any(getattr(module, "gradient_checkpointing", False) for module in model.modules())
        found[micro_batch] = (trained.tokens, [json.loads(line)["loss"] for line in lines.getvalue().splitlines()])
        found[micro_batch] += (owned(model),)
    tokens, losses, weights = found[None]
    for other in (3, 4):
        assert found[other][0] == tokens
        assert found[other][1] == pytest.approx(losses, rel=1e-4)
        assert all(torch.allclose(found[other][2][name], weights[name], atol=1e-4) for name in weights)
