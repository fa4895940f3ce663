"""Functions that turn their input, each against the matrix that its paper writes down."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

import unipet
from tests.support.architectures import ARCHS
from tests.support.functions import adapted, is_its_matrix, rows, starts_where_it_says_and_folds, tensors
from unipet.calculus.functions import FUNCTIONS
from unipet.calculus.functions.base import LinearMap, Widths
from unipet.calculus.functions.butterfly import Butterfly
from unipet.calculus.functions.plane_rotation import PlaneRotation
from unipet.calculus.functions.reflection import Reflection
from unipet.calculus.functions.rotation import Rotation

SQUARE = Widths(16, 16)
EYE = torch.eye(16, dtype=torch.float64)


def skew_by_hand(numbers: Tensor, width: int) -> Tensor:
    Q, given = torch.zeros(width, width, dtype=torch.float64), iter(numbers.tolist())
    for i in range(width):
        for j in range(i + 1, width):
            Q[i, j] = next(given)
            Q[j, i] = -Q[i, j]
    return Q


@pytest.mark.parametrize("share", [False, True])
@pytest.mark.parametrize(("cayley", "terms"), [("exact", 5), ("neumann", 3), ("neumann", 5), ("neumann", 7)])
def test_rotation_is_a_block_diagonal_cayley_transform(cayley: str, terms: int, share: bool) -> None:
    function = Rotation(size=4, cayley=cayley, terms=terms, share_blocks=share)
    params = tensors(function, SQUARE)
    assert params["upper"].shape == (1 if share else 4, 6)
    blocks = []
    for numbers in params["upper"]:
        Q, eye = skew_by_hand(numbers, 4), torch.eye(4, dtype=torch.float64)
        if cayley == "exact":
            blocks.append((eye - Q) @ torch.linalg.inv(eye + Q))
        else:
            powers = [torch.linalg.matrix_power(Q, k) for k in range(terms)]
            blocks.append(powers[0] + 2 * sum(powers[1:-1], torch.zeros_like(Q)) + powers[-1])
    R = torch.block_diag(*(blocks * 4 if share else blocks))
    is_its_matrix(function, params, R.T)  # x R for a row x
    if cayley == "exact":
        assert torch.allclose(R.T @ R, EYE, atol=1e-12)


def test_the_neumann_series_becomes_the_exact_rotation_the_other_way() -> None:
    upper = 0.1 * tensors(Rotation(size=4), SQUARE)["upper"]
    exact, series = Rotation(size=4, cayley="exact"), Rotation(size=4, terms=40)
    there = series.matrix(series.generate({"upper": upper}, {}, SQUARE))
    assert torch.allclose(there, exact.matrix(exact.generate({"upper": -upper}, {}, SQUARE)), atol=1e-12)


@pytest.mark.parametrize("factors", [1, 2, 3])
def test_butterfly_is_a_product_of_permuted_rotations(factors: int) -> None:
    function = Butterfly(size=4, factors=factors)
    params = tensors(function, SQUARE)
    assert params["blocks"].shape == (factors, 4, 4, 4)
    M = EYE
    for factor in range(factors):
        turns = []
        for X in params["blocks"][factor]:
            S, eye = (X - X.T) / 2, torch.eye(4, dtype=torch.float64)
            turns.append((eye - S) @ torch.linalg.inv(eye + S))
        # Half-blocks of each run, the even ones first.
        run, order = 4 * 2**factor, []
        for start in range(0, 16, run):
            halves = [list(range(at, at + 2)) for at in range(start, start + run, 2)]
            order += [channel for half in halves[0::2] + halves[1::2] for channel in half]
        P = EYE[order]
        M = P @ torch.block_diag(*turns) @ P.T @ M
    is_its_matrix(function, params, M.T)
    assert torch.allclose(M @ M.T, EYE, atol=1e-12)
    # Every output depends on 4 · 2^(m-1) inputs: the factors mix what one block alone cannot.
    assert ((M.T.abs() > 1e-9).sum(1) == min(16, 4 * 2 ** (factors - 1))).all()


@pytest.mark.parametrize("size", [1, 2, 3, 4])
def test_reflection_is_a_product_of_householder_matrices(size: int) -> None:
    function = Reflection(size=size)
    params = tensors(function, SQUARE)
    H = EYE
    for v in params["vectors"]:
        H = H @ (EYE - 2 * torch.outer(v, v) / (v @ v))
    is_its_matrix(function, params, H)


def test_reflection_with_gram_schmidt() -> None:
    function = Reflection(size=3, gram_schmidt=True)
    params = tensors(function, SQUARE)
    basis: list[Tensor] = []
    for v in params["vectors"]:
        for other in basis:
            v = v - (v @ other) * other
        basis.append(v / v.norm())
    V = torch.stack(basis, 1)
    is_its_matrix(function, params, EYE - 2 * V @ V.T)


@pytest.mark.parametrize("group", [2, 8, 16])
@pytest.mark.parametrize("per_pair", [1, 2, 4])
def test_plane_rotation_turns_pairs_of_channels(per_pair: int, group: int) -> None:
    function = PlaneRotation(per_pair=per_pair, group_size=group)
    params = tensors(function, SQUARE)
    angle, gain = (params[slot].tolist() for slot in ("angles", "gains"))
    expected, half = torch.zeros(16, 16, dtype=torch.float64), group // 2
    for start in range(0, 16, group):
        for j in range(half):
            first, second = start + j, start + j + half
            if per_pair == 1:
                one = [start // 2 + j] * 4
            elif per_pair == 2:
                one = [first, first, second, second]
            else:
                one = [2 * start + j, 2 * start + group + j, 2 * start + group + half + j, 2 * start + half + j]
            cos1, cos2 = (gain[k] * torch.tensor(angle[k]).cos() for k in (one[0], one[3]))
            sin1, sin2 = (gain[k] * torch.tensor(angle[k]).sin() for k in (one[1], one[2]))
            expected[first, first], expected[first, second] = cos1, -sin1
            expected[second, first], expected[second, second] = sin2, cos2
    assert torch.allclose(function.matrix(params), expected, atol=1e-6)
    u = rows(16)
    assert torch.allclose(function.delta(u, params, False), u @ function.matrix(params).T, atol=1e-12)


TURNS: dict[str, dict[str, Any]] = {
    "rotation": {"size": 8},
    "butterfly": {"size": 4, "factors": 2},
    "reflection": {"size": 4},
    "plane_rotation": {"group_size": 8, "per_pair": 4},
}


@pytest.mark.parametrize("arch", ["bert", "llama"])
@pytest.mark.parametrize("side", ["input", "output"])
@pytest.mark.parametrize("name", TURNS)
def test_a_turn_of_either_side_starts_as_the_identity_and_folds(name: str, side: str, arch: str) -> None:
    position = {"site": ["attn.q", "attn.v", "ffn.down"], "form": "sequential", "side": side}
    insertion = {"function": {"name": name, **TURNS[name]}, "position": position, "composition": "replace"}
    starts_where_it_says_and_folds(arch, insertion, identity=True)


@pytest.mark.parametrize("site", ["embed", "layer", "ffn"])
def test_a_rotation_that_starts_does_not_round_what_it_reads_under_autocast(site: str) -> None:
    """There h is float32 and a product of it half precision: R = I would round h, and u + u (R - I) does not."""
    insertion = {"function": {"name": "rotation", "size": 8}, "position": {"site": site, "form": "sequential"}}
    model = ARCHS["bert"].build().eval()
    batch = ARCHS["bert"].batch(3, 7)
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        before = model(**batch).logits
        unipet.adapt(model, {"name": "x", "insertions": {"one": {**insertion, "composition": "replace"}}})
        assert torch.equal(model(**batch).logits, before)


def test_a_turn_is_no_identity_where_it_is_scaled_or_reflects_a_subspace() -> None:
    insertion = {"function": {"name": "rotation", "size": 8}, "position": {"site": "attn.q", "form": "sequential"}}
    starts_where_it_says_and_folds("bert", {**insertion, "composition": "replace", "scaling": 2.0}, identity=False)
    insertion["function"] = {"name": "reflection", "size": 4, "gram_schmidt": True}
    starts_where_it_says_and_folds("bert", {**insertion, "composition": "replace"}, identity=False)


def test_of_a_fused_projection_the_whole_input_turns() -> None:
    """GPT-2's query, key and value share one input: attn.q cannot have one of its own, and leaves it to attn.qkv."""
    function = {"name": "rotation", "size": 8}
    fused = {"site": ["attn.qkv", "attn.q", "attn.v"], "form": "sequential", "side": "input"}
    insertion = {"function": function, "position": {**fused, "optional": True}, "composition": "replace"}
    model, _ = adapted(ARCHS["gpt2"], insertion)
    assert {name.split("/")[1].rpartition(".")[2] for name in unipet.parameters(model)} == {"c_attn"}
    with pytest.raises(unipet.UnipetError, match=r"side.*attn\.qkv"):
        adapted(ARCHS["gpt2"], {**insertion, "position": fused})


