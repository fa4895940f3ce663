"""Functions that are an update of the weight, each against its paper's formula written out entry by entry."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

import unipet
from benchmarks.operators import Operators
from tests.support.architectures import ARCHS
from tests.support.functions import WIDTHS, adapted, is_its_matrix, starts_where_it_says_and_folds, tensors, weight
from unipet.adaptation.api import frozen
from unipet.calculus.composition import Add
from unipet.calculus.functions import FUNCTIONS
from unipet.calculus.functions.base import LinearMap, Widths
from unipet.calculus.functions.block_sum import BlockSum
from unipet.calculus.functions.circulant import Circulant
from unipet.calculus.functions.fourier import Fourier
from unipet.calculus.functions.grid import Grid, _OfParts
from unipet.calculus.functions.hadamard_product import HadamardProduct
from unipet.calculus.functions.kronecker import Kronecker, halves
from unipet.calculus.functions.low_rank import LowRank
from unipet.calculus.functions.normalised_low_rank import NormalisedLowRank
from unipet.calculus.functions.projection import Projection
from unipet.calculus.functions.sparse import Sparse, places
from unipet.calculus.functions.subspace_rotation import SubspaceRotation
from unipet.calculus.functions.wavelet import Wavelet
from unipet.calculus.functions.weight_network import WeightNetwork
from unipet.calculus.method import InsertionSpec
from unipet.calculus.scaling import Constant
from unipet.calculus.sites import Position

OUT, IN = WIDTHS.h, WIDTHS.u


def zeros(rows: int = OUT, columns: int = IN) -> Tensor:
    return torch.zeros(rows, columns, dtype=torch.float64)


def test_hadamard_product() -> None:
    function = HadamardProduct(size=3)
    p = tensors(function)
    expected = zeros()
    for o in range(OUT):
        for i in range(IN):
            expected[o, i] = (p["up1"][o] * p["down1"][:, i]).sum() * (p["up2"][o] * p["down2"][:, i]).sum()
    is_its_matrix(function, p, expected)


@pytest.mark.parametrize(
    ("width", "factor", "expected"),
    [(32, -1, (4, 8)), (64, -1, (8, 8)), (24, -1, (4, 6)), (7, -1, (1, 7)), (32, 8, (8, 4)), (30, 8, (5, 6)), (30, 4, (3, 10))],
)  # fmt: skip
def test_halves_of_a_width(width: int, factor: int, expected: tuple[int, int]) -> None:
    assert halves(width, factor) == expected


@pytest.mark.parametrize(
    ("options", "slots"),
    [
        ({"size": 8}, {"outer": (4, 4), "inner": (6, 4)}),
        ({"size": 2}, {"outer": (4, 4), "inner_up": (6, 2), "inner_down": (2, 4)}),
        (
            {"size": 1, "decompose_both": True},
            {"outer_up": (4, 1), "outer_down": (1, 4), "inner_up": (6, 1), "inner_down": (1, 4)},
        ),
        ({"size": 1, "factor": 8}, {"outer": (8, 8), "inner_up": (3, 1), "inner_down": (1, 2)}),
    ],
)
def test_kronecker(options: dict[str, Any], slots: dict[str, tuple[int, ...]]) -> None:
    function = Kronecker(**options)
    p = tensors(function)
    assert {name: tuple(tensor.shape) for name, tensor in p.items()} == slots
    outer, inner = (p[k] if k in p else p[f"{k}_up"] @ p[f"{k}_down"] for k in ("outer", "inner"))
    expected = zeros()
    for o in range(OUT):
        for i in range(IN):
            o1, o2 = divmod(o, len(inner))
            i1, i2 = divmod(i, inner.shape[1])
            expected[o, i] = outer[o1, i1] * inner[o2, i2]
    is_its_matrix(function, p, expected)


@pytest.mark.parametrize("blocks", [1, 2, 4])
def test_grid_has_a_low_rank_map_in_every_block(blocks: int) -> None:
    function = Grid(size=8, blocks=blocks)
    p = tensors(function)
    rank, tall, wide = 8 // blocks, OUT // blocks, IN // blocks
    expected = zeros()
    for i in range(blocks):
        for j in range(blocks):
            at = (i * blocks + j) * rank
            up = p["up"][i * tall : (i + 1) * tall, j * rank : (j + 1) * rank]
            expected[i * tall : (i + 1) * tall, j * wide : (j + 1) * wide] = up @ p["down"][at : at + rank]
    is_its_matrix(function, p, expected)
    assert p["up"].numel() + p["down"].numel() == 8 * (OUT + IN)
    if blocks > 1:
        assert torch.linalg.matrix_rank(expected) > 8  # what it is for: more than rank r from as many numbers


def test_the_gradients_of_a_grid_s_parts() -> None:
    """Written out, because the layout that its product needs is not kept."""
    u = torch.randn(2, 3, 2, 5, dtype=torch.float64, requires_grad=True)
    down = torch.randn(2, 2, 3, 5, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(_OfParts.apply, (u, down))
    assert torch.autograd.gradgradcheck(_OfParts.apply, (u, down))
    _OfParts.apply(u.detach(), down).sum().backward()
    assert down.grad is not None and u.grad is None


@pytest.mark.parametrize("size", [4, 5, 32])
def test_block_sum(size: int) -> None:
    """5 does not divide the width, 32 is more than it: the last block is padded."""
    function = BlockSum(size=size)
    p = tensors(function)
    expected = zeros()
    for i in range(IN):
        expected[:, i] = p["up"][:, i % size]
    is_its_matrix(function, p, expected)


def test_block_sum_of_the_weight() -> None:
    function, W = BlockSum(size=4, of_weight=True), weight()
    p = tensors(function, weight=W)
    expected = zeros()
    for m in range(OUT // 4):
        for n in range(IN // 4):
            at = (slice(4 * m, 4 * m + 4), slice(4 * n, 4 * n + 4))
            expected[at] = W[at] @ p["blocks"][m] + p["blocks"][m]
    is_its_matrix(function, p, expected)


@pytest.mark.parametrize("size", [1, 2, 8])
def test_circulant(size: int) -> None:
    function = Circulant(size=size)
    p = tensors(function)
    expected = zeros()
    for o in range(OUT):
        for i in range(IN):
            step = (i % size - o % size) % size
            expected[o, i] = p["kernel"][o // size, i // size, step] / IN
    is_its_matrix(function, p, expected)


def grid_of(p: Any, columns: int) -> list[tuple[int, int, float]]:
    return [(*divmod(int(at), columns), float(v)) for at, v in zip(p["places"], p["values"], strict=True)]


def test_fourier_is_a_sum_of_cosines() -> None:
    function = Fourier(size=20)
    p = tensors(function)
    expected = zeros()
    for row, column, value in grid_of(p, IN):
        for o in range(OUT):
            for i in range(IN):
                expected[o, i] += value * math.cos(2 * math.pi * (o * row / OUT + i * column / IN)) / (OUT * IN)
    is_its_matrix(function, p, expected)


@pytest.mark.parametrize("widths", [WIDTHS, Widths(u=15, h=7)])
def test_wavelet_is_a_sum_of_haar_functions(widths: Widths) -> None:
    function = Wavelet(size=30)
    p = tensors(function, widths)
    high, wide = -(-widths.h // 2), -(-widths.u // 2)
    expected = zeros(2 * high, 2 * wide)
    for row, column, value in grid_of(p, widths.u):
        # Which quarter: its sign along rows changes in the right half, along columns in the lower half.
        along_rows, along_columns = (-1.0 if column >= wide else 1.0), (-1.0 if row >= high else 1.0)
        top, left = 2 * (row % high), 2 * (column % wide)
        for a in (0, 1):
            for b in (0, 1):
                expected[top + a, left + b] += value / 2 * along_rows**a * along_columns**b
    is_its_matrix(function, p, expected[: widths.h, : widths.u])


@pytest.mark.parametrize(("options", "count"), [({"size": 2}, 80), ({"size": 99}, OUT * IN), ({"density": 0.1}, 38)])
def test_sparse_trains_entries_at_random_places(options: dict[str, Any], count: int) -> None:
    function = Sparse(**options)
    p = tensors(function)
    assert p["values"].shape == p["places"].shape == (count,)
    expected = zeros()
    for row, column, value in grid_of(p, IN):
        expected[row, column] = value
    is_its_matrix(function, p, expected)
    assert torch.equal(p["places"], tensors(function)["places"])
    other = tensors(Sparse(**options, seed=5))["places"]
    assert torch.equal(other, p["places"]) is (count == OUT * IN)


@pytest.mark.parametrize("function", [Sparse(size=2), Fourier(size=9), Wavelet(size=9)])
def test_places_may_be_the_same_for_all_weights_of_a_shape(function: Any) -> None:
    """`draw: shape`: the first of a seed's permutation, whatever the stream of the site; by default it is that stream's."""
    widths = Widths(u=IN, h=OUT)
    together = replace(function, draw="shape")
    first, second = (together.frozen(widths, torch.Generator().manual_seed(seed))["places"] for seed in (1, 2))
    order = torch.randperm(OUT * IN, generator=torch.Generator().manual_seed(777))
    assert torch.equal(first, second) and torch.equal(first, order[: len(first)])
    other = replace(together, seed=3).frozen(widths, torch.Generator())["places"]
    assert not torch.equal(other, first) and len(first.unique()) == len(first)
    apart = [function.frozen(widths, torch.Generator().manual_seed(seed))["places"] for seed in (1, 2)]
    assert not torch.equal(*apart)
    # It came when there were runs already, which keep their names.
    for one, written in ((function, False), (together, True)):
        spec = InsertionSpec("x", one, Position(site=["attn.q"]), Add(), Constant())
        assert ("draw" in spec.to_dict()["function"]) is written


@pytest.mark.parametrize("mask", ["largest", "smallest"])
def test_sparse_trains_the_entries_that_the_weight_chooses(mask: str) -> None:
    function, W = Sparse(density=0.1, mask=mask), weight()
    p = tensors(function)
    function.start(p, W)
    chosen = torch.zeros(OUT * IN, dtype=torch.bool)
    chosen[p["places"]] = True
    size = W.abs().flatten()
    assert chosen.sum() == 38
    if mask == "largest":
        assert size[chosen].min() > size[~chosen].max()
    else:
        assert size[chosen].max() < size[~chosen].min()


@pytest.mark.parametrize(("total", "count"), [(10, 10), (10, 3), (100_000, 5), (100_000, 20_000), (1, 1)])
def test_places_are_different_and_evenly_spread(total: int, count: int) -> None:
    found = places(total, count, torch.Generator().manual_seed(0))
    assert len(found) == count and found.min() >= 0 and found.max() < total
    assert (found.diff() > 0).all()
    if count > 1000:
        assert abs(found.double().mean() / total - 0.5) < 0.02


def test_normalised_low_rank() -> None:
    function, W = NormalisedLowRank(size=3, strength=7.0), weight()
    p = tensors(function)
    function.start(p, W)
    assert torch.allclose(p["norms"], W.norm(dim=0)) and p["strength"] == 7.0
    expected = zeros()
    for r in range(3):
        a, b = p["down"][r], p["up"][:, r]
        expected += 7.0 / 3 * torch.outer(b / b.norm(), a / a.norm() * W.norm(dim=0))
    is_its_matrix(function, function.generate(p, {}, WIDTHS), expected)


@pytest.mark.parametrize("depth", [0, 1, 2])
def test_weight_network_reads_the_weight(depth: int) -> None:
    function, W = WeightNetwork(size=5, depth=depth, activation="relu"), weight()
    p = tensors(function, weight=W)
    first = torch.relu(W.T @ p["down"].T)
    z = first
    if depth == 1:
        z = torch.relu(torch.relu(first @ p["encoder0"].T) @ p["decoder0"].T) + first
    if depth == 2:
        second = torch.relu(first @ p["encoder0"].T)
        third = torch.relu(second @ p["encoder1"].T)
        z = torch.relu(third @ p["decoder0"].T) + second
        z = torch.relu(z @ p["decoder1"].T) + first
    is_its_matrix(function, p, (z @ p["up"].T).T)


@pytest.mark.parametrize("split", ["orthogonal", "even"])
@pytest.mark.parametrize("cayley", ["exact", "neumann"])
def test_subspace_rotation(cayley: str, split: str) -> None:
    function, W = SubspaceRotation(size=4, cayley=cayley, split=split), weight()
    p = tensors(function)
    function.start(p, W)
    U, s, V = torch.linalg.svd(W, full_matrices=False)
    assert torch.allclose(p["up"] @ p["down"], U[:, :4] * s[:4] @ V[:4], atol=1e-12)
    if split == "orthogonal":
        assert torch.allclose(p["down"] @ p["down"].T, torch.eye(4, dtype=torch.float64), atol=1e-12)
    Q, eye = torch.zeros(4, 4, dtype=torch.float64), torch.eye(4, dtype=torch.float64)
    Q[tuple(torch.triu_indices(4, 4, 1))] = p["upper"]
    Q = Q - Q.T
    R = (eye + Q) @ torch.linalg.inv(eye - Q)
    if cayley == "neumann":
        R = eye + 2 * Q + 2 * Q @ Q + 2 * Q @ Q @ Q + Q @ Q @ Q @ Q
    middle = torch.diag(p["gain_out"]) @ R @ torch.diag(p["gain_in"]) - eye
    is_its_matrix(function, p, p["up"] @ middle @ p["down"])


@pytest.mark.parametrize("inject", [True, False])
@pytest.mark.parametrize("decomposition", ["qr", "relu"])
def test_projection(decomposition: str, inject: bool) -> None:
    function, W = Projection(size=3, decomposition=decomposition, inject=inject), weight()
    p = tensors(function, weight=W)
    if decomposition == "qr":
        Q = torch.linalg.qr(p["basis"])[0]
        P = p["basis"] @ torch.linalg.inv(p["basis"].T @ p["basis"]) @ p["basis"].T
    else:
        Q = p["basis"]
        P = Q @ torch.relu(Q).T
    new = Q @ p["fill"] if inject else torch.zeros_like(W)
    is_its_matrix(function, p, (torch.eye(OUT, dtype=torch.float64) - P) @ W + new - W)


def test_low_rank_with_a_bias() -> None:
    function = LowRank(size=3, bias=True)
    p = tensors(function)
    u = torch.randn(2, 5, IN, dtype=torch.float64)
    assert torch.allclose(function.delta(u, p, False), u @ (p["up"] @ p["down"]).T + p["up.bias"])
    affine = function.affine(p)
    assert affine.c_D is not None and torch.equal(affine.c_D, p["up.bias"])


DELTAS: dict[str, dict[str, Any]] = {
    "hadamard_product": {"size": 2},
    "kronecker": {"size": 2},
    "grid": {"size": 4, "blocks": 2},
    "block_sum": {"size": 6},
    "circulant": {"size": 8},
    "fourier": {"size": 50},
    "wavelet": {"size": 50},
    "sparse": {"size": 2},
    "normalised_low_rank": {"size": 2},
    "weight_network": {"size": 4, "depth": 1},
    "subspace_rotation": {"size": 4},
    "projection": {"size": 4, "decomposition": "qr"},
}
OTHERS: list[tuple[str, dict[str, Any], bool]] = [
    ("block_sum", {"size": 4, "of_weight": True}, True),
    ("circulant", {"size": 8, "init": "bert"}, False),
    ("fourier", {"size": 50, "init": "torch"}, False),
    ("sparse", {"density": 0.05, "mask": "largest"}, True),
    ("projection", {"size": 4, "inject": False}, False),
    ("projection", {"size": 4, "decomposition": "relu"}, True),
]
CASES = [(name, options, True) for name, options in DELTAS.items()] + OTHERS


@pytest.mark.parametrize("arch", ["bert", "llama"])
@pytest.mark.parametrize(("name", "options", "identity"), CASES, ids=lambda value: str(value))
def test_an_update_starts_where_it_says_and_folds(
    name: str, options: dict[str, Any], identity: bool, arch: str
) -> None:
    scaling = {"fourier": 100.0, "circulant": 32.0}.get(name, 1.0)
    position = {"site": ["attn.q", "attn.v", "ffn.down"]}
    insertion = {"function": {"name": name, **options}, "position": position, "scaling": scaling}
    starts_where_it_says_and_folds(arch, insertion, identity)


@pytest.mark.parametrize("through", ["nothing", "weight", "bias"])
def test_a_vector_through_the_linear_map_folds_into_its_bias(through: str) -> None:
    insertion = {"function": {"name": "vector", "through": through}, "position": ["attn.v", "ffn.down"]}
    arch = ARCHS["bert"]
    model, _ = adapted(arch, insertion)
    module = model.get_submodule("bert.encoder.layer.0.output.dense")
    with torch.no_grad():
        own = unipet.parameters(model)["one/bert.encoder.layer.0.output.dense/value"]
        assert own.shape == (48 if through == "weight" else 32,)
        own.normal_()
        W, b, v = module.weight, module.bias.clone(), own.clone()
        shift = {"nothing": v, "weight": W @ v if through == "weight" else v, "bias": b * v[:32]}[through]
        x = torch.randn(2, 5, 48)
        assert torch.allclose(module(x), x @ W.T + b + shift, atol=1e-5)
        unipet.merge(model)
        assert torch.allclose(module.bias, b + shift, atol=1e-6)


def test_what_needs_a_bias_leaves_out_the_sites_without_one() -> None:
    given = {"function": {"name": "vector", "through": "bias"}, "position": {"site": ["attn.v"]}}
    with pytest.raises(unipet.UnipetError, match=r"self_attn\.v_proj, which has none.*optional: \[attn\.v\]"):
        adapted(ARCHS["llama"], given)
    one = {**given, "position": {"site": ["attn.v"], "optional": True}}
    two = {"function": "vector", "position": "attn.v"}
    both = {"name": "test", "insertions": {"one": one, "two": two}}
    model = ARCHS["llama"].build()
    unipet.adapt(model, both)
    assert all(name.startswith("two/") for name in unipet.parameters(model))


def test_places_are_not_stored_but_made_again(tmp_path: Any) -> None:
    insertion = {"function": {"name": "sparse", "size": 1}, "position": "attn.q"}
    model, _ = adapted(ARCHS["bert"], insertion)
    unipet.save(model, tmp_path)
    again, _ = adapted(ARCHS["bert"], insertion)
    assert all(torch.equal(tensor, frozen(again)[name]) for name, tensor in frozen(model).items())
    tables = list(frozen(model).values())
    assert not torch.equal(tables[0], tables[1]), "every site draws its own"


@pytest.mark.parametrize(
    ("function", "match"),
    [
        ({"name": "grid", "size": 4, "blocks": 3}, "blocks: 3 does not divide the input width 32"),
        ({"name": "grid", "size": 5, "blocks": 2}, "blocks: 2 does not divide the size"),
        ({"name": "block_sum", "size": 5, "of_weight": True}, "5 does not divide"),
        ({"name": "circulant", "size": 5}, "5 does not divide.*1, 2, 4, 8, 16, 32"),
        ({"name": "subspace_rotation", "size": 33}, "at most 32"),
        ({"name": "projection", "size": 33}, "at most 32"),
        ({"name": "sparse", "mask": "middle"}, "largest"),
        ({"name": "low_rank", "bias": True, "init": "svd", "freeze": ["up"]}, "bias"),
    ],
)
def test_sizes_that_do_not_fit(function: dict[str, Any], match: str) -> None:
    with pytest.raises(unipet.UnipetError, match=match) as caught:
        adapted(ARCHS["bert"], {"function": function, "position": "attn.q"})
    assert "method.insertions.one" in str(caught.value)


@pytest.mark.parametrize("name", ["weight_network", "projection", "subspace_rotation", "normalised_low_rank"])
def test_what_needs_the_weight_reads_x(name: str) -> None:
    insertion = {"function": name, "position": {"site": "attn.q", "form": "sequential"}}
    with pytest.raises(unipet.UnipetError, match=r"position\.form.*parallel"):
        adapted(ARCHS["bert"], insertion)
    with pytest.raises(unipet.UnipetError, match=r"is no linear map|several modules|has no weight|x is not the input"):
        adapted(ARCHS["bert"], {"function": name, "position": "attn"})


def test_a_bias_does_not_mix_with_a_composition_of_the_weight() -> None:
    function = {"name": "low_rank", "bias": True}
    with pytest.raises(unipet.UnipetError, match="bias: false"):
        adapted(ARCHS["bert"], {"function": function, "position": "attn.q", "composition": "hadamard"})


def test_a_mixture_of_what_divides_a_width() -> None:
    """Slots are looked at before any site is known; no usual size may stumble over that."""
    for name, options in DELTAS.items():
        function = {"name": name, **options}
        mixture = {"experts": 2}
        model, _ = adapted(ARCHS["bert"], {"function": function, "position": "attn.q", "mixture": mixture})
        assert len(unipet.parameters(model)) % 2 == 0


@pytest.mark.parametrize("name", DELTAS)
def test_gradients_are_those_of_the_matrix(name: str) -> None:
    """The fast way and the matrix have the same derivative in every slot (C3A's official code has another)."""
    function = FUNCTIONS[name](**DELTAS[name])
    assert isinstance(function, LinearMap)
    made = dict(tensors(function, weight=weight()))
    if function.starts_from_weight and not function.needs_weight:
        function.start(made, weight())
    slots = [f"{slot}.{part}" if part else slot for slot, parts in function.slots(WIDTHS).items() for part in parts]
    for slot in slots:
        made[slot].requires_grad_()
    made = {**made, **function.generate(made, {}, WIDTHS)}
    u, probe = (torch.randn(2, 5, width, dtype=torch.float64) for width in (IN, OUT))
    fast = torch.autograd.grad((function.delta(u, made, True) * probe).sum(), [made[slot] for slot in slots])
    made = {**made, **function.generate(made, {}, WIDTHS)}
    slow = torch.autograd.grad((u @ function.matrix(made).T * probe).sum(), [made[slot] for slot in slots])
    assert all(torch.allclose(one, other, atol=1e-10) for one, other in zip(fast, slow, strict=True))


def test_a_kronecker_product_keeps_its_input_alone_for_the_backward_pass() -> None:
    function = Kronecker(size=64)
    params = {name: tensor.requires_grad_() for name, tensor in tensors(function, WIDTHS).items()}
    u_BTU = torch.randn(2, 5, WIDTHS.u, dtype=torch.float64, requires_grad=True)
    kept: list[Tensor] = []

    def keep(tensor: Tensor) -> Tensor:
        kept.append(tensor)
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        function.delta(u_BTU, params, True)
    places = {u_BTU.untyped_storage().data_ptr(), *(each.untyped_storage().data_ptr() for each in params.values())}
    assert {tensor.untyped_storage().data_ptr() for tensor in kept} <= places
    names = list(params)
    assert torch.autograd.gradcheck(
        lambda u, *own: function.delta(u, dict(zip(names, own, strict=True)), True), (u_BTU, *params.values())
    )


@pytest.mark.parametrize("factor", [1.0, 0.3])
def test_entries_are_added_to_the_weight_without_a_matrix(factor: float) -> None:
    function = Sparse(size=2)
    own = {name: tensor.float() if tensor.is_floating_point() else tensor for name, tensor in tensors(function).items()}
    params = {**own, **function.generate(own, {}, WIDTHS)}
    params["values"].requires_grad_()
    W, probe = torch.randn(OUT, IN), torch.randn(OUT, IN)
    with Operators() as counted:
        joined = Add().weight(W, function, params, factor)
    assert dict(counted.counts) == {"index_add": 1} | ({"mul": 1} if factor != 1 else {})
    expected = W + factor * function.matrix(params)
    assert torch.equal(joined, expected)
    found, other = (torch.autograd.grad((each * probe).sum(), params["values"]) for each in (joined, expected))
    assert torch.equal(found[0], other[0])


def test_a_spectrum_is_complex_from_the_start() -> None:
    """A grid of real numbers would be copied, with all its zeros, by the transform."""
    function = Fourier(size=20)
    own = {name: tensor.float() if tensor.is_floating_point() else tensor for name, tensor in tensors(function).items()}
    params = {**own, **function.generate(own, {}, WIDTHS)}
    with Operators() as counted:
        made = function.matrix(params)
    assert dict(counted.counts) == {"new_zeros": 1, "scatter_": 1, "_fft_c2c": 1}
    assert torch.equal(made, torch.fft.ifft2(function.grid(params)).real)
