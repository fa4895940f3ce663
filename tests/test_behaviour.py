"""One behavioural suite for every method on every architecture: what it promises from adapting to taking out again.

What a pair promises (identity at the start, foldable or not) is read from its report, never listed here;
`matrix_room.py` says which pairs there are. The inputs' side of the matrix is in test_matrix_inputs.py.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from architectures import LAYERS
from matrix_room import (
    ARCHS,
    METHODS,
    adapted,
    before,
    close,
    deep_copy,
    every_pair,
    has_head,
    logits,
    loss,
    matrix,
    randomise,
    same_bits,
    train,
    untouched,
    values,
)
from torch import nn

import unipet
from unipet.adaptation import adaptation


@every_pair
def test_goes_in_as_described_comes_out_without_a_trace_and_merges_or_says_why_not(method: str, arch: str) -> None:
    """The output before training is the base model's exactly where the report promises it, and nowhere else; the report
    needs no weights; ejecting restores every bit, flag and hook; a second time, merging keeps the output."""
    model, batch = ARCHS[arch].build(), ARCHS[arch].batch()
    state, outside, said = before(arch)
    described = unipet.describe(METHODS[method], model.config).to_dict()
    assert unipet.describe(METHODS[method], model).to_dict() == described
    assert same_bits(model.state_dict(), state) and untouched(model) == outside, "describing leaves the model alone"
    torch.manual_seed(0)
    report = unipet.adapt(model, METHODS[method])
    assert report.to_dict() == described
    change = (logits(arch, model, batch) - said).abs().max().item()
    promised = all(row.identity_at_start for row in report.insertions)
    assert change == 0.0 if promised else change > 0.0
    randomise(model, std=0.1)  # T5 does not scale its logits: larger values would test float32, not the fold
    unmerged = logits(arch, model, batch)
    unipet.eject(model)
    assert same_bits(model.state_dict(), state)
    assert untouched(model) == outside and not outside["hooks"] and not outside["marks"]
    assert torch.equal(logits(arch, model, batch), said)
    torch.manual_seed(0)
    assert unipet.adapt(model, METHODS[method]).to_dict() == described
    randomise(model, std=0.1)
    _merge_or_see_why_not(model, report, set(state))
    # Folding is one float32 rounding of each weight; T5, which does not scale its logits, magnifies it.
    unscaled = model.config.model_type in ("t5", "mt5")
    assert close(logits(arch, model, batch), unmerged, 1e-4 if unscaled else 1e-5)


def _merge_or_see_why_not(model: Any, report: unipet.AdaptReport, names: set[str]) -> None:
    """What folds, folds; what does not is named with its reason, stays, and changes nothing."""
    stuck = [row for row in report.insertions if not row.foldable and row.modules]
    if not stuck:
        unipet.merge(model)
        assert not hasattr(model, "_unipet")
        assert model.state_dict().keys() == names
        return
    state = values(model)
    with pytest.raises(unipet.UnipetError, match="cannot be merged") as caught:
        unipet.merge(model)
    assert all(row.name in str(caught.value) and str(row.why_not) in str(caught.value) for row in stuck)
    assert same_bits(model.state_dict(), state), "a refused merge must change nothing"
    unipet.merge(model, partial=True)
    kept = {row.name for row in stuck}
    assert {name.split("/")[0] for name in unipet.parameters(model)} >= kept
    # What stays is baked: it holds what the report counts as merged.
    if not any(row.foldable for row in report.insertions if row.modules):
        assert sum(p.numel() for p in unipet.parameters(model).values()) == report.merged


@matrix
def test_every_trainable_tensor_learns_no_frozen_one_moves_and_a_second_time_is_the_same(
    method: str, arch: str
) -> None:
    """The second time on the model that carried the method before: taking it out leaves no trace in training either."""
    model, batch = ARCHS[arch].build(), ARCHS[arch].batch()
    frozen_before = before(arch)[0]

    def once() -> tuple[set[str], list[Any]]:
        torch.manual_seed(0)
        unipet.adapt(model, METHODS[method])
        model.train()
        return train(model, lambda: loss(arch, model, batch))

    learned, drawn = once()
    owned = unipet.parameters(model, head=True)
    assert {id(p) for p in owned.values()} == {id(p) for p in model.parameters() if p.requires_grad}
    some = [i for i in adaptation(model).items if i.parts.tokens is not None]  # a head may read other tokens than these
    unread = {name for name in owned for i in some if name.startswith(f"{i.name}/{i.site.name}/")}
    seen = learned | ({name for name in unread if f".{LAYERS - 1}/" in name} if has_head(ARCHS[arch]) else set())
    assert seen == set(owned), f"never had a gradient: {sorted(set(owned) - seen)}"
    for name, tensor in model.state_dict(keep_vars=True).items():
        if name in frozen_before and not tensor.requires_grad:
            assert torch.equal(tensor, frozen_before[name]), f"frozen {name} moved"
    trained = {name: p.detach().clone() for name, p in owned.items()}
    unipet.eject(model)
    assert once() == (learned, drawn)
    assert same_bits(unipet.parameters(model, head=True), trained)


@matrix
def test_saved_and_copied_it_is_the_same_and_stands_alone(method: str, arch: str, tmp_path: Path) -> None:
    """Loading is exact; hooks and routes of a deep copy belong to the copy."""
    model, fresh, batch = adapted(method, arch), ARCHS[arch].build(), ARCHS[arch].batch()
    expected = logits(arch, model, batch)
    clone = deep_copy(model)
    unipet.save(model, tmp_path / "adapter")
    unipet.load(fresh, tmp_path / "adapter")
    assert same_bits(unipet.parameters(fresh, head=True), unipet.parameters(model, head=True))
    randomise(model, seed=9)
    assert torch.equal(logits(arch, fresh, batch), expected), "loaded"
    assert torch.equal(logits(arch, clone, batch), expected), "copied"


@matrix
def test_bfloat16_base_model_with_float32_insertions(method: str, arch: str) -> None:
    """Against the same base model in float32, its weights rounded to bfloat16: masks and bases come from what the weights are.

    Values are of one size after scaling: 25 times as large, on a T5, whose attention does not scale its logits, they would
    decide by bfloat16's rounding which token it looks at.
    """
    model, batch = ARCHS[arch].build().to(torch.bfloat16), ARCHS[arch].batch()
    reference: nn.Module = ARCHS[arch].build().to(torch.bfloat16).float()
    unipet.adapt(reference, METHODS[method])
    randomise(reference, std=0.1, before_scaling=False)
    expected = logits(arch, reference, batch)
    unipet.adapt(model, METHODS[method])
    own = unipet.parameters(model, head=True)
    inserted = {name: p for name, p in own.items() if name.split("/")[0] not in adaptation(model).unfrozen.values()}
    assert all(p.dtype == torch.float32 for p in inserted.values())
    with torch.no_grad():
        for name, p in unipet.parameters(reference, head=True).items():
            own[name].copy_(p)
    half = {name: tensor.to(torch.bfloat16) if tensor.is_floating_point() else tensor for name, tensor in batch.items()}
    out = logits(arch, model, half)
    assert out.dtype == torch.bfloat16
    assert close(out.float(), expected, 0.05)
    model.train()
    loss(arch, model, half).backward()
    assert all(torch.isfinite(p.grad).all() for p in own.values() if p.grad is not None)
