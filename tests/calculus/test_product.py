"""h + s·Δ as one operator: its value, its gradients, and when it is not one."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from unipet.calculus.functions.base import Params
from unipet.calculus.functions.beginnings import both
from unipet.calculus.functions.bottleneck import Bottleneck
from unipet.calculus.functions.low_rank import LowRank
from unipet.calculus.functions.product import Product, added, into, scaled, stacked, value


def drawn(rank: int, dtype: torch.dtype = torch.float64) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    shapes = ((2, 3, 20), (2, 3, rank), (20, rank))
    h, z, W = (torch.randn(shape, dtype=dtype, generator=generator).requires_grad_() for shape in shapes)
    return h, z, W


@pytest.mark.parametrize("factor", [1.0, 0.25])
@pytest.mark.parametrize("rank", [3, 18])
def test_value_and_gradients(rank: int, factor: float) -> None:
    h, z, W = drawn(rank)
    assert torch.allclose(added(h, scaled(Product(z, W), factor)), h + factor * F.linear(z, W), atol=1e-12)
    assert torch.autograd.gradcheck(lambda h, z, W: added(h, scaled(Product(z, W), factor)), (h, z, W))
    assert torch.autograd.gradgradcheck(lambda h, z, W: added(h, scaled(Product(z, W), factor)), (h, z, W))


@pytest.mark.parametrize("offset", [False, True])
def test_in_the_memory_of_h(offset: bool) -> None:
    h, z, W = drawn(3)
    b = torch.randn(20, dtype=torch.float64, requires_grad=True) if offset else None

    def found(h: Tensor, z: Tensor, W: Tensor) -> Tensor:
        return into(h.flatten(0, 1) * 1.0, scaled(Product(z, W, b_D=b), 0.25)).view(h.shape)

    assert torch.allclose(found(h, z, W), h + 0.25 * F.linear(z, W, b), atol=1e-12)
    assert torch.autograd.gradcheck(found, (h, z, W)) and torch.autograd.gradgradcheck(found, (h, z, W))
    with torch.no_grad():
        own = h.clone()
        assert into(own, Product(z, W)).data_ptr() == own.data_ptr() and not torch.equal(own, h)
    half = h.detach().bfloat16().flatten(0, 1)
    assert into(half, Product(z, W)).dtype == torch.bfloat16  # what has another precision is added afterwards


def test_what_is_frozen_gets_no_gradient() -> None:
    h, z, W = drawn(3)
    W.requires_grad_(False)
    added(h, Product(z, W)).sum().backward()
    assert W.grad is None and z.grad is not None and h.grad is not None


@pytest.mark.parametrize("shape", [(1,), (20,), (2, 1, 1), (2, 3, 1)])
def test_a_factor_that_is_a_tensor(shape: tuple[int, ...]) -> None:
    h, z, W = drawn(3)
    factor = torch.rand(shape, dtype=torch.float64, requires_grad=True)
    expected = h + factor * F.linear(z, W)
    found = added(h, scaled(scaled(Product(z, W), 0.5), factor))
    assert torch.allclose(found, h + 0.5 * factor * F.linear(z, W), atol=1e-12)
    (ours,), (theirs,) = (torch.autograd.grad(each.sum(), factor) for each in (found, expected))
    assert torch.allclose(ours, 0.5 * theirs, atol=1e-12)


@pytest.mark.parametrize("shape", [(), (1,), (20,), (2, 1, 1), (2, 3, 1)])
def test_an_offset_is_scaled_and_added_with_the_product(shape: tuple[int, ...]) -> None:
    """(): a plain number. What differs by example or token makes of the offset one more column."""
    h, z, W = drawn(3)
    b = torch.randn(20, dtype=torch.float64, requires_grad=True)
    factor = torch.rand(shape, dtype=torch.float64, requires_grad=True) if shape else 0.7

    def found(h: Tensor, z: Tensor, W: Tensor, b: Tensor) -> Tensor:
        return added(h, scaled(scaled(Product(z, W, b_D=b), 0.5), factor))

    def expected(h: Tensor, z: Tensor, W: Tensor, b: Tensor) -> Tensor:
        return h + 0.5 * factor * F.linear(z, W, b)

    assert torch.allclose(found(h, z, W, b), expected(h, z, W, b), atol=1e-12)
    weights = torch.randn(h.shape, dtype=torch.float64)
    own = [one for one in (h, z, W, b, factor) if isinstance(one, Tensor)]
    ours, theirs = (torch.autograd.grad((each(h, z, W, b) * weights).sum(), own) for each in (found, expected))
    assert all(torch.allclose(one, other, atol=1e-12) for one, other in zip(ours, theirs, strict=True))
    assert scaled(Product(z, W, b_D=b), factor).joins(h) == (len(shape) == 3)  # type: ignore[union-attr]


def test_a_product_that_adds_nothing_leaves_every_bit() -> None:
    h, z, W = drawn(8, torch.float32)
    assert torch.equal(added(h, scaled(Product(z, torch.zeros_like(W)), 4.0)), h)


@pytest.mark.parametrize("base", [torch.bfloat16, torch.float16])
def test_rows_and_precisions_that_differ_are_added_afterwards(base: torch.dtype) -> None:
    h, z, W = drawn(3, torch.float32)
    assert not Product(z, W).joins(h.to(base)) and added(h.to(base), Product(z, W)).dtype == base
    assert not Product(z[:1], W).joins(h)
    assert torch.allclose(added(h, Product(z[:1], W)), h + F.linear(z[:1], W))


def test_autocast_joins_what_it_has_cast() -> None:
    h, z, W = drawn(3, torch.float32)
    expected = h + F.linear(z, W)
    with torch.autocast("cpu", torch.bfloat16):
        assert not Product(z, W).joins(h)
        product = Product(z.bfloat16(), W)
        assert product.joins(h.bfloat16())
        found = added(h.bfloat16(), product)
    assert found.dtype == torch.bfloat16 and torch.allclose(found.float(), expected, atol=0.1)
    found.float().sum().backward()
    assert W.grad is not None and W.grad.dtype == torch.float32


def test_a_subclass_that_says_what_its_delta_is_has_the_last_word() -> None:
    @dataclass(frozen=True)
    class Doubled(LowRank):
        def delta(self, u: Any, params: Params, training: bool) -> Tensor:
            return 2 * super().delta(u, params, training)

    @dataclass(frozen=True)
    class Twice(Bottleneck):
        def delta(self, u: Any, params: Params, training: bool) -> Tensor:
            return 2 * super().delta(u, params, training)

    _, x, down = drawn(16)
    up = torch.ones(5, 3, dtype=torch.float64)
    for own, params in (
        ((LowRank, Doubled), {"down": down[:3], "up": up}),
        ((Bottleneck, Twice), {"down.weight": down[:3], "up.weight": up}),
    ):
        plain, doubled = (value(cls(size=3).unjoined(x, params, True)) for cls in own)
        assert torch.allclose(doubled, 2 * plain)
        assert [cls.in_two_steps for cls in own] == [True, False]

    class Mixin:
        def product(self, u: Any, params: Params, training: bool) -> Any:
            return scaled(super().product(u, params, training), 2.0)  # type: ignore[misc]

    class Mixed(Mixin, LowRank):
        pass

    class Overruled(Doubled):
        def rest(self, z: Tensor, params: Params, training: bool) -> Any:
            return super().rest(z, params, training)

    class Other(LowRank):
        def rest(self, z: Tensor, params: Params, training: bool) -> Any:
            return super().rest(z, params, training)

    assert not Mixed.in_two_steps and not Overruled.in_two_steps and Other.in_two_steps


def test_views_that_end_in_one_matrix_are_one_product_and_others_are_none() -> None:
    W_DR, other = torch.randn(6, 2), torch.randn(6, 2)
    parts = [Product(torch.randn(3, 4, 2), W_DR, 0.5) for _ in range(2)]
    together = stacked(parts)
    assert together is not None and together.W_DR is W_DR
    assert torch.allclose(together.value(), torch.cat([part.value() for part in parts]), atol=1e-6)
    assert stacked([parts[0], Product(parts[1].z, other, 0.5)]) is None
    assert stacked([parts[0], Product(parts[1].z, W_DR, 1.0)]) is None
    assert stacked([parts[0], parts[1].value()]) is None
    b_D = torch.randn(6)
    offset = [Product(part.z, W_DR, 0.5, b_D) for part in parts]
    joint = stacked(offset)
    assert joint is not None and torch.allclose(joint.value(), torch.cat([one.value() for one in offset]), atol=1e-6)
    assert stacked([offset[0], parts[1]]) is None


@pytest.mark.parametrize(("trains", "kept"), [("zW", 2), ("z", 1), ("W", 1)])
def test_only_what_the_backward_pass_needs_is_kept(trains: str, kept: int) -> None:
    """z for the gradient of W, and W for that of z: a frozen W, as wide as RandLoRA's bases, leaves z to be freed."""
    h, z, W = torch.randn(2, 3, 8), torch.randn(2, 3, 4, requires_grad="z" in trains), torch.randn(8, 4)
    W.requires_grad_("W" in trains)
    sizes: list[int] = []

    def pack(tensor: Tensor) -> Tensor:
        sizes.append(tensor.numel())
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        joined = Product(z, W, 0.5).added(h)
    assert len(sizes) == kept
    weights = torch.randn_like(joined)
    found = torch.autograd.grad((joined * weights).sum(), [one for one in (z, W) if one.requires_grad])
    plain = (h + 0.5 * (z @ W.T)) * weights
    for own, expected in zip(
        found, torch.autograd.grad(plain.sum(), [x for x in (z, W) if x.requires_grad]), strict=True
    ):
        assert torch.allclose(own, expected, atol=1e-6)


@pytest.mark.parametrize("biased", [(True, True), (True, False), (False, True), (False, False)])
def test_two_maps_read_their_input_in_one_product(biased: tuple[bool, bool]) -> None:
    u = torch.randn(2, 3, 6, dtype=torch.float64, requires_grad=True)
    maps = [
        (torch.randn(width, 6, dtype=torch.float64), torch.randn(width, dtype=torch.float64) if bias else None)
        for width, bias in zip((4, 1), biased, strict=True)
    ]
    found, expected = both(u, *maps), [F.linear(u, *each) for each in maps]
    for one, other in zip(found, expected, strict=True):
        assert one.shape == other.shape and torch.allclose(one, other, atol=1e-12)
    (ours,), (theirs,) = (torch.autograd.grad(a.sum() + 2 * b.sum(), u) for a, b in (found, expected))
    assert torch.allclose(ours, theirs, atol=1e-12)
