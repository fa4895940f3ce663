"""Own rows of a batch: taken out and put back, for k entries of each row and for stacked views."""

from __future__ import annotations

import pytest
import torch

from unipet.calculus.own_rows import Cut, OwnBlock, OwnRows
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


@pytest.mark.parametrize("sizes", [[2, 1], [1, 1, 1], [3]])
def test_blocks_are_taken_out_and_put_back(sizes: list[int]) -> None:
    batch = BATCH.clone().requires_grad_()
    cut, first = Cut(sizes), 0
    for number, size in enumerate(sizes):
        own = OwnBlock(cut, number)
        rows = list(range(2 * first, 2 * (first + size)))  # two entries of each row
        assert own.stacked(2) is own and own.index(batch).tolist() == rows
        assert torch.equal(own.pick(batch), batch[rows])
        expected = BATCH.clone()
        expected[rows] += 100.0
        assert torch.equal(own.put(batch, own.pick(batch) + 100.0), expected)
        first += size
    whole = torch.cat([OwnBlock(cut, number).pick(batch) * (number + 1) for number in range(len(sizes))])
    whole.sum().backward()
    weights = torch.tensor([number + 1.0 for number, size in enumerate(sizes) for _ in range(2 * size)])
    assert batch.grad is not None and torch.equal(batch.grad, weights.unsqueeze(1).expand(6, 2))


def test_a_cut_is_made_anew_for_a_tensor_that_has_changed() -> None:
    cut, batch = Cut([1, 2]), BATCH.clone()
    with torch.no_grad():
        before = cut.pieces(batch)
        assert cut.pieces(batch)[0] is before[0]
        batch.add_(1.0)
        assert cut.pieces(batch)[0] is not before[0]
    batch.requires_grad_()
    assert cut.pieces(batch)[0].requires_grad
    with pytest.raises(UnipetError, match="names 3 rows, but this batch has 5"):
        OwnBlock(cut, 0).pick(torch.zeros(5, 2))
