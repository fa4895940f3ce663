"""Own rows of a batch: taken out and put back, for k entries of each row and for stacked views."""

from __future__ import annotations

import pytest
import torch

from unipet.calculus.own_rows import OwnRows
from unipet.errors import UnipetError

BATCH = torch.arange(12.0).view(6, 2)


@pytest.mark.parametrize(
    ("mine", "views", "rows"),
    [
        ([True, False, True], 1, [0, 1, 4, 5]),  # two beams of each row
        ([True, False, True], 2, [0, 2, 3, 5]),  # two views, one after the other
        ([True, False, False, True, False, True], 1, [0, 3, 5]),
        ([False] * 6, 1, []),
        ([True, True], 1, [0, 1, 2, 3, 4, 5]),
    ],
)
def test_they_are_taken_out_and_put_back(mine: list[bool], views: int, rows: list[int]) -> None:
    own = OwnRows(mine).stacked(views)
    assert own.index(BATCH).tolist() == rows
    assert torch.equal(own.pick(BATCH), BATCH[rows])
    assert own.flags(BATCH).nonzero().flatten().tolist() == rows
    expected = BATCH.clone()
    expected[rows] += 100.0
    assert torch.equal(own.put(BATCH, own.pick(BATCH).double() + 100.0), expected)


def test_what_is_the_same_for_all_rows_stays() -> None:
    assert torch.equal(OwnRows([True, False]).pick(BATCH[:1]), BATCH[:1])


@pytest.mark.parametrize("named", [4, 7])
def test_a_batch_of_other_rows_is_an_error(named: int) -> None:
    with pytest.raises(UnipetError, match=f"names {named} rows, but this batch has 6"):
        OwnRows([True] * (named - 1) + [False]).index(BATCH)


def test_gradients_reach_both_the_batch_and_the_own_rows() -> None:
    batch, own = BATCH.clone().requires_grad_(), torch.zeros(2, 2, requires_grad=True)
    OwnRows([True, False, False, True, False, False]).put(batch, own).sum().backward()
    assert batch.grad is not None and own.grad is not None
    assert batch.grad[:, 0].tolist() == [0.0, 1.0, 1.0, 0.0, 1.0, 1.0] and own.grad.tolist() == [[1.0, 1.0], [1.0, 1.0]]
