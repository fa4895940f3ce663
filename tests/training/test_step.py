"""The loss of a step: every regulariser changes it and is told apart, and micro-batches change nothing."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import unipet
from tests.support.running import LOW_RANK, MIXTURE
from tests.support.tiny import tiny_batch, tiny_bert
from unipet.adaptation.adapted import adaptation
from unipet.calculus.library import load_method
from unipet.calculus.router_use import RouterUse
from unipet.errors import UnipetError
from unipet.runs.forecast.flops import flop_counter
from unipet.training.ranks import Ranks
from unipet.training.start_values import StartValues
from unipet.training.step import Loss

OBJECTIVES: dict[str, dict[str, Any]] = {
    "consistency": {},
    "consistency of three": {"name": "consistency", "views": 3},
    "r_drop": {},
    "distillation": {},
    "orthogonality": {},
    "orthogonal experts": {"name": "orthogonality", "between": "experts"},
    "l2_to_init": {"head": True},
    "balance": {},
}


def method_with(*names: str, weight: float = 0.7) -> dict[str, Any]:
    rules = {name.replace(" ", "_"): {"name": name, "weight": weight, **OBJECTIVES[name]} for name in names}
    return {**MIXTURE, "objective": rules}


class Gate(nn.Module):
    """Stands for a learned router: reports what it would do with the rows of its layer's output."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(3, model.config.hidden_size, dtype=torch.float64))  # type: ignore[union-attr,arg-type]
        self.model = [model]

    def hook(self, module: nn.Module, inputs: Any, output: Tensor) -> None:
        p_NM = (output.mean(1) @ self.weight.T).softmax(-1)
        chosen_NM = nn.functional.one_hot(p_NM.argmax(-1), 3)
        adaptation(self.model[0]).context.uses.append(RouterUse("gate", p_NM, chosen_NM))


def world(method: dict[str, Any], dropout: bool = False) -> tuple[nn.Module, Gate, Loss]:
    """An adapted model away from its start, a gate in it, and the loss with a teacher for every regulariser."""
    torch.manual_seed(0)
    model = tiny_bert().double()
    teacher = copy.deepcopy(model).eval()
    unipet.adapt(model, method)
    start = StartValues(unipet.parameters(model, head=True))
    with torch.no_grad():
        for tensor in unipet.parameters(model, head=True).values():
            tensor.add_(0.3 * torch.randn_like(tensor))
    for module in model.modules():
        if isinstance(module, nn.Dropout) and not dropout:
            module.p = 0.0
    gate = Gate(model)
    model.bert.encoder.layer[0].output.dense.register_forward_hook(gate.hook)  # type: ignore[union-attr,index]
    objective = load_method(method).objective
    loss = Loss(objective, teachers=dict.fromkeys(objective.full_weights(), teacher), start=start.values)
    model.train()
    return model, gate, loss


def gradients(
    method: dict[str, Any], micro_batch: int, count: int = 1, dropout: bool = False, **given: Any
) -> tuple[float, dict[str, float], dict[str, Tensor]]:
    """Loss, terms and gradients of one step, as the sum of `count` processes."""
    model, gate, loss = world(method, dropout)
    batch = {**tiny_batch(7), "labels": torch.tensor([0, 1, 1, 0, 1, 0, 0])}
    total, terms = 0.0, dict[str, float]()
    counts: list[Tensor] = []  # of the whole batch, as processes tell each other

    def note(found: dict[str, Tensor]) -> None:
        for name, value in found.items():
            terms[name] = terms.get(name, 0.0) + float(value)

    if count > 1:
        adaptation(model).draw(0, 0)
        uses = loss._of_answers(model, batch, loss.objective.full_weights())[1]
        counts.append(uses[0].counts())
    for rank in range(count):
        rows = Ranks(rank, count).part(7)
        adaptation(model).draw(0, 0)
        adaptation(model).routing.first_row = rows.start
        add_up = (lambda own: counts[0]) if count > 1 else None
        total += float(loss.gradients(model, batch, micro_batch, rows=rows, note=note, add_up=add_up, **given))
    found = {**unipet.parameters(model, head=True), "gate": gate.weight}
    return total, terms, {name: each.grad for name, each in found.items() if each.grad is not None}


@pytest.mark.parametrize("name", OBJECTIVES)
def test_every_regulariser_changes_the_loss_and_the_gradients(name: str) -> None:
    key = name.replace(" ", "_")
    plain, _, without = gradients({**MIXTURE, "objective": {}}, 7, dropout=True)
    one, terms, with_one = gradients(method_with(name), 7, dropout=True)
    double, more, _ = gradients(method_with(name, weight=1.4), 7, dropout=True)
    assert terms[key] > 1e-6 and more[key] == pytest.approx(2 * terms[key], rel=1e-5)
    assert one == pytest.approx(sum(terms.values()), rel=1e-6)
    assert double - one == pytest.approx(terms[key], rel=1e-4, abs=2e-7)  # totals near 1, in float32
    assert any(not torch.equal(with_one[key], without.get(key, torch.zeros(()))) for key in with_one)
    if load_method(method_with(name)).objective.views == 1:
        assert terms["task"] == pytest.approx(plain, rel=1e-6)


