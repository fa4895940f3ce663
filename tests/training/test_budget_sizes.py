"""The parameter half of budgets: sizes as large as a limit allows, on every architecture; what does not fit says so."""

from __future__ import annotations

import functools
import itertools
from collections import Counter
from collections.abc import Sequence
from fractions import Fraction
from typing import Any

import pytest

import unipet
from tests.support.architectures import ARCHS
from tests.support.matrix import METHODS, REASONS
from unipet.adaptation.describing import describe
from unipet.calculus.functions import FUNCTIONS
from unipet.calculus.functions.base import Widths
from unipet.calculus.library import load_method
from unipet.config import BudgetConfig
from unipet.errors import UnipetError
from unipet.training.budget.parameters import fit_parameters, parameter_limit
from unipet.training.budget.sizes import Sized, largest, sized, solve, together, trained, with_sizes

WORKING: dict[str, list[str]] = {a: [m for m in METHODS if REASONS[m, a] is None] for a in ARCHS}
LOWEST = {"rotation": 2, "butterfly": 2}
LIMITS = (0, 700, 3_000, 20_000)


@functools.cache
def skeleton(arch: str) -> Any:
    return ARCHS[arch].build().to("meta")


def legal(one: Sized, size: int) -> bool:
    """Whether the slots of an insertion exist at a size."""
    try:
        one.count(size)
    except UnipetError:
        return False
    return True


def test_sizes_fit_and_one_step_larger_does_not() -> None:
    """Every method on every architecture, those of the same widths once. Counted from shapes;
    `test_what_is_solved_is_what_trains` holds the counts to the built insertions."""
    seen: set[object] = set()
    outcomes: Counter[str] = Counter()
    for method, arch in (pair for pair, reason in REASONS.items() if reason is None):
        insertions = sized(METHODS[method], skeleton(arch))
        problem = (method, *((one.spec.name, one.widths) for one in insertions))
        for limit in LIMITS if insertions and problem not in seen else ():
            outcomes[held(method, insertions, limit)] += 1
        seen.add(problem)
    assert outcomes["fits"] > 300 and outcomes["all it can"] > 50 and outcomes["too large"] > 50


def held(method: str, insertions: list[Sized], limit: int) -> str:
    """One method, one limit: what came out, after a look at whether it is the best."""
    g, after = largest(insertions, limit)
    sizes = [one.size(g) for one in insertions]
    assert all(legal(one, size) for one, size in zip(insertions, sizes, strict=True))
    if together(insertions, g) > limit:
        assert sizes == [one.sizes[0] for one in insertions], f"{method}: not the smallest, and too large"
        return "too large"
    if after is None:
        assert sizes == [one.sizes[-1] for one in insertions]
        return "all it can"
    assert together(insertions, after) > limit, f"{method}: {sizes} is not the largest within {limit}"
    if len(insertions) == 1:
        assert_no_other_fits_better(insertions[0], sizes[0], limit)
    return "fits"


def assert_no_other_fits_better(one: Sized, size: int, limit: int) -> None:
    """By trying: no size near the one found, within the bounds that the function states, trains more and still fits."""
    found, ends = one.count(size), (one.sizes[0], one.sizes[-1])
    for other in range(max(min(ends), size - 9), min(max(ends), size + 9) + 1):
        if legal(one, other):
            assert not found < one.count(other) <= limit, f"{one.spec.function}: {other} beats {size} for {limit}"


