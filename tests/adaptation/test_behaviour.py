"""One behavioural suite for every method on every architecture: what it promises from adapting to merging.

What a pair promises (identity at the start, foldable or not) is read from its report, never listed here;
`matrix.py` says which pairs there are. One test for each: making its models takes longer than most of what is asked of
them. A failure names the method, the architecture and the property. What else is asked of pairs (descriptions, merging in
float32, attention implementations, checkpointing, copies) is in test_matrix_passes.py.
"""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

import unipet
from tests.support.architectures import LAYERS
from tests.support.batches import assert_only_the_row_matters, of_dtype
from tests.support.matrix import (
    ARCHS,
    METHODS,
    asking,
    before,
    close,
    every_pair,
    has_head,
    logits,
    merges_or_says_why_not,
    randomise,
    same_bits,
    train,
    untouched,
    with_loss,
)
from unipet.adaptation.adapted import adaptation


@every_pair
def test_from_adapting_to_merging_it_does_as_promised(method: str, arch: str, tmp_path: Path) -> None:
    """Each block asks for one property and names it; the second life is on the model that carried the method before."""
    asks = functools.partial(asking, method, arch)
    model = ARCHS[arch].build(weights="rounded")
    torch.manual_seed(0)
    with asks("it can be adapted"):
        report = unipet.adapt(model, METHODS[method])
    with asks("at the start it says what its report promises"):
        _starts_as_promised(model, arch, report)
    with asks("all that is trained learns, and nothing else moves"):
        learned = _all_that_is_trained_learns_and_nothing_else_moves(model, arch, report)
    with asks("it comes out without a trace"):
        _comes_out_without_a_trace(model, arch)
    with asks("it learns the same again where it has been before"):
        torch.manual_seed(0)
        assert unipet.adapt(model, METHODS[method]).to_dict() == report.to_dict()
        _learns_the_same_again(model, arch, *learned)
    with asks("saved, it loads into a bfloat16 base model with the same bits"):
        _randomised(model.eval())
        loaded = _loaded_beside_bfloat16(model, arch, tmp_path / "adapter")
    with asks("neither padding nor company changes what it says of a row"):
        expected = assert_only_the_row_matters(model, arch, ARCHS[arch].attentions[0])
        expected = _of_one_size_after_scaling(model, loaded, arch, expected)
    with asks("it runs and trains in bfloat16"):
        _runs_in_bfloat16(loaded, arch, expected)
    with asks("loaded and widened to float64 it says the same"):
        _says_the_same_widened(loaded, arch, expected)
    with asks("it merges, or says why not"):
        merges_or_says_why_not(model, report)
    with asks("merged, it says the same"):
        assert close(logits(arch, model, _exact(arch)), expected, 1e-7)  # Gemma 3's norms are float32


def _exact(arch: str) -> dict[str, Tensor]:
    return of_dtype(torch.float64, ARCHS[arch].batch())


def _starts_as_promised(model: Any, arch: str, report: unipet.AdaptReport) -> None:
    """What the model says is the base model's exactly where the report promises it, and nowhere else."""
    change = (logits(arch, model, ARCHS[arch].batch()) - before(arch)[2]).abs().max().item()
    promised = all(row.identity_at_start for row in report.insertions)
    assert change == 0.0 if promised else change > 0.0


def _all_that_is_trained_learns_and_nothing_else_moves(
    model: Any, arch: str, report: unipet.AdaptReport
) -> tuple[dict[str, Tensor], set[str], list[Any]]:
    """The values, the names that had a gradient, and the routes that were drawn."""
    owned, batch, state = unipet.parameters(model, head=True), ARCHS[arch].batch(), before(arch)[0]
    assert {id(p) for p in owned.values()} == {id(p) for p in model.parameters() if p.requires_grad}
    assert sum(p.numel() for p in owned.values()) == report.trainable + report.head
    learned, drawn = train(model.train(), owned, lambda: with_loss(arch, model, batch).loss)
    some = [i for i in adaptation(model).items if i.parts.tokens is not None]  # a head may read other tokens than these
    unread = {name for name in owned for i in some if name.startswith(f"{i.name}/{i.site.name}/")}
    seen = learned | ({name for name in unread if f".{LAYERS - 1}/" in name} if has_head(ARCHS[arch]) else set())
    assert seen == set(owned), f"never had a gradient: {sorted(set(owned) - seen)}"
    for name, tensor in model.state_dict(keep_vars=True).items():
        if name in state and not tensor.requires_grad:
            assert torch.equal(tensor, state[name]), f"frozen {name} moved"
    return {name: p.detach().clone() for name, p in owned.items()}, learned, drawn


