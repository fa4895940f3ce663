"""One behavioural suite: every shipped method on every tiny base model.

A new file under conf/method joins by itself. What it promises (identity at the start, foldable or not) is read from
its report, never listed here.
"""

from __future__ import annotations

import copy
from pathlib import Path

import pytest
import torch
from tiny import TINY, tiny_batch
from torch import Tensor, nn

import unipet
from unipet.adaptation import adaptation
from unipet.library import method_names

METHODS = method_names()
CASES = [pytest.param(method, arch, id=f"{method}-{arch}") for method in METHODS for arch in TINY]
pytestmark = pytest.mark.parametrize(("method", "arch"), CASES)


def logits(model: nn.Module, batch: dict[str, Tensor]) -> Tensor:
    with torch.no_grad():
        return model(**batch).logits


def randomise(model: nn.Module, std: float = 0.3, seed: int = 1) -> None:
    """Zero-initialised halves hide everything: give every trained tensor a value."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in unipet.parameters(model, head=True).values():
            parameter.add_(torch.randn(parameter.shape, generator=generator) * std)


def values(model: nn.Module) -> dict[str, Tensor]:
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


def same_bits(first: dict[str, Tensor], second: dict[str, Tensor]) -> bool:
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


def test_starts_where_it_says(method: str, arch: str) -> None:
    """The output before training equals the base model's exactly where the report promises it, and nowhere else."""
    model, batch = TINY[arch](), tiny_batch()
    before = logits(model, batch)
    report = unipet.adapt(model, method)
    change = (logits(model, batch) - before).abs().max().item()
    promised = all(row.identity_at_start for row in report.insertions)
    assert change == 0.0 if promised else change > 0.0


def test_every_trainable_tensor_learns_and_no_frozen_one_moves(method: str, arch: str) -> None:
    torch.manual_seed(0)
    model, batch = TINY[arch](), tiny_batch(rows=8)
    frozen_before = values(model)
    unipet.adapt(model, method)
    model.train()
    owned = unipet.parameters(model, head=True)
    assert {id(p) for p in owned.values()} == {id(p) for p in model.parameters() if p.requires_grad}
    inserted = adaptation(model)
    optimiser = torch.optim.SGD(owned.values(), lr=0.1)
    labels = torch.arange(8) % 2
    learned: set[str] = set()
    # Without a mixture three steps must do; a router needs a few more to have picked every expert.
    for step in range(60 if inserted.mixed else 3):
        inserted.draw(step, seed=0)
        model(**batch, labels=labels).loss.backward()
        learned |= {name for name, p in owned.items() if p.grad is not None and p.grad.abs().max() > 0}
        optimiser.step()
        optimiser.zero_grad()
    assert learned == set(owned), f"never had a gradient: {sorted(set(owned) - learned)}"
    trained = set(inserted.unfrozen)
    for name, tensor in model.state_dict().items():
        if name in frozen_before and name not in trained:
            assert torch.equal(tensor, frozen_before[name]), f"frozen {name} moved"


def test_saving_and_loading_is_exact(method: str, arch: str, tmp_path: Path) -> None:
    model, batch = TINY[arch](), tiny_batch()
    fresh = copy.deepcopy(model)
    unipet.adapt(model, method)
    randomise(model)
    unipet.save(model, tmp_path / "adapter")
    unipet.load(fresh, tmp_path / "adapter")
    assert torch.equal(logits(fresh, batch), logits(model, batch))
    first, second = unipet.parameters(model, head=True), unipet.parameters(fresh, head=True)
    assert first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


def test_merging_keeps_the_output_or_says_why_not(method: str, arch: str) -> None:
    model, batch = TINY[arch](), tiny_batch()
    report = unipet.adapt(model, method)
    randomise(model)
    before, state = logits(model, batch), values(model)
    stuck = [row for row in report.insertions if not row.foldable]
    if stuck:
        with pytest.raises(unipet.UnipetError, match="cannot be merged") as caught:
            unipet.merge(model)
        assert all(row.name in str(caught.value) and str(row.why_not) in str(caught.value) for row in stuck)
        assert same_bits(values(model), state), "a refused merge must change nothing"
        unipet.merge(model, partial=True)
        kept = {row.name for row in stuck}
        assert {name.split("/")[0] for name in unipet.parameters(model)} >= kept
    else:
        unipet.merge(model)
        assert not hasattr(model, "_unipet")
        assert values(model).keys() == values(TINY[arch]()).keys()
    # Folding is one float32 rounding of each weight: 1e-5 of the output's scale.
    assert torch.allclose(logits(model, batch), before, atol=1e-5 * max(1.0, before.abs().max().item()))


def test_baked_count_is_the_reported_one(method: str, arch: str) -> None:
    model = TINY[arch]()
    report = unipet.adapt(model, method)
    unipet.merge(model, partial=True)
    if all(row.foldable for row in report.insertions):
        assert not hasattr(model, "_unipet"), "everything folded, so nothing stays to be counted"
    else:
        assert sum(p.numel() for p in unipet.parameters(model).values()) == report.merged


