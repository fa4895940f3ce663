"""Regularisers: their formulas, their schedules, and an objective as data."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import pytest
import torch

from unipet.calculus.objectives import (
    REGULARISERS,
    SCHEDULES,
    Answers,
    Balance,
    Consistency,
    Distillation,
    L2ToInit,
    Objective,
    Orthogonality,
    RDrop,
    Regulariser,
    Weights,
    parse_objective,
)
from unipet.calculus.router_use import RouterUse
from unipet.errors import UnipetError


def symmetric_kl(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    p, q = a.softmax(-1), b.softmax(-1)
    return 0.5 * ((p * (p / q).log()).sum() + (q * (q / p).log()).sum()) / len(a)


@pytest.mark.parametrize("rule", [Consistency(), RDrop()])
@pytest.mark.parametrize("regression", [False, True])
def test_views_agree_by_the_symmetric_divergence(rule: Any, regression: bool) -> None:
    a, b = torch.randn(4, 1 if regression else 3), torch.randn(4, 1 if regression else 3)
    expected = ((a - b) ** 2).mean() if regression else symmetric_kl(a, b)
    torch.testing.assert_close(rule.term(Answers([a, b], regression)), expected, atol=1e-6, rtol=1e-5)
    assert float(rule.term(Answers([a, a], regression))) == pytest.approx(0, abs=1e-6)


def test_more_views_are_the_mean_over_pairs() -> None:
    a, b, c = torch.randn(3, 4, 3).unbind(0)
    expected = (symmetric_kl(a, b) + symmetric_kl(a, c) + symmetric_kl(b, c)) / 3
    torch.testing.assert_close(Consistency(views=3).term(Answers([a, b, c])), expected, atol=1e-6, rtol=1e-5)


def test_detached_targets_give_the_published_gradient() -> None:
    """½(softmax(a) - softmax(b))/N for the first view, as measured on the released code; R-Drop has the full gradient."""
    a, b = torch.randn(4, 3, requires_grad=True), torch.randn(4, 3, requires_grad=True)
    Consistency().term(Answers([a, b])).backward()
    assert a.grad is not None and torch.allclose(a.grad, 0.5 * (a.softmax(-1) - b.softmax(-1)) / 4, atol=1e-6)
    for rule in (Consistency(stop_gradient=False), RDrop()):
        full = a.detach().clone().requires_grad_(), b.detach().clone().requires_grad_()
        rule.term(Answers(full)).backward()
        own = a.detach().clone().requires_grad_()
        symmetric_kl(own, b.detach()).backward()
        assert full[0].grad is not None and own.grad is not None
        torch.testing.assert_close(full[0].grad, own.grad, atol=1e-6, rtol=1e-4)
        assert not torch.allclose(full[0].grad, a.grad, atol=1e-4)


def test_distillation_is_the_divergence_from_the_teacher_at_a_temperature() -> None:
    student, teacher = torch.randn(4, 3, requires_grad=True), torch.randn(4, 3)
    p, q = (teacher / 2).softmax(-1), (student / 2).softmax(-1)
    expected = 4 * (p * (p / q).log()).sum() / 4
    found = Distillation(temperature=2.0).term(Answers([student], teacher=teacher))
    torch.testing.assert_close(found, expected, atol=1e-6, rtol=1e-5)
    (gradient,) = torch.autograd.grad(found, student)
    torch.testing.assert_close(gradient, 2 * (q - p) / 4, atol=1e-6, rtol=1e-4)
    number = Distillation().term(Answers([student[:, :1]], regression=True, teacher=teacher[:, :1]))
    torch.testing.assert_close(number, ((student[:, :1] - teacher[:, :1]) ** 2).mean())


def test_orthogonality_of_rows_and_of_experts() -> None:
    wide, tall = torch.randn(2, 5), torch.randn(5, 2)
    weights = Weights([("down", [wide]), ("up", [tall]), ("bias", [torch.randn(5)])])
    each = [((m @ m.T - torch.eye(2)) ** 2).sum() for m in (wide, tall.T)]
    torch.testing.assert_close(Orthogonality().term(weights), torch.stack(each).mean())
    torch.testing.assert_close(Orthogonality(slots=["up"]).term(weights), each[1])
    assert float(Orthogonality().term(Weights([("down", [torch.eye(2, 5)])]))) == pytest.approx(0, abs=1e-6)
    same, other = torch.tensor([1.0, 0.0]), torch.tensor([0.0, 3.0])
    experts = Orthogonality(between="experts")
    assert float(experts.term(Weights([("down", [same, 2 * same, other])]))) == pytest.approx(1 / 3)
    zero = torch.zeros(2, requires_grad=True)
    experts.term(Weights([("down", [zero, other])])).backward()
    assert zero.grad is not None and torch.isfinite(zero.grad).all()
    with pytest.raises(
        UnipetError, match=r"between experts needs a slot with several experts.*\(this method has down\)"
    ):
        experts.term(Weights([("down", [wide])]))
    with pytest.raises(UnipetError, match=r"a slot that holds a matrix among left \(this method has down, up, bias\)"):
        Orthogonality(slots=["left"]).term(weights)


def test_l2_to_init_is_the_squared_distance() -> None:
    weights = Weights(
        learned={"a": torch.tensor([1.0, 2.0])},
        head={"h": torch.tensor([5.0])},
        start={"a": torch.tensor([0.0, 4.0]), "h": torch.tensor([2.0])},
    )
    assert float(L2ToInit().term(weights)) == 5.0
    assert float(L2ToInit(head=True).term(weights)) == 14.0
    with pytest.raises(UnipetError, match=r"l2_to_init needs something that trains besides the head; set head=true"):
        L2ToInit().term(Weights(head=weights.head, start=weights.start))


def use(probabilities: list[list[float]], place: str = "ffn/0/down") -> RouterUse:
    known = torch.tensor(probabilities, requires_grad=True)
    return RouterUse(place, known, torch.nn.functional.one_hot(known.argmax(-1), known.shape[1]))


def test_balance_is_one_where_the_load_is_even_and_grows_with_what_one_expert_takes() -> None:
    def term(*uses: RouterUse) -> torch.Tensor:
        return Balance().term(uses, {each.place: each.counts() for each in uses})

    even, uneven = use([[1.0, 0.0], [0.0, 1.0]], "ffn/1/down"), use([[0.9, 0.1], [0.7, 0.3]])
    assert term(even).item() == pytest.approx(1)
    assert term(uneven).item() == pytest.approx(2 * 1.0 * 0.8)
    assert term(uneven, even).item() == pytest.approx((1.6 + 1) / 2)
    term(uneven).backward()
    assert uneven.probabilities_NM.grad is not None and uneven.probabilities_NM.grad[0, 0] > 0
    with pytest.raises(UnipetError, match="balance needs a learned router"):
        term()


def test_the_shares_of_micro_batches_add_up_to_the_balance_of_the_batch() -> None:
    rows = torch.rand(7, 3).softmax(-1).tolist()
    whole = use(rows)
    counts = {whole.place: whole.counts()}
    pieces = [use(rows[:3]), use(rows[3:])]
    found = sum(Balance().term([piece], counts).item() for piece in pieces)
    assert found == pytest.approx(Balance().term([whole], counts).item())
    assert sum(Balance().term([piece], {piece.place: piece.counts()}).item() for piece in pieces) != pytest.approx(
        found
    )


@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize("over", [0.1, 0.5, 1.0])
def test_schedules(schedule: str, over: float) -> None:
    weights = [Regulariser(weight=2.0, schedule=schedule, over=over).weight_at(step, 20) for step in range(20)]
    assert all(0 < weight <= 2.0 for weight in weights)
    changing = math.ceil(20 * over) - 1 if schedule != "constant" else 0
    assert sum(weight < 2.0 - 1e-12 for weight in weights) == changing
    assert max(weights) == 2.0
    assert weights == sorted(weights, reverse=schedule.endswith("decay"))


@pytest.mark.parametrize("name", REGULARISERS)
def test_an_objective_is_read_back_from_what_it_writes(name: str) -> None:
    whole = parse_objective({name: {"weight": 0.25}, "second": {"name": name, "schedule": "cosine_decay"}}, "objective")
    assert parse_objective(whole.to_dict(), "objective") == whole
    assert isinstance(whole.of(REGULARISERS[name])[name], REGULARISERS[name])
    assert whole.full_weights()[name] == 0.25
    assert whole.terms == ("task", *sorted([name, "second"])) and whole.scheduled == ["second"]


def test_short_forms_and_the_order() -> None:
    assert (
        parse_objective(None, "o")
        == parse_objective({}, "o")
        == parse_objective({"consistency": None}, "o")
        == Objective()
    )
    assert parse_objective({"r_drop": 0.5}, "o").of(RDrop)["r_drop"].weight == 0.5
    two = {"r_drop": 1, "consistency": {"views": 3}}
    assert parse_objective(two, "o") == parse_objective(dict(reversed(two.items())), "o")
    both = parse_objective(two, "o")
    assert (both.views, both.task_views, Objective().views, Objective().task_views) == (3, 2, 1, 1)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ("r_drop", r"o: 'r_drop' given; allowed: a mapping from a name to a regulariser"),
        ({"r_drp": 1}, r"o\.r_drp: .*Did you mean 'r_drop'.*name=REGULARISER"),
        ({"mine": {"name": "r_drp"}}, r"o\.mine\.name: unknown 'r_drp'.*Did you mean 'r_drop'"),
        ({"r_drop": {"wieght": 1}}, r"o\.r_drop\.wieght: regulariser 'r_drop' has no option .*Did you mean 'weight'"),
        ({"r_drop": -1}, r"o\.r_drop\.weight: -1 given|o\.r_drop.*at least 0"),
        ({"task": {"name": "r_drop"}}, r"o\.task: .*other than 'task'"),
        ({"a b": {"name": "r_drop"}}, r"o\.a b: .*letters, digits"),
        ({"r_drop": {"schedule": "linear"}}, r"o\.r_drop\.schedule: unknown 'linear'.*linear_warmup"),
        ({"r_drop": {"over": 0}}, r"o\.r_drop\.over: 0 given; .*greater than 0"),
        ({"consistency": {"views": 1}}, r"o\.consistency\.views: 1 given"),
        ({"r_drop": True}, r"o\.r_drop: True given"),
    ],
)
def test_mistakes_are_one_clear_error(given: Any, said: str) -> None:
    with pytest.raises(UnipetError, match=said):
        parse_objective(given, "o")


def test_every_regulariser_has_the_options_of_all() -> None:
    common = {field.name for field in dataclasses.fields(Regulariser)}
    assert all(common <= {field.name for field in dataclasses.fields(cls)} for cls in REGULARISERS.values())
