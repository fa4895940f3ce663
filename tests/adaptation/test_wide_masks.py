"""A mask with a prefix in front is made once for all layers of a pass, and is always that of this pass."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import Tensor

from tests.support.architectures import ARCHS
from tests.support.generating import adapted, prompts
from tests.support.matrix import close
from unipet.adaptation import wide_masks
from unipet.adaptation.adapted import adaptation
from unipet.adaptation.wide_masks import WideMasks


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> list[torch.Size]:
    """The shapes of all that were made."""
    found: list[torch.Size] = []
    before = wide_masks._widened

    def counted(mask: Tensor, length: int) -> Tensor:
        found.append((wide := before(mask, length)).shape)
        return wide

    monkeypatch.setattr(wide_masks, "_widened", counted)
    return found


def without_padding(arch: str) -> dict[str, Tensor]:
    return {name: value for name, value in ARCHS[arch].batch(3, 6).items() if "mask" not in name}


@pytest.mark.parametrize(
    ("arch", "padded", "masks"),
    [
        ("bert", True, 1),
        ("bert", False, 0),
        ("llama", True, 1),
        ("llama", False, 1),  # "causal" says nothing of a prefix
        ("bart", True, 3),  # of the encoder, of the decoder and of what it reads of the encoder
    ],
)
@pytest.mark.parametrize("training", [True, False])
def test_one_for_all_layers(arch: str, padded: bool, masks: int, training: bool, made: list[torch.Size]) -> None:
    model = adapted(arch, "prefix").train(training)
    batch = ARCHS[arch].batch(3, 6) if padded else without_padding(arch)
    for _ in range(2):
        model(**batch)
        assert len(made) == masks and len(set(made)) == masks
        made[:] = [] if padded else made  # the one that is meant is known


def test_what_padding_is_behind_counts_in_every_pass() -> None:
    """Masks of one shape and other numbers, one after another, some in the memory of the one before."""
    model, batch = adapted("llama", "prefix").eval(), prompts("llama", rows=3, length=6)
    with torch.no_grad():
        for shift in range(4):
            rolled = {name: value.roll(shift, 0) for name, value in batch.items()}
            found = model(**rolled).logits
            assert torch.equal(found, copy.deepcopy(model)(**rolled).logits)
    mask = batch["attention_mask"]
    with torch.no_grad():
        before = model(**batch).logits
        mask[0, 0] = 1 - mask[0, 0]
        assert torch.equal(model(**batch).logits, copy.deepcopy(model)(**batch).logits)
        mask[0, 0] = 1 - mask[0, 0]
        assert torch.equal(model(**batch).logits, before)


def test_a_mask_that_is_changed_is_another() -> None:
    masks, mask = WideMasks(), torch.zeros(1, 1, 2, 2)
    first = masks.of(mask, 3)
    assert masks.of(mask, 3) is first and masks.of(mask, 4).shape[-1] == 6
    mask[0, 0, 0, 1] = -1.0
    assert masks.of(mask, 3)[0, 0, 0].tolist() == [0, 0, 0, 0, -1]
    for value in range(9):  # one that is filled anew for every pass
        assert masks.of(mask.fill_(value), 3)[0, 0, 0].tolist() == [0, 0, 0, value, value]
    assert len(masks._wide) == 2
    with torch.inference_mode():
        other = torch.zeros(1, 1, 2, 2)
        for value in range(3):
            assert masks.of(other.fill_(value), 3)[0, 0, 0].tolist() == [0, 0, 0, value, value]


def test_nothing_outlives_its_mask() -> None:
    masks, mask = WideMasks(), torch.ones(2, 1, 3, 3, dtype=torch.bool)
    masks.of(mask, 3)
    assert len(masks._wide) == 1
    del mask
    assert not masks._wide
    for length in (3, 4, 5):
        assert masks.meant(lambda: torch.ones(1, 1, 2, 2).tril(), length, 2, 2).shape[-1] == 2 + length
    assert masks._meant is not None and not masks._wide and copy.deepcopy(masks)._meant is None


@pytest.mark.parametrize("arch", ["llama", "bert"])
def test_masks_made_in_inference_mode_do_not_meet_gradients(arch: str) -> None:
    model, batch = adapted(arch, "prefix"), without_padding(arch)
    with torch.inference_mode():
        expected = model.eval()(**batch).logits
    found = model(**batch).logits
    found.sum().backward()
    assert close(found.detach(), expected.clone(), 1e-6)
    assert all(parameter.grad is not None for parameter in adaptation(model).parameters())


@pytest.mark.parametrize("implementation", ["sdpa", "eager"])
def test_it_is_the_mask_of_a_call_by_itself(implementation: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def outcome() -> tuple[Tensor, list[Any]]:
        model = adapted("llama", "prefix", implementation=implementation).train()
        logits = model(**prompts("llama")).logits
        logits.square().sum().backward()
        return logits, [parameter.grad for parameter in adaptation(model).parameters()]

    logits, gradients = outcome()
    monkeypatch.setattr(WideMasks, "of", lambda self, mask, length: wide_masks._widened(mask.clone(), length))
    expected, others = outcome()
    assert torch.equal(logits, expected) and all(map(torch.equal, gradients, others))
