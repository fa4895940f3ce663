"""Functions whose tensors all sites share, that are frozen, or that start from the base weight: against plain algebra."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

import unipet
from tests.support.insertions import adapted, method, only, output
from tests.support.tiny import TINY, tiny_batch
from unipet.adaptation.adapted import adaptation
from unipet.adaptation.api import frozen

QV = {"site": ["attn.q", "ffn.down", "ffn.up"]}


def weight(model: Any) -> Tensor:
    """The base weight at the first site, the query projection of the first layer."""
    found: Tensor = model.encoder.layer[0].attention.self.query.weight.detach()
    return found


def effect(model: Any, number: int = 0) -> Tensor:
    """The matrix that an insertion adds, measured: what the unit vectors become."""
    insertion = adaptation(model).items[number]
    width = insertion.widths.u
    h = torch.zeros(1, width, insertion.widths.h)
    with torch.no_grad():
        return insertion(h, torch.eye(width).unsqueeze(0))[0].T


@pytest.mark.parametrize(
    "function",
    [
        {"name": "random_low_rank", "size": 5},
        {"name": "random_bases", "size": 5},
        {"name": "random_bases", "size": 8, "released_order": True},
        {"name": "vector_bank", "size": 3, "vectors": 7, "vector": 8},
        {"name": "hashed_low_rank", "size": 3, "length": 50},
        {"name": "singular_core", "size": 3, "count": 4},
        {"name": "low_rank", "size": 3, "diagonal": True},
        {"name": "low_rank", "size": 3, "freeze": ["down"]},
        {"name": "low_rank", "size": 3, "init": "svd", "from_start": True},
        {"name": "low_rank", "size": 3, "init": "svd_minor", "freeze": ["up"]},
        {"name": "low_rank", "size": 3, "init": "qr", "from_start": True},
    ],
    ids=lambda f: "-".join(str(value) for value in f.values()),
)
def test_what_it_computes_is_its_matrix_and_folds(function: dict[str, Any]) -> None:
    model = adapted(method(function=function, position=QV))
    for number, insertion in enumerate(adaptation(model).items):
        function_of_site: Any = insertion.parts.function
        assert torch.allclose(effect(model, number), function_of_site.matrix(insertion.params()), atol=1e-5)
    before = output(model)
    unipet.merge(model)
    assert torch.allclose(output(model), before, atol=2e-5)


def test_two_vectors_around_one_frozen_pair() -> None:
    model = adapted(method(function={"name": "random_low_rank", "size": 5}, position=QV))
    shapes = {name.split("/", 2)[2]: tuple(p.shape) for name, p in unipet.parameters(model).items()}
    assert set(shapes) == {"inner", "outer"}, "vectors, never matrices, and nothing of the shared pair"
    assert all(len(shape) == 1 for shape in shapes.values())
    pair = frozen(model)
    A, B = pair["one/shared/down"], pair["one/shared/up"]
    assert A.shape == (5, 48) and B.shape == (48, 5)  # as wide as the widest site
    for number, insertion in enumerate(adaptation(model).items):
        own = insertion.bank.reduced()
        expected = (
            torch.diag(own["outer"]) @ B[: insertion.widths.h] @ torch.diag(own["inner"]) @ A[:, : insertion.widths.u]
        )
        assert torch.allclose(effect(model, number), expected, atol=1e-5)
    fresh = TINY["bert"](head=False)
    unipet.adapt(fresh, method(function={"name": "random_low_rank", "start_at": 0.25}))
    assert torch.all(only(fresh).bank.reduced()["inner"] == 0.25)


@pytest.mark.parametrize("released", [False, True])
@pytest.mark.parametrize("number", [0, 2, 4])  # square, in < out, out < in
def test_random_bases_against_the_sum_written_out(released: bool, number: int) -> None:
    function = {"name": "random_bases", "size": 7, "released_order": released}
    model = adapted(method(function=function, position=QV))
    insertion, pair = adaptation(model).items[number], frozen(model)
    own, r = insertion.bank.reduced(), 7
    narrow, wide = sorted((insertion.widths.u, insertion.widths.h))
    n = -(-narrow // r)
    A, B = pair["one/shared/A"][:, :narrow], pair["one/shared/B"][:wide, :n]
    expected = torch.zeros(wide, narrow)
    for flat in range(n * r):
        k, j = (flat // n, flat % n) if released else (flat % r, flat // r)  # of A
        column = B[:, flat // r, flat % r]
        expected += torch.outer(column, own["inner"][k, j] * A[k] * own["outer"][j])
    if insertion.widths.h < insertion.widths.u:
        expected = expected.T
    assert torch.allclose(effect(model, number), expected, atol=1e-4)
    if not released:
        parts = [B[:, j] @ torch.diag(own["inner"][:, j]) @ A @ torch.diag(own["outer"][j]) for j in range(n)]
        paper = sum(parts[1:], parts[0])
        assert torch.allclose(paper if insertion.widths.h >= insertion.widths.u else paper.T, expected, atol=1e-4)


def test_pieces_are_mixtures_of_the_bank_s_vectors() -> None:
    model = adapted(
        method(function={"name": "vector_bank", "size": 3, "vectors": 7, "vector": 4, "top": 2}, position=QV)
    )
    bank = unipet.parameters(model)["one/shared/bank"]
    insertion = adaptation(model).items[2]
    own = insertion.bank.reduced()

    def piece(logits: Tensor) -> Tensor:
        best = sorted(range(7), key=lambda i: -float(logits[i].detach()))[:2]
        share = torch.softmax(torch.stack([logits[i] for i in best]), 0)
        return share[0] * bank[best[0]] + share[1] * bank[best[1]]

    rows, columns = own["down.logits"], own["up.logits"]
    down = torch.stack([torch.cat([piece(rows[r, p]) for p in range(rows.shape[1])]) for r in range(3)])
    up = torch.stack([torch.cat([piece(columns[p, r]) for p in range(columns.shape[0])]) for r in range(3)], dim=1)
    assert torch.allclose(effect(model, 2), up @ down, atol=1e-5)


def test_every_entry_is_one_of_theta_and_the_map_keeps_lengths() -> None:
    model = adapted(method(function={"name": "hashed_low_rank", "size": 3, "length": 50}, position=QV))
    theta = unipet.parameters(model)["one/shared/theta"].detach()
    assert list(unipet.parameters(model)) == ["one/shared/theta"]
    entries = [insertion.params() for insertion in adaptation(model).items]
    flat = torch.cat([torch.cat([p["down"].flatten(), p["up"].flatten()]) for p in entries]).detach()
    assert torch.allclose(flat.norm(), theta.norm(), atol=1e-4), "an isometry: all 50 entries occur"
    ratio = flat[:, None] / theta
    counts = (frozen(model)["one/shared/factor"] ** -2).round()
    assert counts.sum() == len(flat)
    assert ((ratio - counts.rsqrt()).abs() < 1e-4).any(1).all()


def test_a_few_numbers_between_the_singular_factors() -> None:
    model = adapted(method(function={"name": "singular_core", "size": 3, "count": 4}))
    core, W = unipet.parameters(model)["one/shared/core"], weight(model)
    assert core.shape == (4,) and len(unipet.parameters(model)) == 1
    P = frozen(model)["one/encoder.layer.0.attention.self.query/projections"]
    U, S, V = torch.linalg.svd(W)
    inner = sum((core[k] * P[k] for k in range(1, 4)), core[0] * P[0])
    sign = torch.diag(V[:3].gather(1, V[:3].abs().argmax(1, keepdim=True)).sign().flatten())
    expected = U[:, :3] @ torch.diag(S[:3]) @ sign @ inner @ sign @ V[:3]
    assert torch.allclose(effect(model), expected, atol=1e-5)


@pytest.mark.parametrize("init", ["svd", "svd_minor", "qr"])
def test_starts_that_the_base_weight_gives(init: str) -> None:
    model = TINY["bert"](head=False)
    W = weight(model).clone()
    unipet.adapt(model, method(function={"name": "low_rank", "size": 3, "init": init}))
    own = only(model).bank.reduced()
    if init == "qr":
        Q, R = torch.linalg.qr(W)
        expected = Q[:, :3] @ R[:3]
    else:
        U, S, V = torch.linalg.svd(W)
        kept = slice(0, 3) if init == "svd" else slice(-3, None)
        expected = U[:, kept] @ torch.diag(S[kept]) @ V[kept]
    assert torch.allclose(own["up"] @ own["down"], expected, atol=1e-5)
    assert torch.equal(weight(model), W)


def test_from_start_is_the_paper_s_edited_weight() -> None:
    """W + s(BA - B₀A₀), which the papers compute as (W - sB₀A₀) + sBA, and nothing at all before training."""
    fresh = TINY["bert"](head=False)
    before = output(fresh)
    spec = method(function={"name": "low_rank", "size": 3, "init": "svd", "from_start": True}, scaling=0.5)
    unipet.adapt(fresh, spec)
    assert torch.equal(output(fresh), before)
    model = adapted(spec)
    own, kept = only(model).bank.reduced(), frozen(model)
    path = "one/encoder.layer.0.attention.self.query/start_"
    residual = weight(model) - 0.5 * kept[f"{path}up"] @ kept[f"{path}down"]
    merged = residual + 0.5 * own["up"] @ own["down"]
    assert torch.allclose(weight(model) + effect(model), merged, atol=1e-5)


def test_a_frozen_half_neither_trains_nor_is_stored() -> None:
    spec = method(function={"name": "low_rank", "size": 3, "freeze": ["down"], "seed": 7})
    first, second = adapted(spec), adapted(spec)
    assert {name.rsplit("/", 1)[1] for name in unipet.parameters(first)} == {"up"}
    assert all(torch.equal(one, frozen(second)[name]) for name, one in frozen(first).items())
    other = adapted(method(function={"name": "low_rank", "size": 3, "freeze": ["down"], "seed": 8}))
    assert not any(torch.equal(one, frozen(other)[name]) for name, one in frozen(first).items())


def test_kronecker_bottleneck_against_kron() -> None:
    function = {"name": "kronecker_bottleneck", "size": 8, "terms": 4, "rank": 2}
    model = adapted(method(function=function, position={"site": ["attn", "ffn"], "form": "sequential"}))
    insertion, h = only(model), torch.randn(2, 5, 32)
    own, rule = insertion.bank.reduced(), unipet.parameters(model)["one/shared/rule"]

    def product(slot: str) -> Tensor:
        terms = [torch.kron(rule[i], own[f"{slot}.left"][i] @ own[f"{slot}.right"][i]) for i in range(4)]
        return sum(terms[1:], terms[0])

    z = torch.nn.functional.gelu(h @ product("down") + own["down.bias"])
    assert torch.allclose(insertion(h, h), h + z @ product("up") + own["up.bias"], atol=1e-4)


@pytest.mark.parametrize("subtract", [True, False])
@pytest.mark.parametrize("orthonormal", [True, False])
def test_subspace_against_its_formula(orthonormal: bool, subtract: bool) -> None:
    function = {"name": "subspace", "size": 3, "orthonormal": orthonormal, "subtract": subtract, "activation": "tanh"}
    model = adapted(method(function=function, position={"site": "layer", "form": "sequential"}))
    insertion, h = only(model), torch.randn(2, 5, 32)
    own = insertion.bank.reduced()
    P = own["basis"]
    if orthonormal:  # Gram-Schmidt by hand
        rows: list[Tensor] = []
        for row in P:
            for done in rows:
                row = row - (row @ done) * done
            rows.append(row / row.norm())
        P = torch.stack(rows)
        assert torch.allclose(P @ P.T, torch.eye(3), atol=1e-5)
    target = torch.tanh(h @ own["source.weight"].T + own["source.bias"])
    expected = h + (target - h @ P.T if subtract else target) @ P
    assert torch.allclose(insertion(h, h), expected, atol=1e-5)


def test_an_edit_touches_the_chosen_tokens_alone() -> None:
    position = {"site": "layer", "form": "sequential", "tokens": "first:2", "layers": [1]}
    model, batch = TINY["bert"](head=False), tiny_batch()
    before = output(model, batch)
    unipet.adapt(model, method(function={"name": "subspace", "size": 3}, position=position))
    after = output(model, batch)
    assert torch.equal(before[:, 2:], after[:, 2:]) and not torch.equal(before[:, :2], after[:, :2])


def test_a_linear_edit_folds_where_it_can() -> None:
    model = adapted(
        method(function={"name": "subspace", "size": 3}, position={"site": "ffn.down", "form": "sequential"})
    )
    before = output(model)
    unipet.merge(model)
    assert torch.allclose(output(model), before, atol=2e-5)


def test_stochastic_depth_drops_whole_examples_in_training_only() -> None:
    function = {"name": "bottleneck", "size": 3, "drop_path": 0.5}
    model = adapted(method(function=function, position={"site": "ffn", "form": "sequential"}))
    insertion, h = only(model), torch.randn(400, 3, 32)
    whole = insertion(h, h) - h
    insertion.train()
    ratio = ((insertion(h, h) - h) / whole).detach()
    rows = ratio.mean((1, 2))
    assert torch.allclose(ratio, rows[:, None, None].expand_as(ratio), atol=1e-2)
    assert ((rows.abs() < 1e-2) | ((rows - 2).abs() < 1e-2)).all() and 0.4 < (rows < 1).float().mean() < 0.6


def test_the_diagonal_starts_at_zero_and_alpha_obeys_epsilon() -> None:
    scaling = {"name": "alpha_over_rank", "alpha": 6, "epsilon": 1e-5}
    model = TINY["bert"](head=False)
    unipet.adapt(
        model, method(function={"name": "low_rank", "size": 3, "init": "bert", "diagonal": True}, scaling=scaling)
    )
    own = only(model).bank.reduced()
    assert torch.all(own["diagonal"] == 0) and own["down"].abs().max() > 0 and own["up"].abs().max() > 0
    assert only(model).factor(torch.zeros(1), None) == 6 / (3 + 1e-5)


@pytest.mark.parametrize(
    ("function", "match"),
    [
        ({"name": "vector_bank", "vector": 5}, "vector: 5 does not divide the widths 32 -> 32.*divisor of 32"),
        ({"name": "vector_bank", "vectors": 2, "top": 3}, "top: 3 of 2 vectors"),
        ({"name": "kronecker_bottleneck", "size": 6}, "terms: 4 does not divide both widths"),
        ({"name": "low_rank", "size": 40, "init": "svd"}, "size: 40 given; allowed: at most 32"),
        ({"name": "low_rank", "size": 40, "init": "qr"}, "size: 40 given; allowed: at most 32"),
        ({"name": "singular_core", "size": 40}, "size: 40 given; allowed: at most 32"),
        ({"name": "low_rank", "from_start": True}, "from_start: it needs a start that the base weight gives"),
        ({"name": "low_rank", "freeze": ["down", "up"]}, "leaves nothing to train"),
        ({"name": "low_rank", "freeze": ["up"]}, "a frozen up needs a start"),
        ({"name": "low_rank", "freeze": ["down"], "init": "bert"}, "a frozen down is made from the seed"),
        ({"name": "low_rank", "freeze": ["middle"]}, "unknown 'middle'"),
        ({"name": "subspace", "size": 33}, "size: 33 given; allowed: at most 32"),
    ],
)
def test_sizes_that_do_not_fit(function: dict[str, Any], match: str) -> None:
    with pytest.raises(unipet.UnipetError, match=match):
        unipet.adapt(TINY["bert"](head=False), method(function=function))


def test_starts_of_the_weight_need_a_parallel_linear_site() -> None:
    function = {"name": "low_rank", "size": 3, "init": "svd"}
    with pytest.raises(unipet.UnipetError, match="form: parallel"):
        unipet.adapt(
            TINY["bert"](head=False), method(function=function, position={"site": "ffn.up", "form": "sequential"})
        )
    with pytest.raises(unipet.UnipetError, match="plain linear projection"):
        unipet.adapt(TINY["bert"](head=False), method(function=function, position={"site": "ffn"}))
    with pytest.raises(unipet.UnipetError, match="form: sequential"):
        unipet.adapt(TINY["bert"](head=False), method(function="subspace", position={"site": "ffn.up"}))
