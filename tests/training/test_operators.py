"""The operators of a training step, pinned: a slower path of a method shows in review as a changed line of operators.json."""

from __future__ import annotations

import json

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

import unipet
from benchmarks.operators import Operators
from tests.support.architectures import ARCHS
from tests.support.operators import FLOOR, PINNED, pinned_of, rows, step_operators, versions
from unipet.calculus.library import load_method
from unipet.training.step import Loss

CONTENT = json.loads(PINNED.read_text(encoding="utf-8"))
RENEW = "if that is wanted: python -m tests.support.operators --write"


def test_every_method_has_a_row() -> None:
    assert list(CONTENT["rows"]) == rows(), RENEW


def test_the_counts_are_those_of_the_installed_libraries() -> None:
    assert CONTENT["versions"] == versions(), RENEW


@pytest.mark.parametrize("row", CONTENT["rows"])
def test_a_step_runs_the_operators_that_are_pinned(row: str) -> None:
    assert pinned_of(step_operators(row)) == CONTENT["rows"][row], RENEW


def test_methods_in_the_first_layer_run_more_than_the_floor() -> None:
    """The floor lets the gradient flow to the embeddings; the head alone needs less."""
    floor = CONTENT["rows"][FLOOR]["operators"]
    assert all(CONTENT["rows"][row]["operators"] > floor for row in ("lora", "adapter", "prefix", "ia3", "vera"))
    assert CONTENT["rows"]["head_only"]["operators"] < floor


def test_threads_do_not_change_the_counts() -> None:
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(threads + 1)
        assert pinned_of(step_operators("lora")) == CONTENT["rows"]["lora"]
    finally:
        torch.set_num_threads(threads)


@pytest.mark.parametrize(
    ("method", "objective"), [("adamix", "consistency"), ("adamix_lora", "consistency"), ("lora", "r_drop")]
)
def test_a_second_view_is_a_pass_over_twice_the_rows_and_nothing_else(method: str, objective: str) -> None:
    """The floating-point operations of two views are at most 2.05 times those of one; views are stacked, so the operators are
    nearly those of one pass, where two passes would be twice as many. benchmarks/two_views.py has the times."""
    spec = load_method(method).to_dict()
    counted = []
    for views in ({}, {objective: {}}):
        model, batch = ARCHS["bert"].build(), ARCHS["bert"].batch()
        batch["labels"] = ARCHS["bert"].labels(batch)
        unipet.adapt(model, {**spec, "objective": views})
        loss = Loss(load_method({**spec, "objective": views}).objective)
        loss(model.train(), batch).backward()  # the first step may make what later ones keep
        with FlopCounterMode(display=False) as flops, Operators() as operators:
            loss(model, batch).backward()
        counted.append((flops.get_total_flops(), operators.counts.total()))
    (one, fewer), (two, more) = counted
    assert 1.95 * one <= two <= 2.05 * one
    assert more <= 1.75 * fewer


def test_one_more_product_shows(monkeypatch: pytest.MonkeyPatch) -> None:
    """The count sees what a slower path would add."""
    from unipet.calculus.functions.low_rank import LowRank

    delta = LowRank.delta

    def slower(self: LowRank, *args: object, **kwargs: object) -> torch.Tensor:
        delta(self, *args, **kwargs)  # type: ignore[arg-type]
        return delta(self, *args, **kwargs)  # type: ignore[arg-type]

    monkeypatch.setattr(LowRank, "delta", slower)
    pinned, found = CONTENT["rows"]["lora"], pinned_of(step_operators("lora"))
    assert found["products"] > pinned["products"] and found["operators"] > pinned["operators"]