@pytest.mark.parametrize("name", [*OBJECTIVES, "all"])
@pytest.mark.parametrize(("micro_batch", "count"), [(2, 1), (7, 3), (2, 2)])
def test_micro_batches_and_processes_change_nothing(name: str, micro_batch: int, count: int) -> None:
    method = method_with(*(OBJECTIVES if name == "all" else [name]))
    loss, terms, whole = gradients(method, 7)
    of_parts, of_terms, sums = gradients(method, micro_batch, count)
    assert of_parts == pytest.approx(loss, rel=1e-6)
    assert of_terms == pytest.approx(terms, rel=1e-5)
    assert sums.keys() == whole.keys()
    for key, gradient in whole.items():
        torch.testing.assert_close(sums[key], gradient, rtol=1e-5, atol=1e-7)


def test_counting_the_routing_leaves_the_random_streams_as_they_were() -> None:
    """With dropout, micro-batches see the same masks whether or not the routing was counted in a pass before them."""
    method = {
        **method_with("consistency", "balance", weight=0.0),
        "insertions": {"ffn": {**MIXTURE["insertions"]["ffn"], "mixture": {"experts": 3, "router": "per_example"}}},
    }
    _, _, counted = gradients(method, 2, dropout=True)
    without = {**method, "objective": {"consistency": method["objective"]["consistency"]}}
    _, _, plain = gradients(without, 2, dropout=True)
    assert plain
    for name, gradient in plain.items():
        assert torch.equal(counted[name], gradient), name


def test_the_weight_is_that_of_the_step() -> None:
    method = method_with("l2_to_init")
    _, full, _ = gradients(method, 7)
    _, half, _ = gradients(method, 7, weights={"l2_to_init": 0.35})
    assert half["l2_to_init"] == pytest.approx(full["l2_to_init"] / 2)


def test_the_task_loss_of_r_drop_is_the_mean_of_both_views_and_of_consistency_the_firsts() -> None:
    model, _, _ = world({**MIXTURE, "objective": {}})
    batch = {**tiny_batch(7), "labels": torch.tensor([0, 1, 1, 0, 1, 0, 0])}
    inputs = {name: value for name, value in batch.items() if name != "labels"}
    adaptation(model).draw(0, 0)
    with torch.no_grad(), adaptation(model).views(2):
        logits = model(**{name: torch.cat([value, value]) for name, value in inputs.items()}).logits
    views = [float(nn.functional.cross_entropy(each.float(), batch["labels"])) for each in logits.split(7)]
    assert views[0] != pytest.approx(views[1], rel=1e-3)  # each view has its own route
    assert gradients(method_with("consistency"), 7)[1]["task"] == pytest.approx(views[0], rel=1e-6)
    assert gradients(method_with("r_drop"), 7)[1]["task"] == pytest.approx(sum(views) / 2, rel=1e-6)


def test_a_teacher_gets_no_gradient_and_stays_as_it_is() -> None:
    model, _, loss = world(method_with("distillation"))
    teacher = loss.teachers["distillation"]
    before = {name: each.clone() for name, each in teacher.state_dict().items()}
    batch = {**tiny_batch(7), "labels": torch.tensor([0, 1, 1, 0, 1, 0, 0])}
    adaptation(model).draw(0, 0)
    loss.gradients(model, batch, 7)
    assert all(each.grad is None for each in teacher.parameters()) and not teacher.training and model.training
    assert all(torch.equal(each, before[name]) for name, each in teacher.state_dict().items())


def test_balance_without_a_learned_router_is_an_error() -> None:
    model = tiny_bert()
    method = {**LOW_RANK, "objective": {"balance": 1.0}}
    unipet.adapt(model, method)
    batch = {**tiny_batch(4), "labels": torch.tensor([0, 1, 1, 0])}
    with pytest.raises(UnipetError, match="balance needs a learned router"):
        Loss(load_method(method).objective).gradients(model, batch, 4)


@pytest.mark.parametrize("name", ["consistency", "r_drop"])
def test_two_views_take_at_most_twice_the_operations_of_one(name: str) -> None:
    def operations(objective: dict[str, Any]) -> int:
        model, _, loss = world({**MIXTURE, "objective": objective})
        batch = {**tiny_batch(7), "labels": torch.tensor([0, 1, 1, 0, 1, 0, 0])}
        adaptation(model).draw(0, 0)
        with flop_counter() as flops:
            loss.gradients(model, batch, 7)
        return int(flops.get_total_flops())

    one, two = operations({}), operations({name: 1.0})
    assert 1.8 * one < two <= 2.0 * one
