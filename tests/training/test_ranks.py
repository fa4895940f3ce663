"""Parts of batches, and their sums, without a second process."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

import unipet
from tests.support.running import LOW_RANK, MIXTURE
from tests.support.tiny import tiny_batch, tiny_bert
from unipet.calculus.library import load_method
from unipet.training import ranks
from unipet.training.ranks import ALONE, Disconnected, OwnDropout, Ranks, joined
from unipet.training.step import Loss


@pytest.mark.parametrize("rows", range(8))
@pytest.mark.parametrize("count", [1, 2, 3])
def test_parts_are_the_whole_and_none_is_larger_than_the_first(rows: int, count: int) -> None:
    parts = [list(range(rows)[Ranks(rank, count).part(rows)]) for rank in range(count)]
    assert [row for part in parts for row in part] == list(range(rows))
    assert [len(part) for part in parts] == sorted((len(part) for part in parts), reverse=True)
    assert len(parts[0]) - len(parts[-1]) <= 1


def gradients(method: dict[str, Any], parts: list[slice], micro_batch: int) -> tuple[float, dict[str, Tensor]]:
    """The sums of loss and gradients over these parts of one batch."""
    torch.manual_seed(0)
    model = tiny_bert().double()
    unipet.adapt(model, method)
    model.train()
    batch = {**tiny_batch(7), "labels": torch.tensor([0, 1, 1, 0, 1, 0, 0])}
    adapted = unipet.adaptation.adapted.adaptation(model)
    loss = 0.0
    for part in parts:
        adapted.draw(0, 0)  # as each process does
        adapted.routing.first_row = part.start
        loss += float(Loss(load_method(method).objective).gradients(model, batch, micro_batch, rows=part))
    found = unipet.parameters(model, head=True)
    return loss, {name: tensor.grad for name, tensor in found.items() if tensor.grad is not None}


def routed(**mixture: Any) -> dict[str, Any]:
    """The mixture with another router."""
    return {**MIXTURE, "insertions": {"ffn": {**MIXTURE["insertions"]["ffn"], "mixture": {"experts": 3, **mixture}}}}


ROUTED = {
    "per_example": routed(router="per_example", grain="layer"),
    "per_token": routed(router="per_token", slots="joint"),
    "learned": routed(router="learned", top_k=2, noise=0.3),
    "hash": routed(router="hash"),
}


@pytest.mark.parametrize("method", [LOW_RANK, MIXTURE, *ROUTED.values()], ids=["low_rank", "mixture", *ROUTED])
@pytest.mark.parametrize("micro_batch", [7, 2])
@pytest.mark.parametrize("count", [2, 3])
def test_the_sum_over_parts_is_that_of_the_batch(method: dict[str, Any], micro_batch: int, count: int) -> None:
    loss, whole = gradients(method, [slice(0, 7)], 7)
    of_parts, sums = gradients(method, [Ranks(rank, count).part(7) for rank in range(count)], micro_batch)
    assert of_parts == pytest.approx(loss, rel=1e-6)
    assert sums.keys() == whole.keys()
    for name, gradient in whole.items():
        torch.testing.assert_close(sums[name], gradient, rtol=1e-6, atol=1e-9)


def test_draws_of_dropout_are_a_function_of_seed_process_and_step() -> None:
    def drawn(rank: int, seed: int, step: int) -> float:
        torch.manual_seed(123)
        OwnDropout(Ranks(rank, 3), seed).on_step_begin(None, SimpleNamespace(global_step=step), None)
        return float(torch.rand(()))

    plain = drawn(0, 0, 0)
    assert {drawn(0, seed, step) for seed in (0, 1) for step in (0, 1)} == {plain}
    others = [drawn(rank, seed, step) for rank in (1, 2) for seed in (0, 1) for step in (0, 1)]
    assert len({plain, *others}) == 9
    assert others == [drawn(rank, seed, step) for rank in (1, 2) for seed in (0, 1) for step in (0, 1)]


def test_alone_nothing_changes() -> None:
    loss, tensor = torch.tensor(2.0), torch.nn.Parameter(torch.ones(2))
    assert ALONE.add_up(loss, [tensor]) is loss and tensor.grad is None
    assert ALONE.leader_says(True) and not ALONE.leader_says(False)
    assert ALONE.part(5) == slice(0, 5)


def test_gradients_travel_in_messages_of_one_type_and_a_limited_size(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ranks, "_BUCKET", 40)
    sizes = [(3, torch.float32), (7, torch.float32), (1, torch.float32), (2, torch.bfloat16), (30, torch.bfloat16)]
    gradients = [torch.zeros(size, dtype=kind) for size, kind in sizes]
    assert [[len(each) for each in bucket] for bucket in ranks._buckets(gradients)] == [[3, 7], [1], [2], [30]]


def test_every_kind_of_tensor_begins_alike(monkeypatch: pytest.MonkeyPatch) -> None:
    def leading(message: Tensor, source: int) -> None:
        assert message.dtype == torch.uint8 and source == 0
        message.zero_()

    monkeypatch.setattr(torch.distributed, "broadcast", leading)
    plain, bits = torch.ones(2, 3), torch.ones(4, dtype=torch.bool)
    turned, single, none = torch.ones(3, 2).T, torch.ones(()), torch.ones(0, 2)
    half, waves = torch.ones(2, dtype=torch.bfloat16), torch.ones(2, dtype=torch.complex64)
    tensors = [plain, bits, turned, single, none, half, waves, torch.nn.Parameter(torch.ones(2))]
    Ranks(1, 2).begin_alike(tensors)
    assert not any(bool(tensor.any()) for tensor in tensors)


def test_one_process_adds_up_with_itself(tmp_path: Path) -> None:
    """As far as one process shows it: what has no gradient anywhere stays without one, and half precision stays."""
    learned, spared = torch.nn.Parameter(torch.ones(2)), torch.nn.Parameter(torch.ones(3))
    half = torch.nn.Parameter(torch.ones(1, dtype=torch.bfloat16))
    learned.grad, half.grad = torch.tensor([1.0, 2.0]), torch.tensor([0.5], dtype=torch.bfloat16)
    with joined(0, 1, tmp_path / "meeting") as alone:
        several = Ranks(alone.rank, 2, alone.gpus)
        assert float(several.add_up(torch.tensor(3.0), [learned, spared, half])) == 3.0
        several.begin_alike([learned, half])
        several.check_alike({"learned": learned, "half": half})
        assert several.leader_says(True)
    assert learned.grad.tolist() == [1.0, 2.0] and spared.grad is None
    assert half.grad.tolist() == [0.5] and half.grad.dtype == torch.bfloat16
    with pytest.raises(Disconnected):
        several.leader_says(True)
