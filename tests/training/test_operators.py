"""The operators of a training step, pinned: a slower path of a method shows in review as a changed line of operators.json."""

from __future__ import annotations

import json

import pytest
import torch

from tests.support.operators import FLOOR, PINNED, pinned_of, rows, step_operators, versions

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