@pytest.mark.parametrize("arch", ARCHS)
def test_what_is_solved_is_what_trains(arch: str) -> None:
    """The report is of built insertions; the solver counts shapes."""
    model, base = skeleton(arch), 100_000
    for method in WORKING[arch]:
        budget = BudgetConfig(trainable_params=base // 20)
        fit = fit_parameters(METHODS[method], model, budget)
        assert describe(fit.method, model).trainable == fit.report.trainable
        if fit.why_not is None:
            assert fit.report.trainable <= base // 20
            assert fit.larger_trains is None or fit.larger_trains > base // 20
        else:
            over = fit.report.trainable - base // 20
            assert over > 0 and f"{over:,} too many" in fit.why_not


@pytest.mark.parametrize("name", FUNCTIONS)
def test_a_function_names_the_sizes_that_it_allows(name: str) -> None:
    """Every size that it names has slots, and more of them with each step of a range; none that it leaves out has."""
    widths = [Widths(24, 36, 4, 4, 9), Widths(36, 24, 4, 4, 6)]
    if name in ("rotation", "butterfly", "reflection", "plane_rotation", "subspace"):  # square maps
        widths = [Widths(24, 24), Widths(36, 36)]
    needs = {"rows": {"ids": [1, 2]}, "vector_bank": {"vectors": 8}}
    function = FUNCTIONS[name](**needs.get(name, {}))
    sizes: Sequence[int] = function.sizes(widths)
    if not sizes:
        assert not hasattr(function, function.knob)
        return
    some = sizes[:60]
    counts = [trained(function.with_knob(size), widths, None) for size in some]
    if isinstance(sizes, range):
        assert all(a < b for a, b in itertools.pairwise(counts))
    elif name != "random_bases":  # beyond the width it only adds numbers
        for size in set(range(LOWEST.get(name, 1), 60)) - set(sizes):
            try:
                count = trained(function.with_knob(size), widths, None)
            except UnipetError:
                continue
            assert count in counts, f"{size} is allowed, too"


def test_ratio_is_kept() -> None:
    """MAM: prefix to adapter as 30 to 512, to the nearest whole numbers below."""
    for limit in (20_000, 100_000, 1_000_000):
        solution = solve(METHODS["mam"], skeleton("bert"), limit)
        prefix, adapter = solution.sizes.values()
        assert prefix == int(adapter * Fraction(30, 512)) or adapter == int(prefix * Fraction(512, 30))
        assert solution.report.trainable <= limit < (solution.larger_trains or 0)


def test_ratio_can_be_stated_and_swept() -> None:
    given = METHODS["mam"].to_dict()
    for name, ratio in (("attention", 1), ("ffn", 1)):
        given["insertions"][name]["ratio"] = ratio
    assert len(set(solve(load_method(given), skeleton("bert"), 50_000).sizes.values())) == 1
    given["insertions"]["attention"]["ratio"] = 0
    sizes = solve(load_method(given), skeleton("bert"), 50_000).sizes
    assert list(sizes) == ["method.insertions.ffn.function.size"], "a ratio of 0 leaves the size as it is given"
    del given["insertions"]["attention"]["ratio"], given["insertions"]["ffn"]["ratio"]
    prefix, adapter = solve(load_method(given), skeleton("bert"), 50_000).sizes.values()
    assert prefix == adapter * 30 // 512 > 1, "without a ratio the sizes given are one"


def test_ratio_of_nothing_is_an_error() -> None:
    given = {"name": "x", "insertions": {"a": {"function": "vector", "position": "attn.q", "ratio": 2}}}
    with pytest.raises(UnipetError, match=r"method\.insertions\.a\.ratio: its function has no size"):
        solve(load_method(given), skeleton("bert"), 100)
    given["insertions"]["a"]["ratio"] = -1  # type: ignore[index]
    with pytest.raises(
        UnipetError, match=r"method\.insertions\.a\.ratio: -1 given; allowed: a finite number at least 0 or null"
    ):
        load_method(given)
    given["insertions"]["a"]["ratio"] = "much"  # type: ignore[index]
    with pytest.raises(UnipetError, match=r"method\.insertions\.a\.ratio: .* given; allowed: a finite number"):
        load_method(given)


def test_a_ratio_is_written_back() -> None:
    again = load_method(METHODS["mam"].to_dict())
    assert [spec.ratio for spec in again.insertions] == [30.0, 512.0]
    assert "ratio" not in load_method("lora").to_dict()["insertions"]["attention"]


def test_percent_is_of_the_base_model_as_it_is_written() -> None:
    assert parameter_limit(BudgetConfig(trainable_percent=0.1), 1_000_000) == (
        1000,
        "budget.trainable_percent=0.1 of the base model's 1,000,000",
    )
    assert parameter_limit(BudgetConfig(trainable_percent=0.29), 100_000) is not None
    assert parameter_limit(BudgetConfig(trainable_percent=0.29), 100_000)[0] == 290  # type: ignore[index]
    both = parameter_limit(BudgetConfig(trainable_percent=50, trainable_params=7), 100)
    assert both is not None and both[0] == 7, "the smaller limit holds"
    assert parameter_limit(BudgetConfig(), 100) is None


def test_the_head_is_in_neither() -> None:
    model = skeleton("bert")
    fit = fit_parameters(METHODS["lora"], model, BudgetConfig(trainable_percent=5.0))
    base = sum(p.numel() for name, p in model.named_parameters() if name.startswith("bert."))
    assert fit.limit == base * 5 // 100 and fit.report.head > 0
    assert fit.report.trainable <= fit.limit < (fit.larger_trains or 0)


def test_a_method_without_a_size_fits_or_does_not() -> None:
    model = skeleton("bert")
    assert fit_parameters(METHODS["ia3"], model, BudgetConfig(trainable_params=224)).why_not is None
    fit = fit_parameters(METHODS["ia3"], model, BudgetConfig(trainable_params=223))
    assert fit.why_not is not None and "1 too many. It has no size" in fit.why_not


def test_a_network_that_only_training_needs_is_named() -> None:
    fit = fit_parameters(METHODS["prefix"], skeleton("bert"), BudgetConfig(trainable_params=5000))
    assert fit.why_not is not None and "reparam" in fit.why_not
    assert fit_parameters(METHODS["prefix_flat"], skeleton("bert"), BudgetConfig(trainable_params=5000)).why_not is None


@pytest.mark.parametrize("on_exceed", ["skip", "error"])
def test_only_fit_changes_sizes(on_exceed: str) -> None:
    model, lora = skeleton("bert"), METHODS["lora"]
    enough = fit_parameters(lora, model, BudgetConfig(trainable_params=10**6, on_exceed=on_exceed))
    assert enough.method is lora and enough.sizes is None and enough.why_not is None
    small = BudgetConfig(trainable_params=100, on_exceed=on_exceed)
    if on_exceed == "skip":
        found = fit_parameters(lora, model, small).why_not
        assert found is not None and "3,996 too many. budget.on_exceed=fit" in found
        return
    with pytest.raises(UnipetError, match=r"budget\.trainable_params=100 allows 100"):
        fit_parameters(lora, model, small)


def test_virtual_tokens_leave_room_for_the_input() -> None:
    """The base model has 40 positions; the input takes 30."""
    fit = fit_parameters(METHODS["prompt_tuning"], skeleton("bert"), BudgetConfig(trainable_params=10**6), length=30)
    assert fit.sizes == {"method.insertions.prompt.function.size": 10} and fit.larger_trains is None


def test_copies_of_a_mixture_count() -> None:
    sizes = {}
    for experts in (2, 8):
        given = METHODS["adamix"].to_dict()
        given["insertions"]["ffn"]["mixture"]["experts"] = experts
        sizes[experts] = next(iter(solve(load_method(given), skeleton("bert"), 10_000).sizes.values()))
    assert sizes[2] > 2 * sizes[8]


def test_two_kinds_of_sizes_share_one_limit() -> None:
    """Blocks that divide the width and train less the larger they are, beside a rank."""
    given = {
        "name": "x",
        "insertions": {
            "blocks": {"function": {"name": "circulant", "size": 8}, "position": "attn.q", "ratio": 8},
            "rank": {"function": {"name": "low_rank", "size": 4}, "position": "attn.v", "ratio": 4},
        },
    }
    found = []
    for limit in (400, 1_000, 3_000, 6_000):
        solution = solve(load_method(given), skeleton("bert"), limit)
        assert solution.report.trainable <= limit < (solution.larger_trains or limit + 1)
        found.append(tuple(solution.sizes.values()))
    assert [blocks for blocks, _ in found] == sorted((blocks for blocks, _ in found), reverse=True)
    assert [rank for _, rank in found] == sorted(rank for _, rank in found) and len(set(found)) > 2


def test_a_size_that_the_file_gives_may_be_impossible_here() -> None:
    """A budget chooses the size; what the file says is a ratio."""
    with pytest.raises(UnipetError, match="does not divide"):
        unipet.describe(with_sizes(METHODS["oft"], {"rotation": 5}), skeleton("bert"))
    solution = solve(with_sizes(METHODS["oft"], {"rotation": 5}), skeleton("bert"), 1_000)
    assert 0 < solution.report.trainable <= 1_000 < (solution.larger_trains or 0)