def _comes_out_without_a_trace(model: Any, arch: str) -> None:
    """Values, flags, hooks and what it says; whether it trains as at first, the second life shows."""
    state, outside, said = before(arch)
    unipet.eject(model.eval())
    assert same_bits(model.state_dict(), state)
    assert untouched(model) == outside and not outside["hooks"] and not outside["marks"]
    assert torch.equal(logits(arch, model, ARCHS[arch].batch()), said)


def _learns_the_same_again(
    model: Any, arch: str, trained: dict[str, Tensor], learned: set[str], drawn: list[Any]
) -> None:
    owned, batch = unipet.parameters(model, head=True), ARCHS[arch].batch()
    assert train(model.train(), owned, lambda: with_loss(arch, model, batch).loss) == (learned, drawn)
    assert same_bits(owned, trained)


def _unfrozen(model: Any, name: str) -> bool:
    """Whether a tensor of this name is the base model's own."""
    return name.split("/")[0] in adaptation(model).unfrozen.values()


def _randomised(model: Any) -> None:
    """What the method unfreezes keeps to what bfloat16 holds, as the rest of the base model does."""
    randomise(model, std=0.1)
    with torch.no_grad():
        for name, p in unipet.parameters(model, head=True).items():
            if _unfrozen(model, name):
                p.copy_(p.bfloat16())


def _loaded_beside_bfloat16(model: Any, arch: str, path: Path) -> Any:
    """Into the same base model in bfloat16: insertions stay float32 and have the same bits."""
    loaded = ARCHS[arch].build(weights="bfloat16")
    unipet.save(model, path)
    unipet.load(loaded, path, cast=True)
    tensors = unipet.parameters(loaded, head=True)
    for name, p in tensors.items():
        assert p.dtype == (torch.bfloat16 if _unfrozen(loaded, name) else torch.float32)
    assert same_bits({name: p.float() for name, p in tensors.items()}, unipet.parameters(model, head=True))
    return loaded


def _of_one_size_after_scaling(model: Any, loaded: Any, arch: str, expected: Tensor) -> Tensor:
    """What both models are expected to say once values before a large scaling are made as much smaller, in both: 25 times
    as large, they would decide by bfloat16's rounding which token a T5, which does not scale its attention's logits, looks
    at."""
    large = {one.name: _scale(one) for one in adaptation(model).method.insertions if _scale(one) > 1.0}
    if not large:
        return expected
    own = unipet.parameters(model, head=True)
    with torch.no_grad():
        for name, p in unipet.parameters(loaded, head=True).items():
            own[name].copy_(p.div_(large.get(name.split("/")[0], 1.0)))
    return logits(arch, model, _exact(arch))


def _scale(insertion: Any) -> float:
    return float(getattr(insertion.scaling, "value", 1.0))


def _runs_in_bfloat16(model: Any, arch: str, expected: Tensor) -> None:
    """In evaluation near what float64 says, in training with gradients."""
    batch = of_dtype(torch.bfloat16, ARCHS[arch].batch())
    found = logits(arch, model, batch)
    assert found.dtype == torch.bfloat16
    assert close(found.double(), expected, 0.05)
    with_loss(arch, model.train(), batch).loss.backward()
    grads = [p.grad for p in unipet.parameters(model, head=True).values() if p.grad is not None]
    assert grads and all(torch.isfinite(grad).all() for grad in grads)


def _says_the_same_widened(model: Any, arch: str, expected: Tensor) -> None:
    """bfloat16 holds the base model's weights, so its float64 is that of the float32 base model, bit for bit: masks and
    bases that the weights make as well. What a prefix reads of a text, the base model says in its own precision."""
    found = logits(arch, model.eval().double(), _exact(arch))
    reads = any(getattr(one.function, "init", "") == "tokens" for one in adaptation(model).method.insertions)
    assert close(found, expected, 0.05) if reads else torch.equal(found, expected)
