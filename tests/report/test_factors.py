"""Main effects: the factors of a study are found from its records, and their planted effects are recovered."""

from __future__ import annotations

import csv
import io
from itertools import product

import numpy as np
import pytest

from tests.support.pages import insertion, method
from tests.support.planted import cell, planted
from unipet.report import statistics
from unipet.report.cases import study
from unipet.report.collect import Entry
from unipet.report.comparing import compare
from unipet.report.effect_rows import Effect, effects, effects_csv, effects_text
from unipet.report.estimates import ALL
from unipet.report.statistics import SEEDS, Stratum, stratified

TRUE = {"form": -0.05, "composition": -0.03, "size": 0.01}


def factorial(noise: float = 0.002, seeds: int = 3, tasks: tuple[str, ...] = ("t1", "t2")) -> list[Entry]:
    """form x composition x size on two tasks; the effects add up, and every seed has an error of its own."""
    rng, runs = np.random.default_rng(0), []
    design = product(enumerate(tasks), ("parallel", "sequential"), ("add", "multiply"), (8, 16), range(seeds))
    for (at, task), form, composition, size, seed in design:
        score = 0.6 + 0.1 * at + noise * float(rng.normal())
        score += TRUE["form"] * (form == "sequential") + TRUE["composition"] * (composition == "multiply")
        runs.append(planted(score + TRUE["size"] * (size == 16), cell(form, composition, size), seed, task))
    return runs


def found(entries: list[Entry], anyway: bool = False) -> dict[tuple[str, str, str], Effect]:
    some = effects(study(compare(entries), anyway))
    return {(each.change.factor, each.change.before, each.change.after): each for each in some}


def test_planted_effects_of_a_factorial_are_recovered() -> None:
    effects_of = found(factorial())
    assert list(effects_of) == [
        ("size", "8", "16"),
        ("form", "parallel", "sequential"),
        ("composition", "add", "multiply"),
    ]
    for (factor, _, _), effect in effects_of.items():
        assert [each.task for each in effect.estimates] == ["t1", "t2", ALL]
        for each in effect.estimates:
            assert each.difference == pytest.approx(TRUE[factor], abs=0.004) and each.low is not None and each.high
            assert each.low < TRUE[factor] < each.high and each.verdict == "different"
            assert (each.pairs, each.seeds) == ((8, 3) if each.task == ALL else (4, 3))
    text = effects_text(list(effects_of.values()))
    assert "Holm over 3" in text and "parallel → sequential" in text and "task as a block" in text
    rows = list(csv.DictReader(io.StringIO(effects_csv(list(effects_of.values())))))
    assert len(rows) == 9 and rows[0]["dimension"] == "size" and rows[2]["tasks"] == "t1 + t2"


def test_the_interval_is_students_over_the_means_of_each_seed() -> None:
    """Pairs of one seed are averaged first: they are no independent samples. By hand for one task."""
    scores = {("parallel", "add"): [0.5, 0.6, 0.7], ("parallel", "multiply"): [0.4, 0.6, 0.6]}
    scores |= {("sequential", "add"): [0.5, 0.5, 0.5], ("sequential", "multiply"): [0.3, 0.5, 0.5]}
    runs = [planted(score, cell(*key), seed) for key, some in scores.items() for seed, score in enumerate(some)]
    effect = found(runs)["composition", "add", "multiply"]
    (one,) = effect.estimates
    means = np.array([-0.15, 0.0, -0.05])  # of the two pairs, by seed
    error = means.std(ddof=1) / 3**0.5
    assert one.difference == pytest.approx(means.mean()) and one.basis == SEEDS
    assert (one.low, one.high) == (
        pytest.approx(means.mean() - 4.302653 * error),
        pytest.approx(means.mean() + 4.302653 * error),
    )


def test_a_task_is_a_block_with_a_variance_of_its_own() -> None:
    scores = {"t1": ([0.5, 0.6, 0.7], [0.6, 0.6, 0.9]), "t2": ([0.5, 0.5, 0.5], [0.51, 0.5, 0.52])}
    runs = [
        planted(score, cell(composition=name), seed, task)
        for task, both in scores.items()
        for name, some in zip(("add", "multiply"), both, strict=True)
        for seed, score in enumerate(some)
    ]
    over = found(runs)["composition", "add", "multiply"].estimates[-1]
    differences = [np.subtract(b, a) for a, b in scores.values()]
    variances = [each.var(ddof=1) / 3 / 4 for each in differences]
    freedom = sum(variances) ** 2 / sum(each**2 / 2 for each in variances)  # Welch and Satterthwaite
    from scipy.stats import t

    margin = t.ppf(0.975, freedom) * sum(variances) ** 0.5
    mean = np.mean([each.mean() for each in differences])
    assert over.difference == pytest.approx(mean)
    assert (over.low, over.high) == (pytest.approx(mean - margin), pytest.approx(mean + margin))
    assert over.better == 2 and over.p_tasks == pytest.approx(
        float(statistics.over_seeds(np.array([each.mean() for each in differences])).p)
    )


@pytest.mark.parametrize("spread", [(1.0, 1.0, 1.0, 1.0), (0.2, 1.0, 2.0, 3.0)])
@pytest.mark.parametrize("seeds", [2, 3, 5])
def test_the_interval_over_tasks_covers_what_it_says(spread: tuple[float, ...], seeds: int) -> None:
    rng, inside = np.random.default_rng(seeds), 0
    for _ in range(1500):
        test = stratified([Stratum(each * rng.normal(size=seeds)) for each in spread], SEEDS)
        inside += bool(test.low <= 0 <= test.high)
    assert 0.93 < inside / 1500 < 0.99