@pytest.mark.parametrize(
    ("name", "options", "match"),
    [
        ("rotation", {"size": 5}, "5 does not divide the input width 32.*1, 2, 4, 8, 16, 32"),
        ("butterfly", {"size": 5}, "5 does not divide"),
        ("butterfly", {"size": 8, "factors": 4}, "At most 3 factors"),
        ("butterfly", {"size": 1, "factors": 2}, "1 given; allowed: a whole number from 2"),
        ("reflection", {"size": 33}, "at most 32"),
        (
            "plane_rotation",
            {"per_pair": 3},
            r"^method\.insertions\.one\.function\.per_pair: 3 given; allowed: 1, 2 or 4\. This is at bert",
        ),
        ("plane_rotation", {"group_size": 12}, "12 does not divide"),
        ("plane_rotation", {"group_size": 3}, "2 does not divide"),
    ],
)
def test_sizes_that_do_not_fit(name: str, options: dict[str, Any], match: str) -> None:
    position = {"site": "attn.q", "form": "sequential", "side": "input"}
    with pytest.raises(unipet.UnipetError, match=match) as caught:
        adapted(ARCHS["bert"], {"function": {"name": name, **options}, "position": position, "composition": "replace"})
    assert "method.insertions.one" in str(caught.value)


def test_an_odd_block_cannot_be_exchanged() -> None:
    with pytest.raises(unipet.UnipetError, match="half-blocks"):
        Butterfly(size=3, factors=2).slots(Widths(24, 24))


@pytest.mark.parametrize("name", TURNS)
def test_gradients_are_those_of_the_matrix(name: str) -> None:
    """The fast way and the matrix have the same derivative in every slot."""
    function = FUNCTIONS[name](**TURNS[name])
    assert isinstance(function, LinearMap)
    made = tensors(function, SQUARE)
    slots = list(function.slots(SQUARE))
    for slot in slots:
        made[slot].requires_grad_()  # type: ignore[index]
    own = {slot: made[slot] for slot in slots}
    u, probe = rows(16), rows(16)
    fast = (function.delta(u, function.generate(own, {}, SQUARE), True) * probe).sum()
    slow = (u @ function.matrix(function.generate(own, {}, SQUARE)).T * probe).sum()
    grads = [torch.autograd.grad(loss, list(own.values())) for loss in (fast, slow)]
    assert all(torch.allclose(one, other, atol=1e-10) for one, other in zip(*grads, strict=True))