def test_ejecting_restores_every_bit(method: str, arch: str) -> None:
    model, batch = TINY[arch](), tiny_batch()
    state, flags = values(model), {name: p.requires_grad for name, p in model.named_parameters()}
    implementation = model.config._attn_implementation
    before = logits(model, batch)
    unipet.adapt(model, method)
    randomise(model)
    unipet.eject(model)
    assert same_bits(values(model), state)
    assert {name: p.requires_grad for name, p in model.named_parameters()} == flags
    assert model.config._attn_implementation == implementation
    assert torch.equal(logits(model, batch), before)
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())


@pytest.mark.parametrize("attention", ["eager", "sdpa"])
def test_padding_and_company_do_not_matter(method: str, arch: str, attention: str) -> None:
    """A row's output depends neither on how far its batch is padded nor on the other rows."""
    model, batch = TINY[arch](attention=attention), tiny_batch()
    unipet.adapt(model, method)
    randomise(model)
    together = logits(model, batch)
    wider = {name: nn.functional.pad(tensor, (0, 5)) for name, tensor in batch.items()}
    assert torch.allclose(logits(model, wider), together, atol=1e-5)
    for row in range(len(together)):
        real = int(batch["attention_mask"][row].sum())
        alone = {name: tensor[row : row + 1, :real] for name, tensor in batch.items()}
        assert torch.allclose(logits(model, alone)[0], together[row], atol=1e-5)


def test_same_seed_same_result(method: str, arch: str) -> None:
    def train() -> dict[str, Tensor]:
        torch.manual_seed(3)
        model, batch = TINY[arch](), tiny_batch(rows=8)
        unipet.adapt(model, method)
        model.train()
        owned = unipet.parameters(model, head=True)
        optimiser = torch.optim.AdamW(owned.values(), lr=1e-2)
        for step in range(3):
            adaptation(model).draw(step, seed=3)
            model(**batch, labels=torch.arange(8) % 2).loss.backward()
            optimiser.step()
            optimiser.zero_grad()
        return {name: p.detach().clone() for name, p in owned.items()}

    assert same_bits(train(), train())


def test_bfloat16_base_model_with_float32_insertions(method: str, arch: str) -> None:
    model, batch = TINY[arch](), tiny_batch(rows=8)
    reference = copy.deepcopy(model)
    unipet.adapt(reference, method)
    randomise(reference, std=0.1)
    expected = logits(reference, batch)
    model = model.to(torch.bfloat16)
    unipet.adapt(model, method)
    own = unipet.parameters(model, head=True)
    inserted = {name: p for name, p in own.items() if name.split("/")[0] not in adaptation(model).unfrozen.values()}
    assert all(p.dtype == torch.float32 for p in inserted.values())
    with torch.no_grad():
        for name, p in own.items():
            p.copy_(unipet.parameters(reference, head=True)[name])
    out = logits(model, batch)
    assert out.dtype == torch.bfloat16
    assert torch.allclose(out.float(), expected, atol=0.05 * max(1.0, expected.abs().max().item()))
    model.train()
    model(**batch, labels=torch.arange(8) % 2).loss.backward()
    assert all(torch.isfinite(p.grad).all() for p in own.values() if p.grad is not None)


def test_gradient_checkpointing_trains_the_same(method: str, arch: str) -> None:
    def gradients(checkpointing: bool) -> dict[str, Tensor]:
        torch.manual_seed(0)
        model, batch = TINY[arch](), tiny_batch(rows=4)
        unipet.adapt(model, method)
        randomise(model, std=0.1)
        model.train()
        for module in model.modules():
            if isinstance(module, nn.Dropout):
                module.p = 0.0
        if checkpointing:
            # The newer name first: transformers 5.23 deprecates the older one.
            enable = getattr(model, "activation_checkpointing_enable", None) or model.gradient_checkpointing_enable
            enable({"use_reentrant": False})
        adaptation(model).draw(0, seed=0)
        torch.manual_seed(1)
        model(**batch, labels=torch.arange(4) % 2).loss.backward()
        return {n: p.grad for n, p in unipet.parameters(model, head=True).items() if p.grad is not None}

    plain, checkpointed = gradients(False), gradients(True)
    assert plain.keys() == checkpointed.keys() and plain
    assert all(torch.allclose(plain[name], checkpointed[name], atol=1e-6) for name in plain)


def test_a_copy_of_an_adapted_model_stands_alone(method: str, arch: str) -> None:
    """Hooks and routes of a deep copy belong to the copy."""
    model, batch = TINY[arch](), tiny_batch()
    unipet.adapt(model, method)
    randomise(model)
    clone = copy.deepcopy(model)
    expected = logits(model, batch)
    assert torch.equal(logits(clone, batch), expected)
    randomise(model, seed=9)
    assert torch.equal(logits(clone, batch), expected)


def test_describe_needs_no_weights_and_agrees(method: str, arch: str) -> None:
    model = TINY[arch]()
    described = unipet.describe(method, model.config).to_dict()
    assert described == unipet.adapt(model, method).to_dict()