def test_cells_that_are_missing_leave_the_others(capsys: pytest.CaptureFixture[str]) -> None:
    """A level is compared wherever both were run with the same rest; nothing asks that the design is complete."""
    runs = [run for run in factorial(tasks=("t",)) if run.config["method"] != cell("sequential", "multiply", 16)]
    effects_of = found(runs)
    assert {key[0]: effect.estimates[0].pairs for key, effect in effects_of.items()} == {
        "size": 3,
        "form": 3,
        "composition": 3,
    }
    assert effects_of["form", "parallel", "sequential"].estimates[0].difference == pytest.approx(-0.05, abs=0.004)


def test_what_always_changes_together_is_one_factor_and_what_does_not_is_two() -> None:
    def two(first: int, second: int) -> dict[str, object]:
        made = method("two")
        made["insertions"] = {
            name: insertion(function={"name": "bottleneck", "size": size})
            for name, size in (("a", first), ("b", second))
        }
        return made

    together = [planted(0.5 + size / 100, two(size, size), seed) for size in (8, 16) for seed in (0, 1)]
    assert list(found(together)) == [("a size, b size", "8", "16")]
    apart = [planted(0.5, two(a, b), seed) for a in (8, 16) for b in (8, 16) for seed in (0, 1)]
    assert list(found(apart)) == [("a size", "8", "16"), ("b size", "8", "16")]


def test_a_function_goes_with_its_own_options_and_is_compared_at_equal_size() -> None:
    kinds = {"bottleneck": {"activation": "relu"}, "low_rank": {"dropout": 0.1}}
    runs = [
        planted(
            0.5 + 0.1 * (kind == "low_rank") + size / 100, method("m", function={"name": kind, "size": size, **more})
        )
        for kind, more in kinds.items()
        for size in (8, 16)
    ]
    effects_of = found(runs)
    assert {key: effect.estimates[0].pairs for key, effect in effects_of.items()} == {
        ("function", "bottleneck", "low_rank"): 2,
        ("size", "8", "16"): 2,
    }
    assert effects_of["function", "bottleneck", "low_rank"].estimates[0].difference == pytest.approx(0.1)


def test_an_insertion_and_a_mixture_may_be_there_or_not() -> None:
    whole = method("m")
    whole["insertions"]["more"] = insertion(position={**insertion()["position"], "site": ["attn"]})
    mixed = method("m", mixture={"experts": 4, "router": "uniform"})
    runs = [
        planted(score, given, seed)
        for given, score in ((method("m"), 0.5), (whole, 0.6), (mixed, 0.7))
        for seed in (0, 1)
    ]
    assert {key: round(effect.estimates[0].difference or 0, 3) for key, effect in found(runs).items()} == {
        ("ffn mixture", "absent", "present"): 0.2,
        ("more", "absent", "present"): 0.1,
    }


def test_no_pair_differs_in_how_much_was_trained_or_tuned_but_the_learning_rate_is_named() -> None:
    first, second = cell(), cell("sequential")
    runs = [planted(0.5, first, lr=0.1), planted(0.6, second, lr=0.2)]
    (effect,) = found(runs).values()
    assert effect.estimates[0].tuned == ("optim.lr",)
    assert "note: the two sides were tuned apart in optim.lr" in effects_text([effect])
    final = {"role": "final", "search": "random", "trials": 8, "seeds": 1}
    runs[1] = planted(0.6, second, trial=final)
    assert not found(runs) and found(runs, anyway=True)


def test_few_shot_splits_are_the_sample() -> None:
    differences = {0: [0.1, 0.3], 1: [0.2, 0.2], 2: [0.5, 0.3]}
    runs = [
        planted(0.3 + more, cell(form), seed, split=split)
        for split, some in differences.items()
        for seed, gain in enumerate(some)
        for form, more in (("parallel", 0.0), ("sequential", gain))
    ]
    (one,) = found(runs)["form", "parallel", "sequential"].estimates
    expected = statistics.over_seeds(np.array([np.mean(some) for some in differences.values()]))
    assert (one.seeds, one.splits) == (6, 3) and one.difference == pytest.approx(float(expected.difference))
    assert (one.low, one.high) == (pytest.approx(float(expected.low)), pytest.approx(float(expected.high)))
    assert "paired over seeds and split" in effects_text(list(found(runs).values()))


def test_scales_are_reconciled_or_tasks_are_not_averaged() -> None:
    def runs(scale: str, metric: str) -> list[Entry]:
        return [
            planted(score * by, cell(form), seed, task, metric=name, scale=own)
            for task, by, name, own in (("t1", 1.0, "accuracy", "0 to 1"), ("t2", 100.0, metric, scale))
            for form, score in (("parallel", 0.5), ("sequential", 0.6))
            for seed in (0, 1)
        ]

    (effect,) = found(runs("0 to 100", "bleu")).values()
    assert [round(each.difference or 0, 6) for each in effect.estimates] == [0.1, 10.0, 0.1]
    (effect,) = found(runs("from 1", "perplexity")).values()
    assert [each.task for each in effect.estimates] == ["t1", "t2"]
